use serde::{Deserialize, Serialize};

use super::Document;
use crate::{Backbone, Digest, Mixing, ObjectRef, Precision, TrainingCrop};

/// A trained network and everything that it was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ModelManifest {
    /// Class names, sorted. Output `i` of the network belongs to class `i`.
    pub classes: Vec<String>,
    /// The network's body.
    pub backbone: Backbone,
    /// Body, head and BatchNorm statistics, a safetensors file.
    pub weights: ObjectRef,
    /// Side of the square that the network sees, in pixels.
    pub image_size_px: u32,
    /// Mean that is subtracted from each channel: red, green, blue. Pixel values are in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation that each channel is divided by after the subtraction.
    pub std: [f32; 3],
    /// The training recipe, "fastai2".
    pub recipe: String,
    /// The dataset that the network learned from.
    pub dataset: DatasetProvenance,
    /// Where the pretrained weights came from.
    pub pretrained: WeightsProvenance,
    /// Epochs with the body frozen.
    pub freeze_epochs: u32,
    /// Epochs with the whole network.
    pub epochs: u32,
    /// Learning rate of the frozen phase, whether given or found.
    pub base_lr: f64,
    /// How the learning rate was found; `None` if it was given.
    #[serde(default)]
    pub rate_search: Option<RateSearch>,
    /// How the photos of a batch were blended; `None` if they were not.
    #[serde(default)]
    pub mixing: Option<Mixing>,
    /// Share of each label that was spread evenly over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
    /// How the square that the network sees is cut from a photo, in predictions as well.
    #[serde(default)]
    pub crop: TrainingCrop,
    /// Photos per batch.
    pub batch_size: u32,
    /// Photos whose gradients were computed at a time. Less than `batch_size` if an attempt had run out of memory.
    pub micro_batch_size: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// The arithmetic that was used, never [`Precision::Auto`].
    pub precision: Precision,
    /// The device: "cpu" or "cuda:0".
    pub device: String,
    /// Number of CPU threads.
    pub threads: u32,
    /// Version of this software.
    pub software: String,
    /// The training table that was shown during the training.
    pub history: Vec<EpochRecord>,
}

impl Document for ModelManifest {
    const FORMAT: &'static str = "sortinghat.model/1";
}

/// The dataset that a model learned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatasetProvenance {
    /// The name of the dataset when the network was trained: "stamps@1".
    pub name: String,
    /// The dataset's manifest.
    pub manifest: ObjectRef,
    /// The fold that was held out, of a dataset with folds.
    pub fold: Option<u32>,
}

/// Where pretrained weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WeightsProvenance {
    /// A file name, a repository of the hub, an object, or "none".
    pub source: String,
    /// The file's content; `None` for random weights.
    pub digest: Option<Digest>,
}

/// What a learning-rate finder saw and what it suggests: fastai's `lr_find` with all of its suggestions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RateSearch {
    /// The learning rate of each step, rising.
    pub learning_rates: Vec<f64>,
    /// The training loss after each step in nats, averaged as the training table shows it.
    pub losses: Vec<f64>,
    /// The rate in the middle of the longest fall of the loss, which training uses.
    pub valley: f64,
    /// A tenth of the rate with the lowest loss.
    pub minimum: f64,
    /// The rate at which the loss falls most steeply.
    pub steep: f64,
    /// The rate at which the slope comes to rest, when it is followed from the right.
    pub slide: f64,
}

/// One row of the training table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EpochRecord {
    /// Whether the body was frozen.
    pub frozen: bool,
    /// Number of the epoch. The epochs of each phase are counted from 0.
    pub epoch: u32,
    /// Debiased exponential moving average of the training loss, in nats.
    pub train_loss: f64,
    /// Mean loss on the held-out photos, in nats.
    pub valid_loss: f64,
    /// Share of the held-out photos that are predicted right, 0 to 1.
    pub accuracy: f64,
    /// How long the epoch took, including the validation, in milliseconds.
    pub duration_ms: u64,
}
