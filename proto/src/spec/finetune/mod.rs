//! The spec of a fine-tune job.

mod recipe;
mod wire;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use recipe::{BaseRate, FineTune, Mixing, Recipe, TrainingCrop};

use super::passes::Precision;
use crate::{
    DatasetRef, Digest, ModelRef, Name, ObjectRef,
    kinds::{Spec, WireSpec},
    v1,
};

/// Makes a model from a dataset.
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
    /// How the model is made.
    pub recipe: Recipe,
    /// Side of the square that the network sees, in pixels, 32 to 1024.
    pub image_size_px: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// The fold that is held out, counted from 0. A dataset with folds requires it, and a dataset without folds refuses it.
    pub fold: Option<u32>,
    /// Arithmetic of the network's passes in training.
    pub precision: Precision,
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

impl WeightsSource {
    /// The uploaded object, if it is one.
    pub(in crate::spec) fn uploaded(&self) -> Option<&Digest> {
        match self {
            Self::Object(digest) => Some(digest),
            Self::Pretrained | Self::Random | Self::Hub(_) => None,
        }
    }
}

impl fmt::Display for WeightsSource {
    /// As specs name the source: nothing for a backbone's own weights.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pretrained => Ok(()),
            Self::Random => f.write_str("none"),
            Self::Object(digest) => write!(f, "object:{digest}"),
            Self::Hub(repository) => write!(f, "hub:{repository}"),
        }
    }
}

impl Spec for FinetuneSpec {
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        Some(&mut self.dataset)
    }

    fn model_mut(&mut self) -> Option<&mut ModelRef> {
        None
    }

    fn uploaded_weights(&self) -> Option<&Digest> {
        self.weights.uploaded()
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

    fn source(&self) -> Option<&v1::ObjectRef> {
        None
    }
}
