//! Writes predictions as CSV, JSON lines or Parquet.

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
};

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use sortinghat_proto::{manifest::PredictionsManifest, plain};

use super::{Prediction, batches, rows, unreadable};
use crate::{Client, ClientError, Existing, downloads::Staged};

/// The columns of CSV. With [`Style::class_columns`], a column `p_CLASS` for each class follows.
pub(super) const CSV_COLUMNS: [&str; 10] = [
    "path",
    "digest",
    "predicted",
    "probability",
    "second",
    "second_probability",
    "status",
    "error",
    "unlike",
    "unlike_score",
];

/// The formats of files that predictions can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header line, and then a line for each photo. Every cell is a text or a number.
    Csv,
    /// A JSON object for each photo, one a line.
    JsonLines,
    /// A row for each photo. `top` is a list.
    Parquet,
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

/// How predictions are written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// The format of the file.
    pub format: Format,
    /// About CSV only.
    pub cells: Cells,
    /// About CSV only: whether each class has a column with its probability.
    pub class_columns: bool,
}

impl Client {
    /// Writes all predictions to `path`, which is replaced only once the new file is complete.
    ///
    /// # Errors
    /// [`ClientError::File`] if the file cannot be written, or the reason why a part cannot be read.
    pub async fn save_predictions(
        &self,
        manifest: &PredictionsManifest,
        style: Style,
        path: &Path,
        existing: Existing,
    ) -> Result<(), ClientError> {
        let mut writer = FileWriter::create(style, &manifest.classes, path)?;
        for part in &manifest.parts {
            for batch in batches(self.read_object(part).await?.into()).map_err(unreadable(part))? {
                writer.write(&batch).map_err(ClientError::writing(path))?;
            }
        }
        writer.finish(existing).map_err(ClientError::writing(path))
    }
}

/// Writes rows as text, to a file or to a pipe.
pub struct RowWriter<W: Write>(Text<W>);

enum Text<W: Write> {
    Csv { writer: Box<csv::Writer<W>>, cells: Cells, classes: Vec<String> },
    JsonLines(W),
}

impl<W: Write> RowWriter<W> {
    /// CSV with a header, and a column `p_CLASS` for each of `classes`.
    ///
    /// # Errors
    /// That of the writer.
    pub fn csv(writer: W, cells: Cells, classes: &[String]) -> io::Result<Self> {
        let mut writer = Box::new(csv::Writer::from_writer(writer));
        let of_classes = classes.iter().map(|class| cell(&format!("p_{class}"), cells));
        writer.write_record(CSV_COLUMNS.into_iter().map(str::to_owned).chain(of_classes))?;
        Ok(Self(Text::Csv { writer, cells, classes: classes.to_vec() }))
    }

    /// A JSON object for each row, one a line.
    pub fn json_lines(writer: W) -> Self {
        Self(Text::JsonLines(writer))
    }

    /// Writes one row.
    ///
    /// # Errors
    /// That of the writer.
    pub fn write(&mut self, row: &Prediction) -> io::Result<()> {
        match &mut self.0 {
            Text::Csv { writer, cells, classes } => Ok(writer.write_record(csv_fields(row, *cells, classes))?),
            Text::JsonLines(writer) => {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")
            }
        }
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// That of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Text::Csv { writer, .. } => writer.flush(),
            Text::JsonLines(writer) => writer.flush(),
        }
    }
}

fn cell(text: &str, cells: Cells) -> String {
    match cells {
        Cells::Harmless => plain::spreadsheet_cell(text).into_owned(),
        Cells::Raw => text.to_owned(),
    }
}

fn csv_fields(row: &Prediction, cells: Cells, classes: &[String]) -> Vec<String> {
    let optional = |field: Option<&str>| field.map(|text| cell(text, cells)).unwrap_or_default();
    let number = |number: Option<f32>| number.map(|number| number.to_string()).unwrap_or_default();
    let second = row.top.get(1);
    let mut fields = vec![
        cell(&row.path, cells),
        row.digest.clone(),
        optional(row.predicted.as_deref()),
        number(row.probability),
        optional(second.map(|second| second.class.as_str())),
        number(second.map(|second| second.probability)),
        row.status.as_str().to_owned(),
        optional(row.error.as_deref()),
        row.unlike.map(|unlike| unlike.to_string()).unwrap_or_default(),
        number(row.unlike_score),
    ];
    let of_class = |class: &String| row.top.iter().find(|top| top.class == *class).map(|top| top.probability);
    fields.extend(classes.iter().map(|class| number(of_class(class))));
    fields
}

/// Writes batches to a file of one of the formats.
pub(super) struct FileWriter {
    target: Target,
    staged: Staged,
}

enum Target {
    Text(RowWriter<BufWriter<fs::File>>),
    /// A Parquet file that has not begun: it starts with its columns, which the first batch tells.
    ParquetToBegin(fs::File),
    Parquet(Box<ArrowWriter<fs::File>>),
}

impl FileWriter {
    pub(super) fn create(style: Style, classes: &[String], path: &Path) -> Result<Self, ClientError> {
        let (staged, file) = Staged::create(path).map_err(ClientError::writing(path))?;
        let classes = if style.class_columns { classes } else { &[] };
        let target = match style.format {
            Format::Csv => {
                let writer = RowWriter::csv(BufWriter::new(file), style.cells, classes);
                Target::Text(writer.map_err(ClientError::writing(path))?)
            }
            Format::JsonLines => Target::Text(RowWriter::json_lines(BufWriter::new(file))),
            Format::Parquet => Target::ParquetToBegin(file),
        };
        Ok(Self { target, staged })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        if let Target::ParquetToBegin(file) = &self.target {
            let writer = ArrowWriter::try_new(file.try_clone()?, batch.schema(), None).map_err(io::Error::other)?;
            self.target = Target::Parquet(Box::new(writer));
        }
        match &mut self.target {
            Target::Parquet(writer) => writer.write(batch).map_err(io::Error::other),
            Target::ParquetToBegin(_) => unreachable!("the file was begun above"),
            Target::Text(writer) => rows(batch).map_err(io::Error::other)?.iter().try_for_each(|row| writer.write(row)),
        }
    }

    pub(super) fn finish(self, existing: Existing) -> io::Result<()> {
        match self.target {
            Target::Text(mut writer) => writer.flush()?,
            Target::ParquetToBegin(_) => {}
            Target::Parquet(writer) => drop(writer.close().map_err(io::Error::other)?),
        }
        self.staged.finish(existing)
    }
}
