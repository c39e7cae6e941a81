use serde::{Deserialize, Serialize};

use super::Document;
use crate::{Digest, ObjectRef, Tta};

/// How good a model is on labelled photos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationManifest {
    /// "stamps/1", as it was called then.
    pub model: String,
    /// What it was measured on.
    pub on: EvaluationTarget,
    /// Class names; indices below point into them.
    pub classes: Vec<String>,
    /// Without test-time augmentation.
    pub plain: Score,
    /// With it, if it was asked for.
    pub augmented: Option<Score>,
    /// The augmentation.
    pub tta: Option<Tta>,
    /// Plain against augmented on the same photos.
    pub comparison: Option<PairedTest>,
    /// By class, in the order of `classes`, from the best available predictions (augmented, else plain).
    pub per_class: Vec<ClassMetrics>,
    /// `confusion[label][predicted]` photos, from the same predictions.
    pub confusion: Vec<Vec<u64>>,
    /// The pairs that were confused at least once, most often first.
    pub most_confused: Vec<Confusion>,
    /// The photos with the highest loss, highest first.
    pub mistakes: Vec<Mistake>,
    /// What a person's decisions make of the accuracy.
    pub cleaned: Option<CleanedAccuracy>,
    /// Files that could not be decoded and were not measured.
    pub skipped: u64,
    /// The report, one self-contained HTML page.
    pub report: ObjectRef,
    /// Each photo's probabilities: CSV with `path,digest,label,predicted,loss` and one column per class.
    pub predictions: ObjectRef,
}

impl Document for EvaluationManifest {
    const FORMAT: &'static str = "sortinghat.evaluation/1";
}

/// What a model was measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationTarget {
    /// For people: "the 142 held-out photos of stamps@1".
    pub description: String,
    /// The dataset's or the upload's manifest.
    pub manifest: ObjectRef,
    /// The fold, for a dataset with folds.
    pub fold: Option<u32>,
}

/// A share of photos with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Photos.
    pub photos: u64,
    /// Photos that were predicted right.
    pub correct: u64,
    /// 95% Wilson interval of `correct / photos`.
    pub interval: Interval,
    /// Mean loss in nats.
    pub loss: f64,
}

impl Score {
    /// `correct / photos`, 0 to 1; 0 without photos.
    pub fn accuracy(&self) -> f64 {
        if self.photos == 0 { 0.0 } else { self.correct as f64 / self.photos as f64 }
    }
}

/// A range of shares, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// McNemar's exact test of two classifiers on the same photos.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    /// Photos that only the first one got right.
    pub only_first: u64,
    /// Photos that only the second one got right.
    pub only_second: u64,
    /// Two-sided exact p-value.
    pub p_value: f64,
}

/// How good a model is on one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// Photos with this label.
    pub photos: u64,
    /// Share of the photos predicted as this class that are of it; `None` if none was predicted so.
    pub precision: Option<f64>,
    /// Share of the photos of this class that were predicted so; `None` if there are none.
    pub recall: Option<f64>,
}

/// A pair of classes that was confused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// The label's index.
    pub label: usize,
    /// The predicted class's index.
    pub predicted: usize,
    /// How often.
    pub photos: u64,
}

/// A photo with a high loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// The photo's original.
    pub digest: Digest,
    /// Its path in the upload.
    pub path: String,
    /// The label's index.
    pub label: usize,
    /// The predicted class's index.
    pub predicted: usize,
    /// Probability of the label.
    pub label_probability: f64,
    /// Probability of the predicted class.
    pub predicted_probability: f64,
    /// Loss in nats.
    pub loss: f64,
}

/// Accuracy after a person's decisions, always shown beside the raw one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CleanedAccuracy {
    /// On what is left, with the labels that the person gave.
    pub score: Score,
    /// Photos that were left out.
    pub excluded: u64,
    /// Photos that were given another label.
    pub relabelled: u64,
    /// Photos whose label was confirmed.
    pub kept: u64,
    /// Photos left out or relabelled that had been predicted wrong: deciding about errors only inflates the score.
    pub changed_errors: u64,
    /// Decisions that name no photo of this evaluation.
    pub unknown: u64,
    /// The photos that were left out or relabelled: path, and what was decided.
    pub changes: Vec<(String, super::Verdict)>,
}
