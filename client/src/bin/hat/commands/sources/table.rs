//! A table of photos: CSV or TSV with a header, a photo in each row, and its path, label and side of the split in columns.
//!
//! A label becomes the first folder of the photo's path in the upload, or the second below the side of its split, so that labels are read by
//! the rule for folders. Results name a photo by the path in the table.

use std::path::Path;

use sortinghat_client::{SourceFile, folder::Listing};
use sortinghat_proto::{
    layout::{LayoutChoice, may_be_side},
    limits,
};

use super::{Labelled, refuse_many, refuse_repeated, single_file};
use crate::{failure::Failure, session::Session, show::numbers::counted};

/// What columns are called, in lower case.
const PATH: [&str; 6] = ["path", "file", "filename", "file_name", "image", "photo"];
const LABEL: [&str; 2] = ["label", "class"];
const SPLIT: [&str; 2] = ["split", "set"];

/// Whether the name of a file ends as that of a table.
pub(super) fn is_table(path: &Path) -> bool {
    delimiter(path).is_some() && path.is_file()
}

fn delimiter(path: &Path) -> Option<u8> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(b','),
        "tsv" => Some(b'\t'),
        _ => None,
    }
}

/// The photos of a table with their labels.
///
/// # Errors
/// [`Failure::Usage`] with the line that cannot be used.
pub(super) fn labelled(session: &Session, path: &Path) -> Result<Labelled, Failure> {
    let table = Table::open(session, path)?;
    let Some(label) = table.columns.label else {
        return Err(table.refuse("it has no column label"));
    };
    let split = table.columns.split;
    let listing = table.read(|row| {
        let label = folder_of(&row[label]).map_err(|why| format!("its label {why}"))?;
        let Some(split) = split else { return Ok(format!("{label}/")) };
        let side = row[split].trim();
        match may_be_side(side) {
            true => Ok(format!("{side}/{label}/")),
            false => Err(format!("its split is {side:?}, and none of train, valid and test")),
        }
    })?;
    let layout = if split.is_some() { LayoutChoice::Splits } else { LayoutChoice::Classes };
    Ok(Labelled { listing, layout: Some(layout) })
}

/// The photos of a table, whatever their labels.
///
/// # Errors
/// As [`labelled`].
pub(super) fn photos(session: &Session, path: &Path) -> Result<Listing, Failure> {
    Table::open(session, path)?.read(|_| Ok(String::new()))
}

/// Says why the rows of a table cannot be read.
fn unreadable(shown: &str, error: &csv::Error) -> Failure {
    Failure::usage(match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            let (has, wanted) = (counted(*len, "cell", "cells"), counted(*expected_len, "column", "columns"));
            format!("{shown}, line {line}: it has {has}, but the table has {wanted}")
        }
        _ => format!("{shown}: {error}"),
    })
}

/// The label, if it can be the name of a folder.
fn folder_of(label: &str) -> Result<&str, String> {
    match label.trim() {
        "" => Err("is empty".to_owned()),
        label if label.contains('/') || matches!(label, "." | "..") => {
            Err(format!("is {label:?}, which is no name of a folder"))
        }
        label => Ok(label),
    }
}

/// Where a table has what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Columns {
    path: usize,
    label: Option<usize>,
    split: Option<usize>,
}

struct Table<'a> {
    path: &'a Path,
    rows: csv::Reader<std::fs::File>,
    columns: Columns,
}

impl<'a> Table<'a> {
    fn open(session: &Session, path: &'a Path) -> Result<Self, Failure> {
        let mut builder = csv::ReaderBuilder::new();
        builder.delimiter(delimiter(path).unwrap_or(b','));
        let file = std::fs::File::open(path).map_err(Failure::file("read", path))?;
        let mut table =
            Self { path, rows: builder.from_reader(file), columns: Columns { path: 0, label: None, split: None } };
        let header = table.rows.headers().map_err(|error| unreadable(&path.display().to_string(), &error))?;
        let names: Vec<String> =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_lowercase()).collect();
        let find = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
        let Some(column) = find(&PATH) else { return Err(table.refuse("it has no column path")) };
        table.columns = Columns { path: column, label: find(&LABEL), split: find(&SPLIT) };
        if names.iter().any(|name| name == "group") {
            session.warn(&format!(
                "the column group of {} is not used: photos of one group may be on both sides of a split",
                path.display()
            ));
        }
        Ok(table)
    }

    fn refuse(&self, why: &str) -> Failure {
        Failure::usage(format!(
            "{}: {why}: its first line names the columns, such as path,label,split, and each further line is a photo",
            self.path.display()
        ))
    }

    /// The photos, each in the folder that `folder` says.
    fn read(mut self, folder: impl Fn(&csv::StringRecord) -> Result<String, String>) -> Result<Listing, Failure> {
        let beside = self.path.parent().unwrap_or(Path::new(""));
        let shown = self.path.display();
        let mut listing = Listing::default();
        for row in self.rows.records() {
            let row = row.map_err(|error| unreadable(&shown.to_string(), &error))?;
            let refuse = |why: String| {
                let line = row.position().map_or(0, csv::Position::line);
                Failure::usage(format!("{shown}, line {line}: {why}"))
            };
            let path = row[self.columns.path].trim();
            if path.is_empty() {
                return Err(refuse("its path is empty".to_owned()));
            }
            let folder = folder(&row).map_err(refuse)?;
            let file = single_file(path, &beside.join(path));
            // The upload leaves out of a path what leads upwards.
            let in_upload = folder + path;
            if in_upload.len() > limits::MAX_PATH_BYTES {
                return Err(refuse(format!("its path and label have more than {} bytes", limits::MAX_PATH_BYTES)));
            }
            listing.files.push(SourceFile { path: in_upload, shown: Some(path.to_owned()), ..file });
            refuse_many(listing.files.len())?;
        }
        refuse_repeated(&listing)?;
        if listing.files.is_empty() {
            return Err(self.refuse("it names no photo"));
        }
        Ok(listing)
    }
}
