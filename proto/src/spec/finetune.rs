//! What a fine-tune is told, and the choices it has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DatasetRef, Digest, Name};

/// fastai's `fine_tune`.
#[derive(Debug, Clone, PartialEq)]
pub struct FinetuneSpec {
    /// What to learn from.
    pub dataset: DatasetRef,
    /// The model's name without a version; `None` for the dataset's name.
    pub model_name: Option<Name>,
    /// The network.
    pub backbone: Backbone,
    /// Where its pretrained weights come from.
    pub weights: WeightsSource,
    /// Epochs with the whole network.
    pub epochs: u32,
    /// Epochs with the body frozen before them.
    pub freeze_epochs: u32,
    /// Learning rate of the frozen phase.
    pub base_lr: BaseRate,
    /// Photos a batch.
    pub batch_size: u32,
    /// Side of the square that the network sees, in pixels.
    pub image_size_px: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// The fold that is held out; required for a dataset with folds, refused for one without.
    pub fold: Option<u32>,
    /// Arithmetic of the passes in training.
    pub precision: Precision,
    /// How photos of a batch are blended.
    pub mixing: Option<Mixing>,
    /// Share of each label that is spread evenly over all classes, 0 up to below 1.
    pub label_smoothing: f64,
    /// How the square that the network sees is cut from a photo.
    pub crop: TrainingCrop,
}

/// Where the learning rate of the frozen phase comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseRate {
    /// This one, above 0 and up to 10.
    Given(f64),
    /// The suggestion "valley" of fastai's `lr_find`.
    Find,
}

/// Training on blends of two photos.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// A weighted sum of two photos; each keeps `max(l, 1 - l)` with l from Beta(alpha, alpha).
    #[serde(rename = "mixup")]
    MixUp {
        /// Above 0, up to 1; fastai's own is 0.4.
        alpha: f64,
    },
    /// A box of one photo pasted into another, its area from Beta(alpha, alpha), one box a batch.
    #[serde(rename = "cutmix")]
    CutMix {
        /// Above 0, up to 1; fastai's own is 1.
        alpha: f64,
    },
}

/// How the square that the network sees is cut from a photo, in training and in every later prediction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingCrop {
    /// fastai's `Resize`: the largest square, at a random place in training, in the centre otherwise.
    #[default]
    Resize,
    /// fastai's `RandomResizedCrop`: a part of random area and aspect in training; otherwise the whole photo, squeezed into a
    /// square 14% larger, of which the centre is seen.
    RandomResized {
        /// Smallest share of the photo's area, above 0 and up to 1; fastai's own is 0.08.
        min_scale: f64,
    },
}

/// The networks that can be fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// EfficientNet-Lite0: the default on one machine, a ninth of resnet34's arithmetic.
    EfficientnetLite0,
    /// ResNet-18.
    Resnet18,
    /// ResNet-34, the network of the origin.
    Resnet34,
    /// ResNet-50.
    Resnet50,
}

impl Backbone {
    /// All of them, the default first.
    pub const ALL: [Self; 4] = [Self::EfficientnetLite0, Self::Resnet18, Self::Resnet34, Self::Resnet50];

    /// Its name, as torchvision and timm spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EfficientnetLite0 => "efficientnet_lite0",
            Self::Resnet18 => "resnet18",
            Self::Resnet34 => "resnet34",
            Self::Resnet50 => "resnet50",
        }
    }
}

impl fmt::Display for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where pretrained weights come from. Always safetensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsSource {
    /// The backbone's own: the worker's weights folder, else the hub.
    Pretrained,
    /// Random ones (`none`); never chosen by itself.
    Random,
    /// An uploaded object (`object:DIGEST`).
    Object(Digest),
    /// `model.safetensors` of this repository of the hub (`hub:OWNER/REPOSITORY`).
    Hub(String),
}

/// Arithmetic of a network's passes; weights are always 32-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// What is fastest where it runs: bf16 where the device has instructions for it, but `F32` to train on a CPU.
    Auto,
    /// 32-bit floats.
    F32,
    /// bf16 autocast.
    Bf16,
}
