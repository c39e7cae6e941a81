//! Predictions as columns; see [`PREDICTION_COLUMNS`].

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{BooleanBuilder, Float32Builder, ListBuilder, StringBuilder, StructBuilder},
    new_null_array,
};
use arrow_schema::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Compression,
    errors::ParquetError,
    file::properties::WriterProperties,
};
use sortinghat_proto::manifest::PREDICTION_COLUMNS;

use crate::batches::Unseen;

/// One file of the upload.
pub(super) struct Row<'a> {
    pub(super) path: &'a str,
    pub(super) digest: &'a str,
    /// The most probable classes, or why the photo has none.
    pub(super) top: Result<Vec<(usize, f32)>, &'a Unseen>,
    /// How unlike the photos of all classes it is, above 0 if it resembles none; `None` if the model cannot tell.
    pub(super) unlike: Option<f32>,
    /// Names of the classes.
    pub(super) classes: &'a [String],
}

/// Rows that wait to be written.
#[derive(Debug)]
pub(super) struct Table {
    path: StringBuilder,
    digest: StringBuilder,
    predicted: StringBuilder,
    probability: Float32Builder,
    top: ListBuilder<StructBuilder>,
    error: StringBuilder,
    unlike: BooleanBuilder,
    unlike_score: Float32Builder,
    status: StringBuilder,
    rows: usize,
}

fn top_fields() -> Fields {
    vec![Field::new("class", DataType::Utf8, false), Field::new("probability", DataType::Float32, false)].into()
}

fn top_item() -> Field {
    Field::new("item", DataType::Struct(top_fields()), false)
}

fn schema() -> Schema {
    let [path, digest, predicted, probability, top, error, unlike, unlike_score, status] = PREDICTION_COLUMNS;
    Schema::new(vec![
        Field::new(path, DataType::Utf8, false),
        Field::new(digest, DataType::Utf8, false),
        Field::new(predicted, DataType::Utf8, true),
        Field::new(probability, DataType::Float32, true),
        Field::new(top, DataType::List(Arc::new(top_item())), false),
        Field::new(error, DataType::Utf8, true),
        Field::new(unlike, DataType::Boolean, true),
        Field::new(unlike_score, DataType::Float32, true),
        Field::new(status, DataType::Utf8, true),
    ])
}

impl Default for Table {
    fn default() -> Self {
        let classes: Box<dyn arrow_array::builder::ArrayBuilder> = Box::new(StringBuilder::new());
        let items = StructBuilder::new(top_fields(), vec![classes, Box::new(Float32Builder::new())]);
        Self {
            path: StringBuilder::new(),
            digest: StringBuilder::new(),
            predicted: StringBuilder::new(),
            probability: Float32Builder::new(),
            top: ListBuilder::new(items).with_field(top_item()),
            error: StringBuilder::new(),
            unlike: BooleanBuilder::new(),
            unlike_score: Float32Builder::new(),
            status: StringBuilder::new(),
            rows: 0,
        }
    }
}

impl Table {
    /// How many rows wait.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn push(&mut self, row: Row<'_>) {
        self.rows += 1;
        self.path.append_value(row.path);
        self.digest.append_value(row.digest);
        self.status.append_value(status(&row));
        let (top, error) = match row.top {
            Ok(top) => (top, None),
            Err(unseen) => (Vec::new(), Some(&unseen.why)),
        };
        self.predicted.append_option(top.first().map(|(class, _)| &row.classes[*class]));
        self.probability.append_option(top.first().map(|(_, probability)| *probability));
        self.error.append_option(error);
        self.unlike.append_option(row.unlike.map(|score| score > 0.0));
        self.unlike_score.append_option(row.unlike);
        for (class, probability) in top {
            self.push_top(&row.classes[class], probability);
        }
        self.top.append(true);
    }

    fn push_top(&mut self, class: &str, probability: f32) {
        let item = self.top.values();
        item.field_builder::<StringBuilder>(0).expect("the first field holds names").append_value(class);
        item.field_builder::<Float32Builder>(1).expect("the second field holds numbers").append_value(probability);
        item.append(true);
    }

    /// The rows as a Parquet file.
    pub(super) fn into_parquet(mut self) -> Result<Vec<u8>, ParquetError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.path.finish()),
            Arc::new(self.digest.finish()),
            Arc::new(self.predicted.finish()),
            Arc::new(self.probability.finish()),
            Arc::new(self.top.finish()),
            Arc::new(self.error.finish()),
            Arc::new(self.unlike.finish()),
            Arc::new(self.unlike_score.finish()),
            Arc::new(self.status.finish()),
        ];
        to_parquet(&RecordBatch::try_new(Arc::new(schema()), columns)?)
    }
}

/// What became of the photo, in one word.
fn status(row: &Row<'_>) -> &'static str {
    match (&row.top, row.unlike) {
        (Err(unseen), _) if unseen.is_over_limit => "over-limit",
        (Err(_), _) => "undecodable",
        (Ok(_), Some(score)) if score > 0.0 => "unsure",
        (Ok(_), _) => "ok",
    }
}

/// Rows as a Parquet file; the same rows give the same bytes.
pub(super) fn to_parquet(rows: &RecordBatch) -> Result<Vec<u8>, ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    writer.into_inner()
}

/// The rows of a Parquet file, some at a time.
pub(super) fn from_parquet(
    file: Bytes,
) -> Result<impl Iterator<Item = Result<RecordBatch, ParquetError>>, ParquetError> {
    let schema = Arc::new(schema());
    let batches = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
    Ok(batches.map(move |rows| {
        let rows = rows?;
        // An older worker has made fewer columns.
        let missing = schema.fields().iter().skip(rows.num_columns());
        let missing = missing.map(|field| new_null_array(field.data_type(), rows.num_rows()));
        let columns = rows.columns().iter().cloned().chain(missing).collect();
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }))
}
