//! Each class, and which classes are confused.

use std::collections::HashMap;

use sortinghat_proto::manifest::{ClassMetrics, Findings, Interval};
use sortinghat_proto::words::{count, counted, percent};

use super::{lengths::length, photos::Shown};
use crate::evaluation::interval;

/// The most classes that the confusion matrix shows.
const MAX_DRAWN_CLASSES: usize = 40;
/// The most pairs that the list of the most confused ones has.
const MAX_CONFUSED: usize = 12;

/// The sections on classes and on what is confused.
pub(super) struct Classes<'a> {
    pub(super) lines: Vec<ClassLine<'a>>,
    pub(super) confusion: Confusion<'a>,
}

/// The confusion matrix and the pairs that are confused most.
pub(super) struct Confusion<'a> {
    /// Says how many classes are not drawn; empty if all are.
    pub(super) note: String,
    pub(super) names: Vec<&'a str>,
    pub(super) rows: Vec<MatrixRow<'a>>,
    pub(super) heading: String,
    pub(super) pairs: Vec<ConfusedLine<'a>>,
}

impl<'a> Classes<'a> {
    /// `shown` says where the photos of a pair are, so that cells and pairs lead to their photos.
    pub(super) fn new(findings: &'a Findings, shown: &Shown) -> Self {
        let drawn = matrix_classes(findings);
        let confusion = Confusion {
            note: matrix_note(findings, drawn.len()),
            names: drawn.iter().map(|&class| findings.classes[class].as_str()).collect(),
            rows: matrix_rows(findings, &drawn, shown),
            heading: confused_heading(findings.most_confused.len()),
            pairs: confused_lines(findings, shown),
        };
        Self { lines: class_lines(findings), confusion }
    }
}

/// A row of the table of classes.
pub(super) struct ClassLine<'a> {
    pub(super) name: &'a str,
    pub(super) photos: String,
    /// Recall and precision.
    pub(super) bars: [Option<Bar>; 2],
}

/// A share with its interval; lengths in percent.
pub(super) struct Bar {
    pub(super) text: String,
    pub(super) interval: String,
    pub(super) right: u64,
    pub(super) whole: u64,
    pub(super) share: String,
    pub(super) low: String,
    pub(super) width: String,
}

fn class_lines(findings: &Findings) -> Vec<ClassLine<'_>> {
    findings
        .classes
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let ClassMetrics { photos, predicted, correct, .. } = findings.per_class[class];
            ClassLine { name, photos: count(photos), bars: [bar(correct, photos), bar(correct, predicted)] }
        })
        .collect()
}

fn bar(right: u64, whole: u64) -> Option<Bar> {
    if whole == 0 {
        return None;
    }
    let range = Interval::wilson(right, whole);
    let share = right as f64 / whole as f64;
    Some(Bar {
        text: percent(share),
        interval: interval(&range),
        right,
        whole,
        share: length(share * 100.0),
        low: length(range.low * 100.0),
        width: length((range.high - range.low) * 100.0),
    })
}

/// A row of the confusion matrix.
pub(super) struct MatrixRow<'a> {
    pub(super) name: &'a str,
    pub(super) cells: Vec<Cell>,
}

/// A cell of the confusion matrix.
pub(super) struct Cell {
    /// CSS class: hit, miss or zero.
    pub(super) kind: &'static str,
    /// Share of the row in percent.
    pub(super) share: u64,
    pub(super) text: String,
    pub(super) title: String,
    pub(super) pair: Pair,
}

/// A label and a prediction, and where the photos of both are shown.
pub(super) struct Pair {
    pub(super) label: usize,
    pub(super) predicted: usize,
    /// How many photos there are, shown or not.
    pub(super) photos: u64,
    /// The id of the part of the page that shows some of them; `None` if none is shown.
    pub(super) place: Option<String>,
}

impl Pair {
    fn new(label: usize, predicted: usize, photos: u64, shown: &Shown) -> Self {
        Self { label, predicted, photos, place: shown.place(label, predicted) }
    }
}

/// The classes that the matrix shows, in their order: all, or those in the most errors.
fn matrix_classes(findings: &Findings) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..findings.classes.len()).collect();
    if classes.len() <= MAX_DRAWN_CLASSES {
        return classes;
    }
    let mut errors = vec![0; classes.len()];
    for pair in &findings.most_confused {
        errors[pair.label] += pair.photos;
        errors[pair.predicted] += pair.photos;
    }
    classes.sort_by_key(|&class| std::cmp::Reverse(errors[class]));
    classes.truncate(MAX_DRAWN_CLASSES);
    classes.sort_unstable();
    classes
}

fn matrix_note(findings: &Findings, shown: usize) -> String {
    let all = findings.classes.len();
    if shown == all {
        return String::new();
    }
    format!("Only the {shown} classes with the most errors are drawn, of {}.", count(all as u64))
}

fn matrix_rows<'a>(findings: &'a Findings, drawn: &[usize], shown: &Shown) -> Vec<MatrixRow<'a>> {
    let name = |class: usize| findings.classes[class].as_str();
    let pairs: HashMap<(usize, usize), u64> =
        findings.most_confused.iter().map(|pair| ((pair.label, pair.predicted), pair.photos)).collect();
    let cell = |label: usize, predicted: usize| {
        let photos = match label == predicted {
            true => findings.per_class[label].correct,
            false => pairs.get(&(label, predicted)).copied().unwrap_or_default(),
        };
        let of = findings.per_class[label].photos;
        let kind = match (photos, label == predicted) {
            (0, _) => "zero",
            (_, true) => "hit",
            (_, false) => "miss",
        };
        let title = format!("{} of {} {}, predicted as {}", count(photos), count(of), name(label), name(predicted));
        let pair = Pair::new(label, predicted, photos, shown);
        Cell { kind, share: (photos * 100).checked_div(of).unwrap_or(0), text: count(photos), title, pair }
    };
    let row = |&label: &usize| MatrixRow {
        name: name(label),
        cells: drawn.iter().map(|&predicted| cell(label, predicted)).collect(),
    };
    drawn.iter().map(row).collect()
}

/// A pair in the list of the most confused.
pub(super) struct ConfusedLine<'a> {
    pub(super) label: &'a str,
    pub(super) predicted: &'a str,
    pub(super) photos: String,
    pub(super) pair: Pair,
}

fn confused_heading(pairs: usize) -> String {
    match pairs {
        0..=MAX_CONFUSED => "Most confused".to_owned(),
        more => format!("The {MAX_CONFUSED} most confused of {}", counted(more as u64, "pair", "pairs")),
    }
}

fn confused_lines<'a>(findings: &'a Findings, shown: &Shown) -> Vec<ConfusedLine<'a>> {
    let pairs = findings.most_confused.iter().take(MAX_CONFUSED);
    pairs
        .map(|pair| ConfusedLine {
            label: &findings.classes[pair.label],
            predicted: &findings.classes[pair.predicted],
            photos: count(pair.photos),
            pair: Pair::new(pair.label, pair.predicted, pair.photos, shown),
        })
        .collect()
}
