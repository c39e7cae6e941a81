use serde::{Deserialize, Serialize};

use super::Document;
use crate::{Digest, ObjectRef, Tta};

/// How good a model is on labelled photos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EvaluationManifest {
    /// The name of the model when it was measured: "stamps/1".
    pub model: String,
    /// What the model was measured on.
    pub on: EvaluationTarget,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
    /// The report, one self-contained HTML page.
    pub report: ObjectRef,
    /// The probabilities of each photo: CSV with the columns `path,digest,label,predicted,loss` and one column per class.
    pub predictions: ObjectRef,
}

impl Document for EvaluationManifest {
    const FORMAT: &'static str = "sortinghat.evaluation/1";
}

/// Everything that is measured on labelled photos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Findings {
    /// Class names. A class index in these findings is an index into this list.
    pub classes: Vec<String>,
    /// The score without test-time augmentation.
    pub plain: Score,
    /// The score with test-time augmentation, if the job asked for it.
    pub augmented: Option<Score>,
    /// The augmentation, if the job asked for it.
    pub tta: Option<Tta>,
    /// The test of the plain predictions against the augmented ones on the same photos.
    pub comparison: Option<PairedTest>,
    /// The metrics of each class, in the order of `classes`, from the best available predictions: augmented, else plain.
    pub per_class: Vec<ClassMetrics>,
    /// `[label][predicted]`: numbers of photos, from the same predictions. Empty above [`crate::limits::MAX_MATRIX_CLASSES`] classes,
    /// for which `most_confused` and `per_class` say the same in less space.
    pub confusion: Vec<Vec<u64>>,
    /// The pairs that were confused at least once, most often first.
    pub most_confused: Vec<Confusion>,
    /// Photos to review, the highest loss first: the errors and the least certain correct predictions, up to a limit.
    pub mistakes: Vec<Mistake>,
    /// Photos whose label is probably wrong, the least self-confident first, up to a limit. `None` if the model was trained on some of the
    /// photos: its predictions then tell nothing about their labels.
    #[serde(default)]
    pub doubts: Option<Vec<LabelDoubt>>,
    /// How many labels are probably wrong. `doubts` may list fewer. 0 in a document that does not say.
    #[serde(default)]
    pub doubted: u64,
    /// How many of the measured photos the model has learned from. `None` if nobody can tell, because the model's dataset was deleted,
    /// and in a document that does not say.
    #[serde(default)]
    pub learned_from: Option<u64>,
    /// How often predictions are right, by their confidence, from the lowest confidence to the highest. It covers all photos. Empty in a
    /// document that does not say.
    #[serde(default)]
    pub confidence: Vec<ConfidenceBin>,
    /// The accuracy after a person's decisions, if the job was given any.
    pub cleaned: Option<CleanedAccuracy>,
    /// Files that were not measured, because they cannot be read or decoded, or lie in no class folder.
    pub skipped: u64,
}

impl Findings {
    /// The score of the best available predictions: augmented, else plain.
    pub fn best(&self) -> &Score {
        self.augmented.as_ref().unwrap_or(&self.plain)
    }

    /// Photos whose best available prediction is wrong.
    pub fn errors(&self) -> u64 {
        self.best().photos - self.best().correct
    }

    /// How many labels are probably wrong, whether or not they are listed.
    pub fn doubted(&self) -> u64 {
        // A document that does not say how many there are lists all of them or as many as it may.
        self.doubted.max(self.doubts.as_ref().map_or(0, Vec::len) as u64)
    }
}

/// What a model was measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EvaluationTarget {
    /// A description for people: "the 142 held-out photos of stamps@1".
    pub description: String,
    /// The dataset's or the upload's manifest.
    pub manifest: ObjectRef,
    /// The fold, of a dataset with folds.
    pub fold: Option<u32>,
}

/// A share of correct predictions with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Score {
    /// Number of photos.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// The 95% Wilson score interval of `correct` of `total` (Wilson 1927); the whole range if `total` is 0.
    pub fn wilson(correct: u64, total: u64) -> Self {
        /// The 0.975 quantile of the standard normal.
        const Z: f64 = 1.959_963_984_540_054;
        if total == 0 {
            return Self { low: 0.0, high: 1.0 };
        }
        let (n, p) = (total as f64, correct as f64 / total as f64);
        let denominator = 1.0 + Z * Z / n;
        let centre = (p + Z * Z / (2.0 * n)) / denominator;
        let half = Z / denominator * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }
}

/// The photos whose predicted class has a probability in a range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConfidenceBin {
    /// The least probability, 0 to 1. The range reaches up to the least probability of the next bin, or to 1 with 1 in it.
    pub from: f64,
    /// Photos whose predicted class has a probability in the range.
    pub photos: u64,
    /// Those of them that are predicted right.
    pub correct: u64,
    /// The mean probability of their predicted classes; 0 without photos.
    pub mean: f64,
}

/// McNemar's exact test of two classifiers on the same photos.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PairedTest {
    /// Photos that only the first classifier predicted right.
    pub only_first: u64,
    /// Photos that only the second classifier predicted right.
    pub only_second: u64,
    /// Two-sided exact p-value.
    pub p_value: f64,
}

/// How good a model is on one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClassMetrics {
    /// Photos with this label.
    pub photos: u64,
    /// Photos that were predicted as this class.
    #[serde(default)]
    pub predicted: u64,
    /// Photos with this label that were predicted so.
    #[serde(default)]
    pub correct: u64,
    /// Share of the photos predicted as this class that have this label; `None` if none was predicted so.
    pub precision: Option<f64>,
    /// Share of the photos with this label that were predicted so; `None` if there are none.
    pub recall: Option<f64>,
}

/// A pair of classes that was confused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confusion {
    /// The label's index.
    pub label: usize,
    /// The predicted class's index.
    pub predicted: usize,
    /// Number of photos.
    pub photos: u64,
}

/// A photo with a high loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mistake {
    /// The digest of the photo as it was uploaded.
    pub digest: Digest,
    /// The photo's path in the upload.
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

/// A photo whose label is probably wrong, found by confident learning ("prune by noise rate"). About half of such photos are in fact
/// mislabelled, so that a person has to look at them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LabelDoubt {
    /// The digest of the photo as it was uploaded.
    pub digest: Digest,
    /// The photo's path in the upload.
    pub path: String,
    /// The label's index.
    pub label: usize,
    /// The index of the class that the photo looks like.
    pub suggested: usize,
    /// Probability of the label: the self-confidence of the photo.
    pub label_probability: f64,
    /// Probability of the suggested class.
    pub suggested_probability: f64,
    /// `(probability of the label - the largest other one + 1) / 2`, 0 to 1.
    pub normalized_margin: f64,
    /// Whether the photo is also among the least self-confident photos of its label ("prune by class").
    pub by_class: bool,
}

/// Accuracy after a person's decisions. It is always shown beside the raw accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CleanedAccuracy {
    /// The score on the photos that were not excluded, with the labels that the person gave.
    pub score: Score,
    /// Photos that were left out.
    pub excluded: u64,
    /// Photos that were given another label.
    pub relabelled: u64,
    /// Photos whose label was confirmed.
    pub kept: u64,
    /// Photos that were left out or relabelled and had been predicted wrong. Decisions about such photos only inflate the score.
    pub changed_errors: u64,
    /// Decisions that name no photo of this evaluation.
    pub unknown: u64,
    /// The photos that were left out or relabelled: path, and what was decided.
    pub changes: Vec<(String, super::Verdict)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(interval: Interval, low: f64, high: f64) {
        assert!((interval.low - low).abs() < 5e-4 && (interval.high - high).abs() < 5e-4, "{interval:?}");
    }

    #[test]
    fn wilsons_interval_is_the_published_one_and_stays_within_0_and_1() {
        near(Interval::wilson(148, 190), 0.715, 0.832);
        // 81 of 263, the example of Newcombe 1998, table I.
        near(Interval::wilson(81, 263), 0.2553, 0.3662);
        assert_eq!((Interval::wilson(0, 20).low, Interval::wilson(20, 20).high), (0.0, 1.0));
        assert_eq!(Interval::wilson(0, 0), Interval { low: 0.0, high: 1.0 });
    }
}
