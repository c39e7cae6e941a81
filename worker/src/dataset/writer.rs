//! Writes photos into Parquet shards of bounded size.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::Schema;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};

use super::{
    schema::{ORIGIN_TEXTS, PhotoRecord, Place, ShardError, image_fields, schema},
    split::Side,
};

/// Photos in a row group: the least that is read to get at one photo.
const ROW_GROUP_ROWS: usize = 16;

/// A complete Parquet file.
#[derive(Debug)]
pub struct FinishedShard {
    /// The file.
    pub bytes: Vec<u8>,
    /// Photos in it.
    pub rows: u64,
}

/// Collects photos and yields a shard whenever one is full. Holds at most one shard in memory. The same photos in the same
/// order give the same bytes.
pub struct ShardWriter {
    schema: Arc<Schema>,
    max_shard_bytes: usize,
    writer: ArrowWriter<Vec<u8>>,
    waiting: Vec<(PhotoRecord, Vec<u8>)>,
    rows: u64,
    image_bytes: usize,
    is_gathered: bool,
}

impl ShardWriter {
    /// A writer for a dataset with these class names, whose shards have at most `max_shard_bytes` of pictures (one picture
    /// more than that has a shard of its own). If photos were gathered, there are columns that say where.
    ///
    /// # Errors
    /// [`ShardError::Parquet`].
    pub fn new(classes: &[String], max_shard_bytes: usize, is_gathered: bool) -> Result<Self, ShardError> {
        let schema = schema(classes, is_gathered);
        let writer = start(&schema)?;
        Ok(Self { schema, max_shard_bytes, writer, waiting: Vec::new(), rows: 0, image_bytes: 0, is_gathered })
    }

    /// Adds a photo; returns the shard before it if that has become full.
    ///
    /// # Errors
    /// [`ShardError`]; the writer is useless then.
    pub fn push(&mut self, record: PhotoRecord, image: Vec<u8>) -> Result<Option<FinishedShard>, ShardError> {
        let is_full = self.rows > 0 && self.image_bytes + image.len() > self.max_shard_bytes;
        let full = if is_full { self.finish_shard()? } else { None };
        self.rows += 1;
        self.image_bytes += image.len();
        self.waiting.push((record, image));
        if self.waiting.len() == ROW_GROUP_ROWS {
            self.write_row_group()?;
        }
        Ok(full)
    }

    /// Returns the last shard, if it has any photo.
    ///
    /// # Errors
    /// [`ShardError`].
    pub fn finish(mut self) -> Result<Option<FinishedShard>, ShardError> {
        self.finish_shard()
    }

    fn finish_shard(&mut self) -> Result<Option<FinishedShard>, ShardError> {
        if self.rows == 0 {
            return Ok(None);
        }
        self.write_row_group()?;
        let full = std::mem::replace(&mut self.writer, start(&self.schema)?);
        let shard = FinishedShard { bytes: full.into_inner()?, rows: self.rows };
        (self.rows, self.image_bytes) = (0, 0);
        Ok(Some(shard))
    }

    fn write_row_group(&mut self) -> Result<(), ShardError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = record_batch(&self.schema, &std::mem::take(&mut self.waiting), self.is_gathered)?;
        self.writer.write(&batch)?;
        self.writer.flush()?;
        Ok(())
    }
}

fn start(schema: &Arc<Schema>) -> Result<ArrowWriter<Vec<u8>>, ShardError> {
    let image_bytes = ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]);
    // Pictures are compressed already, and never repeat; min and max of them would only repeat bytes in the footer.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_column_compression(image_bytes.clone(), Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(image_bytes.clone(), false)
        .set_column_statistics_enabled(image_bytes, EnabledStatistics::None)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    Ok(ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?)
}

fn record_batch(
    schema: &Arc<Schema>,
    rows: &[(PhotoRecord, Vec<u8>)],
    is_gathered: bool,
) -> Result<RecordBatch, ShardError> {
    let records = || rows.iter().map(|(record, _)| record);
    let image = StructArray::new(
        image_fields(),
        vec![
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|(_, image)| image))) as ArrayRef,
            Arc::new(StringArray::from_iter_values(records().map(|record| &record.path))),
        ],
        None,
    );
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(image),
        Arc::new(Int64Array::from_iter_values(records().map(|record| record.label as i64))),
        Arc::new(StringArray::from_iter_values(records().map(|record| record.digest.as_str()))),
        Arc::new(StringArray::from_iter_values(records().map(|record| split_name(record.place)))),
        Arc::new(Int32Array::from_iter(records().map(|record| fold_number(record.place)))),
        Arc::new(Int64Array::from_iter_values(records().map(|record| record.group as i64))),
        Arc::new(Int32Array::from_iter_values(records().map(|record| record.width as i32))),
        Arc::new(Int32Array::from_iter_values(records().map(|record| record.height as i32))),
        Arc::new(StringArray::from_iter_values(records().map(|record| &record.original_format))),
    ];
    if is_gathered {
        let origins = || records().map(|record| record.origin.as_deref());
        let texts = ORIGIN_TEXTS.map(|(_, text)| StringArray::from_iter(origins().map(|origin| text(origin?))));
        columns.extend(texts.into_iter().map(|texts| Arc::new(texts) as ArrayRef));
        columns.push(Arc::new(Int64Array::from_iter(origins().map(|origin| Some(origin?.rank as i64)))));
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn split_name(place: Place) -> &'static str {
    match place {
        Place::Side(Side::Valid) => "valid",
        Place::Side(Side::Train) | Place::Fold(_) => "train",
    }
}

fn fold_number(place: Place) -> Option<i32> {
    match place {
        Place::Side(_) => None,
        Place::Fold(fold) => Some(fold as i32),
    }
}
