//! Reading and writing predictions.

use std::{fs, path::PathBuf, sync::Arc};

use arrow_schema::{DataType, Field, Fields};

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, StringArray,
    builder::{Float32Builder, ListBuilder, StringBuilder, StructBuilder},
};

use super::{
    measured::harmless,
    write::{CSV_COLUMNS, FileWriter},
    *,
};
use crate::Existing;

/// Two photos with awkward names, one of them broken.
fn expected() -> Vec<Prediction> {
    let top = vec![
        ClassProbability { class: "owls, \"great\"".into(), probability: 0.846 },
        ClassProbability { class: "猫".into(), probability: 0.154 },
    ];
    let right = Prediction {
        path: "a, b/\"1\".jpg".into(),
        digest: "0a".into(),
        status: Status::Unsure,
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
        status: Status::OverLimit,
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
    let text =
        |of: fn(&Prediction) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let columns: [ArrayRef; 9] = [
        text(|row| Some(&row.path)),
        text(|row| Some(&row.digest)),
        text(|row| row.predicted.as_deref()),
        Arc::new(rows.iter().map(|row| row.probability).collect::<Float32Array>()),
        Arc::new(top.finish()),
        text(|row| row.error.as_deref()),
        Arc::new(rows.iter().map(|row| row.unlike).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| row.unlike_score).collect::<Float32Array>()),
        text(|row| Some(row.status.as_str())),
    ];
    RecordBatch::try_from_iter_with_nullable(
        PREDICTION_COLUMNS.into_iter().zip(columns).map(|(name, column)| (name, column, true)),
    )
    .expect("columns of one length")
}

fn written(format: Format, name: &str) -> (tempfile::TempDir, PathBuf) {
    written_rows(Style { format, cells: Cells::Harmless, class_columns: false }, name, &expected())
}

/// The file with these rows, of a model that knows the class "owls, "great"" and one that a spreadsheet would run.
fn written_rows(style: Style, name: &str, rows: &[Prediction]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    let classes = [expected()[0].top[0].class.clone(), "=cmd".to_owned()];
    let mut writer = FileWriter::create(style, &classes, &path).expect("writable");
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
    assert_eq!(reader.headers().expect("a header"), CSV_COLUMNS.as_slice());
    let records: Vec<csv::StringRecord> = reader.records().map(|record| record.expect("CSV")).collect();
    assert_eq!(&records[0][0], "a, b/\"1\".jpg");
    assert_eq!(&records[0][3], "0.846");
    assert_eq!((&records[0][4], &records[0][5], &records[0][6]), ("猫", "0.154", "unsure"));
    assert_eq!((&records[0][8], &records[0][9]), ("true", "0.25"));
    let error = ["", "", "", "", "over-limit", "ends after 12 of 4,096 bytes", "", ""];
    assert_eq!(records[1].iter().skip(2).collect::<Vec<_>>(), error);
}

#[test]
fn csv_has_a_column_for_each_class_if_asked_and_a_class_that_is_not_told_is_empty() {
    let style = Style { format: Format::Csv, cells: Cells::Harmless, class_columns: true };
    let (_folder, path) = written_rows(style, "p.csv", &expected());
    let mut reader = csv::Reader::from_path(path).expect("written");
    let header = reader.headers().expect("a header").clone();
    assert_eq!(header.iter().skip(CSV_COLUMNS.len()).collect::<Vec<_>>(), ["p_owls, \"great\"", "p_=cmd"]);
    let row = reader.records().next().expect("a row").expect("CSV");
    assert_eq!(row.iter().skip(CSV_COLUMNS.len()).collect::<Vec<_>>(), ["0.846", ""]);
}

#[test]
fn predictions_of_an_older_worker_are_read_and_say_nothing_of_unlike_photos() {
    let old = batch(&expected()).project(&[0, 1, 2, 3, 4, 5]).expect("the first six columns");
    let read = rows(&old).expect("our columns");
    let untold = Prediction { unlike: None, unlike_score: None, status: Status::Ok, ..expected()[0].clone() };
    assert_eq!(read[0], untold);
    assert_eq!(read[1].status, Status::Undecodable, "what is known of it");
    let old = batch(&expected()).project(&[0, 1, 2, 3, 4, 5, 6, 7]).expect("all but the status");
    assert_eq!(rows(&old).expect("our columns")[0], expected()[0], "it resembles none of the classes");
}

/// A photo in a folder whose name is a formula, and of a class whose name turns the direction of writing.
fn hostile() -> Prediction {
    let top = ["\u{202e}slwo\u{9b}2J", "=1+1"];
    let top = top.map(|class| ClassProbability { class: class.into(), probability: 0.75 }).to_vec();
    Prediction {
        path: "=HYPERLINK(\"http://x\")/1.jpg".into(),
        digest: "0c".into(),
        status: Status::Ok,
        predicted: Some(top[0].class.clone()),
        probability: Some(0.75),
        top,
        error: None,
        unlike: None,
        unlike_score: None,
    }
}

fn record(cells: Cells) -> csv::StringRecord {
    let style = Style { format: Format::Csv, cells, class_columns: false };
    let (_folder, path) = written_rows(style, "p.csv", &[hostile()]);
    let mut reader = csv::Reader::from_path(path).expect("written");
    reader.records().next().expect("a row").expect("CSV")
}

#[test]
fn csv_holds_no_cell_that_a_spreadsheet_would_run_and_no_character_that_commands_a_terminal() {
    let row = record(Cells::Harmless);
    assert_eq!(&row[0], "'=HYPERLINK(\"http://x\")/1.jpg");
    assert_eq!(&row[2], "\\u{202e}slwo\\u{9b}2J");
    assert_eq!(&row[4], "'=1+1");
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
