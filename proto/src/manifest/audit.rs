use serde::{Deserialize, Serialize};

use super::{Document, EvaluationTarget, Score, View, WeightsProvenance};
use crate::{Backbone, Digest, ObjectRef};

/// Which labels of a dataset are probably wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditManifest {
    /// What was found.
    #[serde(flatten)]
    pub findings: AuditFindings,
    /// The page on which a person decides about the photos, self-contained HTML.
    pub report: ObjectRef,
    /// All audited photos: CSV with the columns `path,digest,label,suggested,label_probability,suggested_probability,repeats`.
    pub labels: ObjectRef,
}

impl Document for AuditManifest {
    const FORMAT: &'static str = "sortinghat.audit/1";
}

/// What an audit has found. Each photo was predicted several times, each time by a regression on a network's features that had not learned
/// from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditFindings {
    /// What was audited.
    pub on: EvaluationTarget,
    /// Class names. A class index in this document is an index into this list.
    pub classes: Vec<String>,
    /// How often the photos were dealt into folds.
    pub repeats: u32,
    /// Into how many folds.
    pub folds: u32,
    /// The factor of the regressions' penalty.
    pub lambda: f64,
    /// The network that gave the features.
    pub backbone: Backbone,
    /// Where its weights came from.
    pub pretrained: WeightsProvenance,
    /// What it saw of each photo.
    pub views: Vec<View>,
    /// Seed of the folds and of the sample.
    pub seed: u64,
    /// How often the mean of the predictions is the label. It says how far the doubts can be believed.
    pub score: Score,
    /// The share of labels that are wrong, as estimated by confident learning.
    pub wrong_share: f64,
    /// Photos that were not judged: all photos of their class are near-duplicates of each other, or near-duplicates of other classes have kept
    /// the photos from being predicted.
    pub unaudited: u64,
    /// How many labels are doubted in at least one repeat.
    pub doubted: u64,
    /// How many labels are doubted in every repeat.
    pub always_doubted: u64,
    /// The labels that are doubted, up to a limit. Those that most repeats doubt come first, and of these the least probable labels.
    pub queue: Vec<AuditedLabel>,
    /// A random sample of the labels that no repeat doubts. What a person finds in it says how many wrong labels are left.
    pub sample: Vec<AuditedLabel>,
}

impl AuditFindings {
    /// How many labels no repeat doubts.
    pub fn undoubted(&self) -> u64 {
        self.score.photos - self.doubted
    }

    /// The labels that a person is asked about.
    pub fn shown(&self) -> impl Iterator<Item = &AuditedLabel> {
        self.queue.iter().chain(&self.sample)
    }
}

/// A label with what models say of it that have not learned from its photo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditedLabel {
    /// The digest of the photo as it was uploaded.
    pub digest: Digest,
    /// The photo's path in the upload.
    pub path: String,
    /// The label's index.
    pub label: usize,
    /// The index of the class that the photo resembles most: the label's own, if the label is not doubted.
    pub suggested: usize,
    /// Probability of the label: the mean over the repeats.
    pub label_probability: f64,
    /// Probability of the suggested class.
    pub suggested_probability: f64,
    /// How many repeats doubt the label.
    pub repeats: u32,
}
