//! Reads predictions as rows, and writes them to the files that people use: CSV, JSON lines, Parquet.

use std::{
    fs,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use arrow_array::{Array as _, RecordBatch, cast::AsArray as _, types::Float32Type};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use serde::{Deserialize, Serialize};
use sortinghat_proto::{
    ObjectRef,
    manifest::{PREDICTION_COLUMNS, PredictionsManifest},
    plain,
};

use crate::{Client, ClientError, Existing, downloads::Staged};

/// The result for one photo: a prediction or an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The path of the photo in the upload.
    pub path: String,
    /// The digest of the photo's content.
    pub digest: String,
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

/// The formats of files that predictions can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header line, and then a line for each photo. `top` is JSON.
    Csv,
    /// A JSON object for each photo, one a line.
    JsonLines,
    /// A row for each photo. `top` is a list.
    Parquet,
}

/// How names, paths and messages are written to a file that a spreadsheet may open. The other formats are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cells {
    /// Harmless: a cell that a spreadsheet would run begins with an apostrophe, and characters that command a terminal or turn the
    /// direction of writing are escaped.
    #[default]
    Harmless,
    /// As they are, byte for byte.
    Raw,
}

impl Format {
    /// The format that the ending of a file's name asks for, in capitals or not.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
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
            for batch in batches(self.read_object(part).await?.into()).map_err(unreadable(part))? {
                rows(&batch).map_err(unreadable(part))?.into_iter().for_each(&mut each);
            }
        }
        Ok(())
    }

    /// Writes all predictions to `path`, which is replaced only once the new file is complete. `cells` is about CSV only.
    ///
    /// # Errors
    /// [`ClientError::File`] if the file cannot be written, or the reason why a part cannot be read.
    pub async fn save_predictions(
        &self,
        manifest: &PredictionsManifest,
        format: Format,
        cells: Cells,
        path: &Path,
        existing: Existing,
    ) -> Result<(), ClientError> {
        let mut writer = Writer::create(format, cells, path)?;
        for part in &manifest.parts {
            for batch in batches(self.read_object(part).await?.into()).map_err(unreadable(part))? {
                writer.write(&batch).map_err(ClientError::writing(path))?;
            }
        }
        writer.finish(existing).map_err(ClientError::writing(path))
    }
}

impl Client {
    /// Writes the predictions of an evaluation, which are CSV already, to `path`. The file appears only once it is complete.
    ///
    /// # Errors
    /// [`ClientError::File`] if the file cannot be written, or the reason why the predictions cannot be read.
    pub async fn save_measured(
        &self,
        predictions: &ObjectRef,
        cells: Cells,
        path: &Path,
        existing: Existing,
    ) -> Result<(), ClientError> {
        if cells == Cells::Raw {
            return self.save_object(predictions, path, existing).await;
        }
        let stored = self.read_object(predictions).await?;
        let harmless = harmless(&stored).map_err(|error| ClientError::CorruptObject {
            digest: predictions.digest.clone(),
            reason: error.to_string(),
        })?;
        let (staged, mut file) = Staged::create(path).map_err(ClientError::writing(path))?;
        file.write_all(&harmless).map_err(ClientError::writing(path))?;
        staged.finish(existing).map_err(ClientError::writing(path))
    }
}

/// The columns of an evaluation's predictions that hold text; the columns behind them hold numbers.
const MEASURED_TEXT_COLUMNS: usize = 4;

/// CSV of an evaluation with cells that no spreadsheet runs. The header has names of classes, and the first columns have text.
fn harmless(stored: &[u8]) -> Result<Vec<u8>, csv::Error> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(stored);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (line, record) in reader.records().enumerate() {
        let record = record?;
        let cells = record.iter().enumerate().map(|(column, cell)| {
            let is_text = line == 0 || column < MEASURED_TEXT_COLUMNS;
            if is_text { plain::spreadsheet_cell(cell) } else { cell.into() }
        });
        writer.write_record(cells.map(|cell| cell.into_owned()))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
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
    let text = |name: &'static str| {
        batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()).ok_or_else(|| missing(name))
    };
    let [path, digest, predicted, probability, top, error, unlike, unlike_score] = PREDICTION_COLUMNS;
    let (path, digest, predicted, error) = (text(path)?, text(digest)?, text(predicted)?, text(error)?);
    let probability = batch.column_by_name(probability).and_then(|column| column.as_primitive_opt::<Float32Type>());
    let probability = probability.ok_or_else(|| missing("probability"))?;
    let top = batch.column_by_name(top).and_then(|column| column.as_list_opt::<i32>()).ok_or_else(|| missing("top"))?;
    // Predictions of older workers lack these two.
    let unlike = batch.column_by_name(unlike).and_then(|column| column.as_boolean_opt());
    let unlike_score = batch.column_by_name(unlike_score).and_then(|column| column.as_primitive_opt::<Float32Type>());
    (0..batch.num_rows())
        .map(|row| {
            let text = |column: &arrow_array::StringArray| column.is_valid(row).then(|| column.value(row).to_owned());
            Ok(Prediction {
                path: text(path).unwrap_or_default(),
                digest: text(digest).unwrap_or_default(),
                predicted: text(predicted),
                probability: probability.is_valid(row).then(|| probability.value(row)),
                top: if top.is_valid(row) {
                    most_probable(&top.value(row)).ok_or_else(|| missing("top"))?
                } else {
                    vec![]
                },
                error: text(error),
                unlike: unlike.filter(|column| column.is_valid(row)).map(|column| column.value(row)),
                unlike_score: unlike_score.filter(|column| column.is_valid(row)).map(|column| column.value(row)),
            })
        })
        .collect()
}

fn most_probable(list: &dyn arrow_array::Array) -> Option<Vec<ClassProbability>> {
    let entries = list.as_struct_opt()?;
    let classes = entries.column_by_name("class")?.as_string_opt::<i32>()?;
    let probabilities = entries.column_by_name("probability")?.as_primitive_opt::<Float32Type>()?;
    let entry = |n| ClassProbability { class: classes.value(n).to_owned(), probability: probabilities.value(n) };
    Some((0..entries.len()).map(entry).collect())
}

/// Writes batches to a file of one of the formats.
struct Writer {
    target: Target,
    staged: Staged,
}

enum Target {
    Csv(Box<csv::Writer<fs::File>>, Cells),
    JsonLines(BufWriter<fs::File>),
    /// A Parquet file that has not begun: it starts with its columns, which the first batch tells.
    ParquetToBegin(fs::File),
    Parquet(Box<ArrowWriter<fs::File>>),
}

impl Writer {
    fn create(format: Format, cells: Cells, path: &Path) -> Result<Self, ClientError> {
        let (staged, file) = Staged::create(path).map_err(ClientError::writing(path))?;
        let target = match format {
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(file);
                writer.write_record(PREDICTION_COLUMNS).map_err(|e| ClientError::writing(path)(e.into()))?;
                Target::Csv(Box::new(writer), cells)
            }
            Format::JsonLines => Target::JsonLines(BufWriter::new(file)),
            Format::Parquet => Target::ParquetToBegin(file),
        };
        Ok(Self { target, staged })
    }

    fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        if let Target::ParquetToBegin(file) = &self.target {
            let writer = ArrowWriter::try_new(file.try_clone()?, batch.schema(), None).map_err(io::Error::other)?;
            self.target = Target::Parquet(Box::new(writer));
        }
        match &mut self.target {
            Target::Parquet(writer) => writer.write(batch).map_err(io::Error::other),
            Target::ParquetToBegin(_) => unreachable!("the file was begun above"),
            Target::Csv(writer, cells) => rows(batch)
                .map_err(io::Error::other)?
                .iter()
                .try_for_each(|row| Ok(writer.write_record(csv_fields(row, *cells))?)),
            Target::JsonLines(writer) => rows(batch).map_err(io::Error::other)?.iter().try_for_each(|row| {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")
            }),
        }
    }

    fn finish(self, existing: Existing) -> io::Result<()> {
        match self.target {
            Target::Csv(mut writer, _) => writer.flush()?,
            Target::JsonLines(mut writer) => writer.flush()?,
            Target::ParquetToBegin(_) => {}
            Target::Parquet(writer) => drop(writer.close().map_err(io::Error::other)?),
        }
        self.staged.finish(existing)
    }
}

fn csv_fields(row: &Prediction, cells: Cells) -> [String; PREDICTION_COLUMNS.len()] {
    let text = |text: &str| match cells {
        Cells::Harmless => plain::spreadsheet_cell(text).into_owned(),
        Cells::Raw => text.to_owned(),
    };
    let optional = |field: &Option<String>| field.as_deref().map(text).unwrap_or_default();
    let top = serde_json::to_string(&row.top).expect("names and finite numbers");
    let top = match cells {
        Cells::Harmless => plain::json(&top).into_owned(),
        Cells::Raw => top,
    };
    [
        text(&row.path),
        row.digest.clone(),
        optional(&row.predicted),
        row.probability.map(|p| p.to_string()).unwrap_or_default(),
        if row.top.is_empty() { String::new() } else { top },
        optional(&row.error),
        row.unlike.map(|unlike| unlike.to_string()).unwrap_or_default(),
        row.unlike_score.map(|score| score.to_string()).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{path::PathBuf, sync::Arc};

    use arrow_schema::{DataType, Field, Fields};

    use arrow_array::{
        ArrayRef, BooleanArray, Float32Array, StringArray,
        builder::{Float32Builder, ListBuilder, StringBuilder, StructBuilder},
    };

    /// Two photos with awkward names, one of them broken.
    fn expected() -> Vec<Prediction> {
        let top = vec![
            ClassProbability { class: "owls, \"great\"".into(), probability: 0.846 },
            ClassProbability { class: "猫".into(), probability: 0.154 },
        ];
        let right = Prediction {
            path: "a, b/\"1\".jpg".into(),
            digest: "0a".into(),
            predicted: Some(top[0].class.clone()),
            probability: Some(0.846),
            top,
            error: None,
            unlike: Some(true),
            unlike_score: Some(0.25),
        };
        let error = Some("ends after 12 of 4,096 bytes".into());
        let wrong = Prediction {
            path: "写真.png".into(),
            digest: "0b".into(),
            predicted: None,
            probability: None,
            top: vec![],
            error,
            unlike: None,
            unlike_score: None,
        };
        vec![right, wrong]
    }

    fn batch(rows: &[Prediction]) -> RecordBatch {
        let fields = Fields::from(vec![
            Field::new("class", DataType::Utf8, false),
            Field::new("probability", DataType::Float32, false),
        ]);
        let mut top = ListBuilder::new(StructBuilder::from_fields(fields, 4));
        for row in rows {
            for entry in &row.top {
                let entries = top.values();
                entries.field_builder::<StringBuilder>(0).expect("a string").append_value(&entry.class);
                entries.field_builder::<Float32Builder>(1).expect("a float").append_value(entry.probability);
                entries.append(true);
            }
            top.append(true);
        }
        let text = |of: fn(&Prediction) -> Option<&str>| -> ArrayRef {
            Arc::new(rows.iter().map(of).collect::<StringArray>())
        };
        let columns: [ArrayRef; 8] = [
            text(|row| Some(&row.path)),
            text(|row| Some(&row.digest)),
            text(|row| row.predicted.as_deref()),
            Arc::new(rows.iter().map(|row| row.probability).collect::<Float32Array>()),
            Arc::new(top.finish()),
            text(|row| row.error.as_deref()),
            Arc::new(rows.iter().map(|row| row.unlike).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.unlike_score).collect::<Float32Array>()),
        ];
        RecordBatch::try_from_iter_with_nullable(
            PREDICTION_COLUMNS.into_iter().zip(columns).map(|(name, column)| (name, column, true)),
        )
        .expect("columns of one length")
    }

    fn written(format: Format, name: &str) -> (tempfile::TempDir, PathBuf) {
        written_rows(format, Cells::Harmless, name, &expected())
    }

    fn written_rows(format: Format, cells: Cells, name: &str, rows: &[Prediction]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        let mut writer = Writer::create(format, cells, &path).expect("writable");
        for row in rows {
            writer.write(&batch(std::slice::from_ref(row))).expect("writable");
        }
        assert!(!path.exists(), "the file appears only once it is complete");
        writer.finish(Existing::Keep).expect("writable");
        (folder, path)
    }

    #[test]
    fn json_lines_and_parquet_hold_exactly_the_predictions() {
        let (_folder, path) = written(Format::JsonLines, "p.jsonl");
        let text = fs::read_to_string(path).expect("written");
        let read: Vec<Prediction> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(read, expected());

        let (_folder, path) = written(Format::Parquet, "p.parquet");
        let batches = batches(fs::read(path).expect("written").into()).expect("Parquet");
        let read: Vec<Prediction> = batches.iter().flat_map(|batch| rows(batch).expect("our columns")).collect();
        assert_eq!(read, expected());
    }

    #[test]
    fn csv_quotes_what_needs_it_and_leaves_cells_of_errors_empty() {
        let (_folder, path) = written(Format::Csv, "p.csv");
        let mut reader = csv::Reader::from_path(path).expect("written");
        assert_eq!(reader.headers().expect("a header"), PREDICTION_COLUMNS.as_slice());
        let records: Vec<csv::StringRecord> = reader.records().map(|record| record.expect("CSV")).collect();
        assert_eq!(&records[0][0], "a, b/\"1\".jpg");
        assert_eq!(&records[0][3], "0.846");
        let top: Vec<ClassProbability> = serde_json::from_str(&records[0][4]).expect("JSON");
        assert_eq!(top, expected()[0].top);
        assert_eq!((&records[0][6], &records[0][7]), ("true", "0.25"));
        assert_eq!(records[1].iter().skip(2).collect::<Vec<_>>(), ["", "", "", "ends after 12 of 4,096 bytes", "", ""]);
    }

    #[test]
    fn predictions_of_an_older_worker_are_read_and_say_nothing_of_unlike_photos() {
        let old = batch(&expected()).project(&[0, 1, 2, 3, 4, 5]).expect("the first six columns");
        let read = rows(&old).expect("our columns");
        assert_eq!(read[0], Prediction { unlike: None, unlike_score: None, ..expected()[0].clone() });
    }

    /// A photo in a folder whose name is a formula, and of a class whose name turns the direction of writing.
    fn hostile() -> Prediction {
        let top = vec![ClassProbability { class: "\u{202e}slwo\u{9b}2J".into(), probability: 0.75 }];
        Prediction {
            path: "=HYPERLINK(\"http://x\")/1.jpg".into(),
            digest: "0c".into(),
            predicted: Some(top[0].class.clone()),
            probability: Some(0.75),
            top,
            error: None,
            unlike: None,
            unlike_score: None,
        }
    }

    fn record(cells: Cells) -> csv::StringRecord {
        let (_folder, path) = written_rows(Format::Csv, cells, "p.csv", &[hostile()]);
        let mut reader = csv::Reader::from_path(path).expect("written");
        reader.records().next().expect("a row").expect("CSV")
    }

    #[test]
    fn csv_holds_no_cell_that_a_spreadsheet_would_run_and_no_character_that_commands_a_terminal() {
        let row = record(Cells::Harmless);
        assert_eq!(&row[0], "'=HYPERLINK(\"http://x\")/1.jpg");
        assert_eq!(&row[2], "\\u{202e}slwo\\u{9b}2J");
        assert!(row[4].is_ascii(), "{:?}", &row[4]);
        let top: Vec<ClassProbability> = serde_json::from_str(&row[4]).expect("JSON");
        assert_eq!(top, hostile().top, "JSON stays exact");
        let raw = record(Cells::Raw);
        assert_eq!((&raw[0], &raw[2]), (hostile().path.as_str(), "\u{202e}slwo\u{9b}2J"));
    }

    #[test]
    fn the_csv_of_an_evaluation_is_made_harmless_and_its_numbers_stay() {
        let stored = "path,digest,label,predicted,loss,=red\n@1.jpg,0a,=red,=red,-0,0.5\n";
        let made = String::from_utf8(harmless(stored.as_bytes()).expect("CSV")).expect("text");
        assert_eq!(made, "path,digest,label,predicted,loss,'=red\n'@1.jpg,0a,'=red,'=red,-0,0.5\n");
    }

    #[test]
    fn a_table_without_our_columns_is_refused_by_the_name_of_the_first_that_is_missing() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a.png"]));
        let batch = RecordBatch::try_from_iter([("path", column)]).expect("one column");
        assert!(rows(&batch).expect_err("no predictions").to_string().contains("digest"));
    }
}
