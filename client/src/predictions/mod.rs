//! Predictions as rows: read from the Parquet files of a job, followed while the job runs, and written to the files that people use.

mod measured;
mod watch;
mod write;

use arrow_array::{Array as _, RecordBatch, cast::AsArray as _, types::Float32Type};
use bytes::Bytes;
use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, errors::ParquetError};
use serde::{Deserialize, Serialize};
use sortinghat_proto::{
    ObjectRef,
    manifest::{PREDICTION_COLUMNS, PredictionsManifest},
};

use crate::{Client, ClientError};

pub use watch::{PredictedRows, PredictionsUpdate, PredictionsWatch};
pub use write::{Cells, Format, RowWriter, Style};

/// The result for one photo: a prediction or an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The path of the photo in the upload.
    pub path: String,
    /// The digest of the photo's content.
    pub digest: String,
    /// What became of the photo.
    #[serde(default)]
    pub status: Status,
    /// The most probable class; `None` for an error.
    pub predicted: Option<String>,
    /// The probability of that class, 0 to 1; `None` for an error.
    pub probability: Option<f32>,
    /// The most probable classes, the most probable one first; empty for an error.
    pub top: Vec<ClassProbability>,
    /// Why there is no prediction; `None` if there is one.
    pub error: Option<String>,
    /// Whether the photo resembles none of the classes; `None` for an error, and if the model cannot tell.
    #[serde(default)]
    pub unlike: Option<bool>,
    /// How unlike the photos of all classes it is: above 0 if it resembles none. `None` as `unlike`.
    #[serde(default)]
    pub unlike_score: Option<f32>,
}

/// A class and how probable it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassProbability {
    /// The class's name.
    pub class: String,
    /// 0 to 1.
    pub probability: f32,
}

/// What became of a photo, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It was classified.
    #[default]
    Ok,
    /// It was classified, but resembles none of the classes.
    Unsure,
    /// It could not be read as a photo.
    Undecodable,
    /// It has more bytes or pixels than are allowed.
    OverLimit,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unsure => "unsure",
            Self::Undecodable => "undecodable",
            Self::OverLimit => "over-limit",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Ok, Self::Unsure, Self::Undecodable, Self::OverLimit].into_iter().find(|status| status.as_str() == word)
    }
}

impl Client {
    /// Calls `each` for every prediction, in the order of the upload. Only one part is in memory at a time.
    ///
    /// # Errors
    /// [`ClientError`] if a part cannot be read or parsed.
    pub async fn for_each_prediction(
        &self,
        manifest: &PredictionsManifest,
        mut each: impl FnMut(Prediction),
    ) -> Result<(), ClientError> {
        for part in &manifest.parts {
            self.read_predictions(part).await?.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// The rows of one Parquet file.
    async fn read_predictions(&self, part: &ObjectRef) -> Result<Vec<Prediction>, ClientError> {
        let mut all = Vec::new();
        for batch in batches(self.read_object(part).await?.into()).map_err(unreadable(part))? {
            all.extend(rows(&batch).map_err(unreadable(part))?);
        }
        Ok(all)
    }
}

fn unreadable(part: &ObjectRef) -> impl Fn(ParquetError) -> ClientError + '_ {
    |error| ClientError::CorruptObject { digest: part.digest.clone(), reason: error.to_string() }
}

fn batches(part: Bytes) -> Result<Vec<RecordBatch>, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(part)?.build()?;
    reader.map(|batch| batch.map_err(ParquetError::from)).collect()
}

/// The rows of a batch with [`PREDICTION_COLUMNS`].
fn rows(batch: &RecordBatch) -> Result<Vec<Prediction>, ParquetError> {
    let missing = |name: &str| ParquetError::General(format!("there is no column {name} of the expected type"));
    let found = |name: &'static str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let text = |name: &'static str| found(name).ok_or_else(|| missing(name));
    let [path, digest, predicted, probability, top, error, unlike, unlike_score, status] = PREDICTION_COLUMNS;
    let (path, digest, predicted, error) = (text(path)?, text(digest)?, text(predicted)?, text(error)?);
    let probability = batch.column_by_name(probability).and_then(|column| column.as_primitive_opt::<Float32Type>());
    let probability = probability.ok_or_else(|| missing("probability"))?;
    let top = batch.column_by_name(top).and_then(|column| column.as_list_opt::<i32>()).ok_or_else(|| missing("top"))?;
    // Predictions of older workers lack these three.
    let unlike = batch.column_by_name(unlike).and_then(|column| column.as_boolean_opt());
    let unlike_score = batch.column_by_name(unlike_score).and_then(|column| column.as_primitive_opt::<Float32Type>());
    let status = found(status);
    (0..batch.num_rows())
        .map(|row| {
            let text = |column: &arrow_array::StringArray| column.is_valid(row).then(|| column.value(row).to_owned());
            let (error, is_unlike) =
                (text(error), unlike.filter(|column| column.is_valid(row)).map(|column| column.value(row)));
            let known =
                status.filter(|column| column.is_valid(row)).and_then(|column| Status::of_word(column.value(row)));
            Ok(Prediction {
                path: text(path).unwrap_or_default(),
                digest: text(digest).unwrap_or_default(),
                status: known.unwrap_or_else(|| derived(error.is_some(), is_unlike)),
                predicted: text(predicted),
                probability: probability.is_valid(row).then(|| probability.value(row)),
                top: if top.is_valid(row) {
                    most_probable(&top.value(row)).ok_or_else(|| missing("top"))?
                } else {
                    vec![]
                },
                error,
                unlike: is_unlike,
                unlike_score: unlike_score.filter(|column| column.is_valid(row)).map(|column| column.value(row)),
            })
        })
        .collect()
}

/// The status of a row whose worker was too old to write one.
fn derived(is_error: bool, unlike: Option<bool>) -> Status {
    match (is_error, unlike) {
        (true, _) => Status::Undecodable,
        (false, Some(true)) => Status::Unsure,
        (false, _) => Status::Ok,
    }
}

fn most_probable(list: &dyn arrow_array::Array) -> Option<Vec<ClassProbability>> {
    let entries = list.as_struct_opt()?;
    let classes = entries.column_by_name("class")?.as_string_opt::<i32>()?;
    let probabilities = entries.column_by_name("probability")?.as_primitive_opt::<Float32Type>()?;
    let entry = |n| ClassProbability { class: classes.value(n).to_owned(), probability: probabilities.value(n) };
    Some((0..entries.len()).map(entry).collect())
}

#[cfg(test)]
mod tests;
