use serde::{Deserialize, Serialize};

use super::Document;
use crate::{Backbone, Digest, Mixing, ObjectRef, Precision, TrainingCrop};

/// A trained network and everything it was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelManifest {
    /// Class names, sorted; output `i` of the network belongs to class `i`.
    pub classes: Vec<String>,
    /// The network's body.
    pub backbone: Backbone,
    /// Body, head and BatchNorm statistics as safetensors.
    pub weights: ObjectRef,
    /// Side of the square that the network sees, in pixels.
    pub image_size_px: u32,
    /// Mean that is subtracted from each channel (red, green, blue), of values in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation that each channel is divided by.
    pub std: [f32; 3],
    /// The training recipe, "fastai2".
    pub recipe: String,
    /// The dataset that it learned from.
    pub dataset: DatasetProvenance,
    /// Where its pretrained weights came from.
    pub pretrained: WeightsProvenance,
    /// Epochs with the body frozen.
    pub freeze_epochs: u32,
    /// Epochs with the whole network.
    pub epochs: u32,
    /// Learning rate of the frozen phase, given or found.
    pub base_lr: f64,
    /// How it was found; `None` where it was given.
    #[serde(default)]
    pub rate_search: Option<RateSearch>,
    /// How photos of a batch were blended.
    #[serde(default)]
    pub mixing: Option<Mixing>,
    /// Share of each label that was spread over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
    /// How the square that the network sees is cut from a photo; predictions do it alike.
    #[serde(default)]
    pub crop: TrainingCrop,
    /// Photos a batch.
    pub batch_size: u32,
    /// Photos whose gradients were computed at a time; less than `batch_size` after memory ran out.
    pub micro_batch_size: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Arithmetic that was used: f32 or bf16.
    pub precision: Precision,
    /// "cpu" or "cuda:0".
    pub device: String,
    /// CPU threads.
    pub threads: u32,
    /// Version of this software.
    pub software: String,
    /// The table that was shown while it learned.
    pub history: Vec<EpochRecord>,
}

impl Document for ModelManifest {
    const FORMAT: &'static str = "sortinghat.model/1";
}

/// The dataset that a model learned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetProvenance {
    /// "stamps@1", as it was called then.
    pub name: String,
    /// Its manifest.
    pub manifest: ObjectRef,
    /// The fold that was held out, for a dataset with folds.
    pub fold: Option<u32>,
}

/// Where pretrained weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsProvenance {
    /// A file name, a repository of the hub, an object, or "none".
    pub source: String,
    /// The file's content; `None` for random weights.
    pub digest: Option<Digest>,
}

/// What a learning-rate finder saw and what it suggests: fastai's `lr_find` with all of its suggestions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateSearch {
    /// The learning rate of each step, rising.
    pub learning_rates: Vec<f64>,
    /// The training loss after each step in nats, averaged as the training table shows it.
    pub losses: Vec<f64>,
    /// In the midst of the longest fall of the loss: what training uses.
    pub valley: f64,
    /// A tenth of the rate with the lowest loss.
    pub minimum: f64,
    /// Where the loss falls most steeply.
    pub steep: f64,
    /// Where the slope, followed from the right, comes to rest.
    pub slide: f64,
}

/// One row of the training table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The body was frozen.
    pub frozen: bool,
    /// Counted from 0 in each phase.
    pub epoch: u32,
    /// Debiased exponential moving average of the training loss, in nats.
    pub train_loss: f64,
    /// Mean loss on the held-out photos, in nats.
    pub valid_loss: f64,
    /// Share of the held-out photos that are predicted right, 0 to 1.
    pub accuracy: f64,
    /// Time it took, validation included, in milliseconds.
    pub duration_ms: u64,
}
