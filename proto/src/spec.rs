//! Job specs, parsed once at the edge into types that cannot be wrong.

mod finetune;
mod parse;
mod wire;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use finetune::{Backbone, BaseRate, FinetuneSpec, Mixing, Precision, TrainingCrop, WeightsSource};

use crate::{DatasetRef, Digest, ModelRef, Name, Refusal, v1};

/// The job kinds. A new one is a variant here, an arm in `specs.proto`, and a file in the worker's `jobs/`; the compiler
/// lists whatever was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Photos become a dataset.
    Ingest,
    /// A dataset and a backbone become a model.
    Finetune,
    /// A model and labelled photos become an evaluation.
    Evaluate,
    /// A model and photos become predictions.
    Classify,
}

impl JobKind {
    /// All of them, in the order in which they are usually run.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Finetune, Self::Evaluate, Self::Classify];

    /// The word for it, as commands, filters, logs and metrics use it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Finetune => "finetune",
            Self::Evaluate => "evaluate",
            Self::Classify => "classify",
        }
    }

    /// Whether a running task can checkpoint and give way to a more urgent one, so that little of its work is lost.
    pub fn gives_way(self) -> bool {
        match self {
            Self::Finetune => true,
            Self::Ingest | Self::Evaluate | Self::Classify => false,
        }
    }

    /// How long an attempt may show no progress before its lease is no longer renewed, in milliseconds.
    pub fn stall_bound_ms(self) -> u64 {
        match self {
            Self::Ingest | Self::Classify => 120_000,
            // One step of a large network on a slow CPU takes long.
            Self::Finetune | Self::Evaluate => 300_000,
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobKind {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            Refusal::invalid("kind", format!("{text:?} is not a job kind: use ingest, finetune, evaluate or classify"))
        })
    }
}

/// What a job shall do, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub enum JobSpec {
    /// See [`IngestSpec`].
    Ingest(IngestSpec),
    /// See [`FinetuneSpec`].
    Finetune(FinetuneSpec),
    /// See [`EvaluateSpec`].
    Evaluate(EvaluateSpec),
    /// See [`ClassifySpec`].
    Classify(ClassifySpec),
}

impl JobSpec {
    /// The kind of the job.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Ingest(_) => JobKind::Ingest,
            Self::Finetune(_) => JobKind::Finetune,
            Self::Evaluate(_) => JobKind::Evaluate,
            Self::Classify(_) => JobKind::Classify,
        }
    }

    /// The dataset that the job reads by name, to be pinned to a version at submission.
    pub fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        match self {
            Self::Finetune(spec) => Some(&mut spec.dataset),
            Self::Evaluate(EvaluateSpec { on: EvaluateOn::Dataset(dataset), .. }) => Some(dataset),
            Self::Ingest(_) | Self::Evaluate(_) | Self::Classify(_) => None,
        }
    }

    /// The model that the job reads, to be pinned to a version at submission.
    pub fn model_mut(&mut self) -> Option<&mut ModelRef> {
        match self {
            Self::Evaluate(spec) => Some(&mut spec.model),
            Self::Classify(spec) => Some(&mut spec.model),
            Self::Ingest(_) | Self::Finetune(_) => None,
        }
    }

    /// The uploaded weights that the job begins with, if it does.
    pub fn uploaded_weights(&self) -> Option<&Digest> {
        match self {
            Self::Finetune(FinetuneSpec { weights: WeightsSource::Object(digest), .. }) => Some(digest),
            Self::Finetune(_) | Self::Ingest(_) | Self::Evaluate(_) | Self::Classify(_) => None,
        }
    }

    /// The uploaded objects that the job reads, each with its field; they must exist at submission.
    pub fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        match self {
            Self::Ingest(spec) => vec![("ingest.source", &spec.source)],
            Self::Finetune(_) => vec![],
            Self::Evaluate(spec) => {
                let on = match &spec.on {
                    EvaluateOn::Source(source) => Some(("evaluate.source", source)),
                    EvaluateOn::HeldOut | EvaluateOn::Dataset(_) => None,
                };
                let decisions = spec.decisions.as_ref().map(|decisions| ("evaluate.decisions", decisions));
                on.into_iter().chain(decisions).collect()
            }
            Self::Classify(spec) => vec![("classify.source", &spec.source)],
        }
    }
}

/// An immutable object: its digest and its length.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size_bytes: u64,
}

impl ObjectRef {
    /// The reference to `content`.
    pub fn of(content: &[u8]) -> Self {
        Self { digest: Digest::of(content), size_bytes: content.len() as u64 }
    }
}

/// Decodes uploaded photos, quarantines what cannot be used, splits the rest and writes a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestSpec {
    /// The dataset's name without a version.
    pub dataset_name: Name,
    /// The upload manifest that lists the photos.
    pub source: ObjectRef,
    /// How photos are held out.
    pub split: Split,
    /// Seed of the split.
    pub seed: u64,
    /// Go on although over half of the photos cannot be decoded.
    pub allow_failures: bool,
    /// Short side of the lossless derivative in pixels; never enlarges.
    pub derivative_short_side_px: u32,
}

/// How photos are held out for validation, unless the upload says so itself with train/ and valid/.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// This share of each class, in percent.
    ValidPercent(u32),
    /// This many cross-validation folds.
    Folds(u32),
}

/// Measures a model on labelled photos.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluateSpec {
    /// The model.
    pub model: ModelRef,
    /// The photos.
    pub on: EvaluateOn,
    /// Test-time augmentation, reported beside the plain result.
    pub tta: Option<Tta>,
    /// Seed of the augmentation.
    pub seed: u64,
    /// A decisions file, as the report saves it.
    pub decisions: Option<ObjectRef>,
    /// Arithmetic of the forward passes.
    pub precision: Precision,
}

/// What a model is measured on.
#[derive(Debug, Clone, PartialEq)]
pub enum EvaluateOn {
    /// The photos that were held out when it was trained.
    HeldOut,
    /// The held-out photos of this dataset.
    Dataset(DatasetRef),
    /// All photos of this upload, which has a folder per class.
    Source(ObjectRef),
}

/// Test-time augmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tta {
    /// How the passes are combined.
    pub recipe: TtaRecipe,
    /// Augmented passes.
    pub passes: u32,
}

/// How predictions under augmentation are combined with the plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TtaRecipe {
    /// `0.75 * mean(augmented) + 0.25 * plain`.
    Fastai2,
    /// `mean(augmented and plain)`.
    Fastai07,
    /// The elementwise maximum over the augmented passes and the plain one.
    Max,
}

impl TtaRecipe {
    /// Its name on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fastai2 => "fastai2",
            Self::Fastai07 => "fastai07",
            Self::Max => "max",
        }
    }
}

/// Predicts the classes of photos.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifySpec {
    /// The model.
    pub model: ModelRef,
    /// The upload manifest that lists the photos.
    pub source: ObjectRef,
    /// How many of the most probable classes to return for each photo.
    pub top_k: u32,
    /// Test-time augmentation.
    pub tta: Option<Tta>,
    /// Seed of the augmentation.
    pub seed: u64,
    /// Arithmetic of the forward passes.
    pub precision: Precision,
}

impl TryFrom<v1::ObjectRef> for ObjectRef {
    type Error = Refusal;
    fn try_from(wire: v1::ObjectRef) -> Result<Self, Refusal> {
        Ok(Self { digest: wire.digest.parse()?, size_bytes: wire.size_bytes })
    }
}

impl From<ObjectRef> for v1::ObjectRef {
    fn from(object: ObjectRef) -> Self {
        Self { digest: object.digest.into(), size_bytes: object.size_bytes }
    }
}
