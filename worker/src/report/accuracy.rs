//! The accuracy with its interval, and what a person's decisions change.

use sortinghat_proto::manifest::{CleanedAccuracy, Findings, Score, Verdict};
use sortinghat_proto::words::{count, counted, percent};

use super::lengths::length;
use crate::evaluation::{basis, interval, tta_name};

/// The section on accuracy.
pub(super) struct Accuracy<'a> {
    pub(super) scores: Vec<ScoreLine>,
    pub(super) ticks: Vec<Tick>,
    pub(super) cleaned: Option<CleanedView<'a>>,
}

impl<'a> Accuracy<'a> {
    pub(super) fn new(findings: &'a Findings) -> Self {
        Self {
            scores: score_lines(findings),
            ticks: ticks(findings),
            cleaned: findings.cleaned.as_ref().map(|cleaned| cleaned_view(cleaned, &basis(findings.tta.as_ref()))),
        }
    }
}

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
    let mut lines = vec![("Without test-time augmentation", right(&findings.plain), &findings.plain)];
    if let (Some(score), Some(tta)) = (&findings.augmented, &findings.tta) {
        lines.push(("With test-time augmentation", format!("{} ({})", right(score), tta_name(tta)), score));
    }
    if let Some(cleaned) = &findings.cleaned {
        let (right, score) = (right(&cleaned.score), &cleaned.score);
        lines.push(("After your decisions", format!("{right}, {}", basis(findings.tta.as_ref())), score));
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

fn score_lines(findings: &Findings) -> Vec<ScoreLine> {
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

fn ticks(findings: &Findings) -> Vec<Tick> {
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

fn cleaned_view<'a>(cleaned: &'a CleanedAccuracy, basis: &str) -> CleanedView<'a> {
    let CleanedAccuracy { excluded, relabelled, kept, changed_errors, unknown, .. } = *cleaned;
    let mut sentence = format!(
        "After the decisions, and {basis}, {} of {} photos are right ({}, 95% interval {}). {} left out, {} relabelled, {} \
         confirmed.",
        count(cleaned.score.correct),
        count(cleaned.score.photos),
        percent(cleaned.score.accuracy()),
        interval(&cleaned.score.interval),
        counted(excluded, "photo was", "photos were"),
        counted(relabelled, "photo was", "photos were"),
        counted(kept, "label was", "labels were"),
    );
    if unknown > 0 {
        let decisions = counted(unknown, "decision is about a photo", "decisions are about photos");
        let are = if unknown == 1 { "is" } else { "are" };
        sentence += &format!(" {decisions} that {are} not part of this evaluation.");
    }
    let changed = excluded + relabelled;
    let photos = match changed {
        1 => "The one changed photo".to_owned(),
        _ if changed == changed_errors => format!("All {} changed photos", count(changed)),
        _ => format!("{} of the {} changed photos", count(changed_errors), count(changed)),
    };
    let caution = match (changed, changed_errors) {
        (0, _) | (1, 0) => String::new(),
        (changed, errors) if changed == errors => format!(
            "{photos} had been predicted wrong. Changing errors alone can only raise the score, so read this score beside the \
             raw one and not instead of it."
        ),
        _ => format!("{photos} had been predicted wrong, so read this score beside the raw one."),
    };
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Keep => "kept".to_owned(),
        Verdict::Exclude => "left out".to_owned(),
        Verdict::Relabel { class } => format!("is {class}"),
    };
    let changes = cleaned.changes.iter().map(|(path, what)| Change { path, verdict: verdict(what) }).collect();
    CleanedView { sentence, caution, changes }
}
