//! The spec of a fine-tune job.

mod wire;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::passes::Precision;
use crate::{
    DatasetRef, Digest, ModelRef, Name, ObjectRef,
    kinds::{Spec, WireSpec},
    v1,
};

/// Trains a model as fastai's `fine_tune` does: the head alone first, then the whole network.
#[derive(Debug, Clone, PartialEq)]
pub struct FinetuneSpec {
    /// The dataset to learn from.
    pub dataset: DatasetRef,
    /// The model's name without a version. `None` stands for the dataset's name, until the job is accepted.
    pub model_name: Option<Name>,
    /// The network.
    pub backbone: Backbone,
    /// Where the pretrained weights come from.
    pub weights: WeightsSource,
    /// Epochs with the whole network, 1 to 1000.
    pub epochs: u32,
    /// Epochs with the body frozen, before the epochs with the whole network, 0 to 100.
    pub freeze_epochs: u32,
    /// Learning rate of the frozen phase. The phase with the whole network starts from half of it.
    pub base_lr: BaseRate,
    /// Photos per batch, 2 to 4096.
    pub batch_size: u32,
    /// Side of the square that the network sees, in pixels, 32 to 1024.
    pub image_size_px: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// The fold that is held out, counted from 0. A dataset with folds requires it, and a dataset without folds refuses it.
    pub fold: Option<u32>,
    /// Arithmetic of the forward and backward passes in training.
    pub precision: Precision,
    /// How the photos of a batch are blended; `None` if they are not.
    pub mixing: Option<Mixing>,
    /// Share of each label that is spread evenly over all classes, from 0 to below 1.
    pub label_smoothing: f64,
    /// How the square that the network sees is cut from a photo.
    pub crop: TrainingCrop,
}

/// Where the learning rate of the frozen phase comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseRate {
    /// This learning rate, above 0 and at most 10.
    Given(f64),
    /// The suggestion "valley" of fastai's `lr_find`, which runs before the training.
    Find,
}

/// Training on blends of two photos.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// A weighted sum of two photos. A photo's own weight is `max(l, 1 - l)`, with `l` from Beta(alpha, alpha).
    #[serde(rename = "mixup")]
    MixUp {
        /// Above 0 and at most 1; fastai's default is 0.4.
        alpha: f64,
    },
    /// A box of one photo is pasted into another. The area comes from Beta(alpha, alpha); there is one box per batch.
    #[serde(rename = "cutmix")]
    CutMix {
        /// Above 0 and at most 1; fastai's default is 1.
        alpha: f64,
    },
}

/// How the square that the network sees is cut from a photo, in training and in every later prediction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TrainingCrop {
    /// fastai's `Resize`: the largest square, at a random place in training and in the centre otherwise.
    #[default]
    Resize,
    /// fastai's `RandomResizedCrop`: in training, a part of the photo with a random area and aspect. Otherwise the whole photo is
    /// squeezed into a square that is 14% larger, and the network sees its centre.
    RandomResized {
        /// Smallest share of the photo's area, above 0 and at most 1; fastai's default is 0.08.
        min_scale: f64,
    },
}

/// The networks that can be fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// EfficientNet-Lite0: the default, since it needs a ninth of the arithmetic of ResNet-34.
    EfficientnetLite0,
    /// ResNet-18.
    Resnet18,
    /// ResNet-34.
    Resnet34,
    /// ResNet-50.
    Resnet50,
}

impl Backbone {
    /// All networks, the default first.
    pub const ALL: [Self; 4] = [Self::EfficientnetLite0, Self::Resnet18, Self::Resnet34, Self::Resnet50];

    /// The name of the network, as torchvision and timm spell it.
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

/// Where pretrained weights come from. They are always a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsSource {
    /// The backbone's own weights, from the worker's weights folder or else from the hub.
    Pretrained,
    /// Random weights (`none`). They are used only if the user asks for them.
    Random,
    /// An uploaded object (`object:DIGEST`).
    Object(Digest),
    /// The file `model.safetensors` of this repository of the hub (`hub:OWNER/REPOSITORY`).
    Hub(String),
}

impl Spec for FinetuneSpec {
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        Some(&mut self.dataset)
    }

    fn model_mut(&mut self) -> Option<&mut ModelRef> {
        None
    }

    fn uploaded_weights(&self) -> Option<&Digest> {
        match &self.weights {
            WeightsSource::Object(digest) => Some(digest),
            WeightsSource::Pretrained | WeightsSource::Random | WeightsSource::Hub(_) => None,
        }
    }

    fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        vec![]
    }

    fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)> {
        None
    }

    fn missing_output_name(&mut self) -> Option<&mut Option<Name>> {
        self.model_name.is_none().then_some(&mut self.model_name)
    }
}

impl WireSpec for v1::FinetuneSpec {
    fn subject(&self) -> &str {
        &self.dataset
    }

    fn output_name(&self) -> &str {
        &self.model_name
    }
}
