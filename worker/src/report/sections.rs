//! The parts of the page as texts and lengths, which the template only places.

use sortinghat_proto::Digest;
use std::collections::{HashMap, HashSet};

use sortinghat_proto::manifest::{
    ClassMetrics, CleanedAccuracy, Findings, Interval, LabelDoubt, Mistake, Score, Verdict,
};
use sortinghat_proto::words::{count, percent};

use super::pictures::Pictures;
use crate::evaluation::{interval, tta_name};

/// The most classes that the confusion matrix shows.
const MAX_MATRIX_CLASSES: usize = 40;
/// The most pairs that the list of the most confused ones has.
const MAX_CONFUSED: usize = 12;

/// One line of the accuracy figure; lengths in percent of the axis.
pub(super) struct ScoreLine {
    pub(super) name: &'static str,
    pub(super) detail: String,
    pub(super) accuracy: String,
    pub(super) interval: String,
    pub(super) low: String,
    pub(super) width: String,
    pub(super) point: String,
}

/// A mark of the axis.
pub(super) struct Tick {
    pub(super) left: String,
    pub(super) label: String,
}

fn scores(findings: &Findings) -> Vec<(&'static str, String, &Score)> {
    let right = |score: &Score| format!("{} of {} right", count(score.correct), count(score.photos));
    let mut lines = vec![("Plain", right(&findings.plain), &findings.plain)];
    if let (Some(score), Some(tta)) = (&findings.augmented, &findings.tta) {
        lines.push(("Test-time augmentation", format!("{} ({})", right(score), tta_name(tta)), score));
    }
    if let Some(cleaned) = &findings.cleaned {
        lines.push(("After your decisions", right(&cleaned.score), &cleaned.score));
    }
    lines
}

/// Where the axis starts: a tenth below the lowest interval, so that what matters is not squeezed into a corner.
fn axis_start(findings: &Findings) -> f64 {
    let lowest = scores(findings).iter().map(|(_, _, score)| score.interval.low).fold(1.0, f64::min);
    ((lowest * 10.0 - 0.5).floor() / 10.0).clamp(0.0, 0.8)
}

fn on_axis(share: f64, start: f64) -> f64 {
    ((share - start) / (1.0 - start) * 100.0).clamp(0.0, 100.0)
}

fn length(percent: f64) -> String {
    format!("{percent:.2}")
}

pub(super) fn score_lines(findings: &Findings) -> Vec<ScoreLine> {
    let start = axis_start(findings);
    let line = |(name, detail, score): (&'static str, String, &Score)| {
        let (low, high) = (on_axis(score.interval.low, start), on_axis(score.interval.high, start));
        ScoreLine {
            name,
            detail,
            accuracy: percent(score.accuracy()),
            interval: interval(&score.interval),
            low: length(low),
            width: length(high - low),
            point: length(on_axis(score.accuracy(), start)),
        }
    };
    scores(findings).into_iter().map(line).collect()
}

pub(super) fn ticks(findings: &Findings) -> Vec<Tick> {
    let start = axis_start(findings);
    let first = (start * 10.0).round() as u32;
    let step = if first < 5 { 2 } else { 1 };
    let tick =
        |tenth: u32| Tick { left: length(on_axis(f64::from(tenth) / 10.0, start)), label: format!("{}%", tenth * 10) };
    // From the right, so that 100% always has its mark.
    (first..=10).rev().step_by(step).map(tick).collect()
}

/// The accuracy after a person's decisions, in words.
pub(super) struct CleanedView<'a> {
    pub(super) sentence: String,
    pub(super) caution: String,
    pub(super) changes: Vec<Change<'a>>,
}

/// One changed photo.
pub(super) struct Change<'a> {
    pub(super) path: &'a str,
    pub(super) verdict: String,
}

pub(super) fn cleaned_view(cleaned: &CleanedAccuracy) -> CleanedView<'_> {
    let CleanedAccuracy { excluded, relabelled, kept, changed_errors, unknown, .. } = *cleaned;
    let mut sentence = format!(
        "After the decisions {} of {} photos are right ({}, 95% interval {}): {excluded} left out, {relabelled} relabelled, \
         {kept} confirmed.",
        count(cleaned.score.correct),
        count(cleaned.score.photos),
        percent(cleaned.score.accuracy()),
        interval(&cleaned.score.interval),
    );
    if unknown > 0 {
        sentence += &format!(" {unknown} decisions are about photos that are not part of this evaluation.");
    }
    let changed = excluded + relabelled;
    let caution = match (changed, changed_errors) {
        (0, _) => String::new(),
        (changed, errors) if changed == errors => format!(
            "All {changed} changed photos had been predicted wrong. Changing errors alone can only raise the score, so read this \
             score beside the raw one and not instead of it."
        ),
        (changed, errors) => format!(
            "{errors} of the {changed} changed photos had been predicted wrong, so read this score beside the raw one."
        ),
    };
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Keep => "kept".to_owned(),
        Verdict::Exclude => "left out".to_owned(),
        Verdict::Relabel { class } => format!("is {class}"),
    };
    let changes = cleaned.changes.iter().map(|(path, what)| Change { path, verdict: verdict(what) }).collect();
    CleanedView { sentence, caution, changes }
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

pub(super) fn class_lines(findings: &Findings) -> Vec<ClassLine<'_>> {
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
}

/// The classes that the matrix shows, in their order: all, or those in the most errors.
pub(super) fn matrix_classes(findings: &Findings) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..findings.classes.len()).collect();
    if classes.len() <= MAX_MATRIX_CLASSES {
        return classes;
    }
    let mut errors = vec![0; classes.len()];
    for pair in &findings.most_confused {
        errors[pair.label] += pair.photos;
        errors[pair.predicted] += pair.photos;
    }
    classes.sort_by_key(|&class| std::cmp::Reverse(errors[class]));
    classes.truncate(MAX_MATRIX_CLASSES);
    classes.sort_unstable();
    classes
}

pub(super) fn matrix_note(findings: &Findings, shown: usize) -> String {
    let all = findings.classes.len();
    if shown == all {
        return String::new();
    }
    format!("Only the {shown} classes with the most errors are drawn, of {}.", count(all as u64))
}

pub(super) fn matrix_rows<'a>(findings: &'a Findings, shown: &[usize]) -> Vec<MatrixRow<'a>> {
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
        let title = format!("{photos} of {of} {}, predicted as {}", name(label), name(predicted));
        Cell { kind, share: (photos * 100).checked_div(of).unwrap_or(0), text: photos.to_string(), title }
    };
    let row = |&label: &usize| MatrixRow {
        name: name(label),
        cells: shown.iter().map(|&predicted| cell(label, predicted)).collect(),
    };
    shown.iter().map(row).collect()
}

/// A pair in the list of the most confused.
pub(super) struct ConfusedLine<'a> {
    pub(super) label: &'a str,
    pub(super) predicted: &'a str,
    pub(super) photos: String,
}

pub(super) fn confused_lines(findings: &Findings) -> Vec<ConfusedLine<'_>> {
    let pairs = findings.most_confused.iter().take(MAX_CONFUSED);
    pairs
        .map(|pair| ConfusedLine {
            label: &findings.classes[pair.label],
            predicted: &findings.classes[pair.predicted],
            photos: count(pair.photos),
        })
        .collect()
}

/// A photo whose label is probably wrong.
pub(super) struct DoubtLine<'a> {
    pub(super) digest: &'a Digest,
    pub(super) path: &'a str,
    pub(super) label: &'a str,
    pub(super) suggested: &'a str,
    pub(super) label_probability: String,
    pub(super) suggested_probability: String,
    /// Whether both methods of confident learning doubt the label.
    pub(super) twice: bool,
}

pub(super) fn doubt_lines<'a>(findings: &'a Findings) -> Vec<DoubtLine<'a>> {
    let line = |doubt: &'a LabelDoubt| DoubtLine {
        digest: &doubt.digest,
        path: &doubt.path,
        label: &findings.classes[doubt.label],
        suggested: &findings.classes[doubt.suggested],
        label_probability: percent(doubt.label_probability),
        suggested_probability: percent(doubt.suggested_probability),
        twice: doubt.by_class,
    };
    findings.doubts.iter().flatten().map(line).collect()
}

/// Photos under one heading: "The 9 photos of *animals* that it got wrong".
pub(super) struct Group<'a> {
    pub(super) before: String,
    pub(super) name: &'a str,
    pub(super) after: &'static str,
    pub(super) cards: Vec<Card<'a>>,
}

/// One photo to decide about.
pub(super) struct Card<'a> {
    pub(super) digest: &'a Digest,
    pub(super) path: &'a str,
    pub(super) picture: &'a str,
    pub(super) alt: String,
    pub(super) label: usize,
    pub(super) predicted: usize,
    pub(super) right: bool,
    /// Whether the photo's label is probably wrong.
    pub(super) doubted: bool,
    pub(super) label_name: &'a str,
    pub(super) predicted_name: &'a str,
    pub(super) label_probability: String,
    pub(super) predicted_probability: String,
    pub(super) label_width: String,
    pub(super) predicted_width: String,
}

/// The errors by class, then the right ones that the model was least sure of.
pub(super) fn groups<'a>(findings: &'a Findings, pictures: &'a Pictures) -> Vec<Group<'a>> {
    let doubted: HashSet<&Digest> = findings.doubts.iter().flatten().map(|doubt| &doubt.digest).collect();
    let cards = |wanted: &dyn Fn(&Mistake) -> bool| -> Vec<Card<'a>> {
        let chosen = findings.mistakes.iter().filter(|mistake| wanted(mistake));
        chosen.map(|mistake| card(findings, pictures, mistake, doubted.contains(&mistake.digest))).collect()
    };
    let by_class = findings.classes.iter().enumerate().map(|(class, name)| {
        let cards = cards(&|mistake| mistake.label == class && mistake.predicted != class);
        let (before, after) = match cards.len() {
            1 => ("The one photo of".to_owned(), "that it got wrong"),
            photos => (format!("The {} photos of", count(photos as u64)), "that it got wrong"),
        };
        Group { before, name, after, cards }
    });
    let unsure = Group {
        before: "Right, but least sure".to_owned(),
        name: "",
        after: "",
        cards: cards(&|mistake| mistake.label == mistake.predicted),
    };
    by_class.chain([unsure]).filter(|group| !group.cards.is_empty()).collect()
}

fn card<'a>(findings: &'a Findings, pictures: &'a Pictures, mistake: &'a Mistake, doubted: bool) -> Card<'a> {
    let name = |class: usize| findings.classes[class].as_str();
    let (label_name, predicted_name) = (name(mistake.label), name(mistake.predicted));
    Card {
        digest: &mistake.digest,
        path: &mistake.path,
        picture: pictures.of(&mistake.digest),
        alt: format!("{}, labelled {label_name}, predicted {predicted_name}", mistake.path),
        label: mistake.label,
        predicted: mistake.predicted,
        right: mistake.label == mistake.predicted,
        doubted,
        label_name,
        predicted_name,
        label_probability: percent(mistake.label_probability),
        predicted_probability: percent(mistake.predicted_probability),
        label_width: length(mistake.label_probability * 100.0),
        predicted_width: length(mistake.predicted_probability * 100.0),
    }
}

/// Says how many errors are not shown.
pub(super) fn hidden_note(findings: &Findings) -> String {
    let shown = findings.mistakes.iter().filter(|mistake| mistake.label != mistake.predicted).count() as u64;
    match findings.errors() - shown {
        0 => String::new(),
        more => format!(
            "{} more errors, with a lower loss, are not shown; the predictions file lists every photo.",
            count(more)
        ),
    }
}
