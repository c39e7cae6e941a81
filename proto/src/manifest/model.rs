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
    /// Side of the square that the network sees, in pixels. With several views it is the largest.
    pub image_size_px: u32,
    /// Mean that is subtracted from each channel: red, green, blue. Pixel values are in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation that each channel is divided by after the subtraction.
    pub std: [f32; 3],
    /// How the network was made from the photos. Its name stands in the field `recipe`, and what it was made with beside it.
    #[serde(flatten)]
    pub recipe: RecipeRecord,
    /// The dataset that the network learned from.
    pub dataset: DatasetProvenance,
    /// Where the pretrained weights came from.
    pub pretrained: WeightsProvenance,
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

/// The recipe of a model, with what it was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "recipe", rename_all = "snake_case")]
pub enum RecipeRecord {
    /// fastai 2's `fine_tune`.
    Fastai2(FineTuneRecord),
    /// A regression on the features of one view.
    Fast(RegressionRecord),
    /// A regression on the features of two views.
    Best(RegressionRecord),
    /// Whichever of the two did better on inner folds of the photos to learn from.
    Auto(AutoRecord),
}

impl RecipeRecord {
    /// The name of the recipe, as a user gives it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fastai2(_) => "fastai2",
            Self::Fast(_) => "fast",
            Self::Best(_) => "best",
            Self::Auto(_) => "auto",
        }
    }

    /// What a regression was made with; `None` for a network that was trained.
    pub fn regression(&self) -> Option<&RegressionRecord> {
        match self {
            Self::Fastai2(_) => None,
            Self::Fast(record) | Self::Best(record) => Some(record),
            Self::Auto(record) => Some(&record.regression),
        }
    }

    /// What a network was trained with; `None` for a regression.
    pub fn fine_tune(&self) -> Option<&FineTuneRecord> {
        match self {
            Self::Fastai2(record) => Some(record),
            Self::Fast(_) | Self::Best(_) | Self::Auto(_) => None,
        }
    }

    /// How a recipe chose among others; `None` for a recipe that chooses nothing.
    pub fn auto(&self) -> Option<&AutoRecord> {
        match self {
            Self::Auto(record) => Some(record),
            Self::Fastai2(_) | Self::Fast(_) | Self::Best(_) => None,
        }
    }
}

/// What a recipe chose among others, and what it did about labels that are probably wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AutoRecord {
    /// The recipe that was chosen.
    pub chosen: String,
    /// The recipes that were compared, the one that costs least first. Empty if there were too few photos to compare them on.
    pub candidates: Vec<CandidateRecord>,
    /// Labels that are probably wrong and therefore count less; `None` if all labels count the same.
    #[serde(default)]
    pub label_weights: Option<LabelWeights>,
    /// What was made by the chosen recipe.
    #[serde(flatten)]
    pub regression: RegressionRecord,
}

/// How a recipe did on photos that its regression had not learned from: those that inner folds of the photos to learn from held out. The
/// photos that the model is measured on are none of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CandidateRecord {
    /// The recipe.
    pub recipe: String,
    /// Mean negative log likelihood of the true classes, in nats.
    pub nll: f64,
    /// How much higher that is than the lowest of all candidates.
    pub behind: f64,
    /// The standard error of `behind`, with near-duplicates as one observation.
    pub standard_error: f64,
}

/// Labels that are probably wrong and therefore count less where a regression learns from them. Nothing is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LabelWeights {
    /// The share of labels that are wrong, as estimated by confident learning.
    pub wrong_share: f64,
    /// How many labels count less than half.
    pub below_half: u64,
    /// These labels, those that count least first, up to a limit.
    pub listed: Vec<WeightedLabel>,
}

/// A label that is probably wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WeightedLabel {
    /// The digest of the photo as it was uploaded.
    pub digest: Digest,
    /// The photo's path in the upload.
    pub path: String,
    /// The label.
    pub label: String,
    /// The class that the photo resembles most.
    pub suggested: String,
    /// How much the label counts: the probability that it is right, 0 to 1.
    pub weight: f64,
}

/// What a network was trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FineTuneRecord {
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
}

/// What a regression was fitted with. The network before it has its pretrained weights.
///
/// A prediction is the mean, over the views, of `softmax(logits / temperature)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RegressionRecord {
    /// The views of each photo, in learning and in every later prediction.
    pub views: Vec<View>,
    /// The factor of the penalty: what was minimised is the mean cross entropy plus half of `lambda` times the sum of the squared weights.
    pub lambda: f64,
    /// What the logits are divided by, so that a probability is as often right as it says.
    pub temperature: f64,
    /// Number of inner folds of the photos to learn from on which `lambda` and `temperature` were chosen; 0 if there were too few photos.
    pub inner_folds: u32,
    /// Every `lambda` that was tried, in rising order.
    pub tried: Vec<LambdaScore>,
    /// How the model tells photos that resemble none of its classes. `None` if there were too few photos to learn that, and in a document
    /// that does not say.
    #[serde(default)]
    pub unlike: Option<UnlikeRecord>,
}

/// How a model tells photos that resemble none of its classes, and how often it is wrong about photos of its classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnlikeRecord {
    /// What is compared. The statistics of the photos that were learned from are in the file of the weights.
    pub method: UnlikeMethod,
    /// What it is compared with.
    #[serde(flatten)]
    pub scale: UnlikeScale,
    /// Number of held-out photos. All of them are of the model's classes, and none has set the threshold.
    pub held_out: u64,
    /// How many of them resemble none of the classes all the same: false alarms.
    pub false_alarms: u64,
}

/// What tells photos that resemble none of the classes. Another way of telling gets another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnlikeMethod {
    /// The energy of the mean logits of all views at temperature 1, and the least squared Mahalanobis distance to a class, with one
    /// Ledoit-Wolf covariance for all classes.
    EnergyAndDistance,
}

/// What the energy and the distance of a photo are compared with. A photo resembles no class if its standardised distance minus its
/// standardised energy plus `threshold` is above 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnlikeScale {
    /// Energies of photos of the classes that were not learned from.
    pub energy: Spread,
    /// Squared distances of the same photos.
    pub distance: Spread,
    /// What keeps 95% of these photos.
    pub threshold: f64,
}

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation; 1 if all are equal.
    pub deviation: f64,
}

impl Spread {
    /// The spread of these values, of which there is at least one.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
        Self { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
    }
}

/// How well a penalty did on photos that the regression had not learned from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LambdaScore {
    /// The factor of the penalty.
    pub lambda: f64,
    /// Mean negative log likelihood of the true classes, in nats.
    pub nll: f64,
}

/// A square view of a photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct View {
    /// What of the photo it shows.
    pub framing: Framing,
    /// Its side in pixels.
    pub size_px: u32,
}

/// What a view shows of a photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// The largest square in the centre.
    Crop,
    /// The whole photo in the middle of a white square.
    Pad,
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
