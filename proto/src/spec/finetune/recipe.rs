//! The recipes by which a model is made from photos.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a model is made from the photos.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipe {
    /// Whichever of `Fast` and `Best` does better on inner folds of the photos to learn from. Labels that are probably wrong count less.
    Auto,
    /// fastai 2's `fine_tune`: the head alone learns first, then the whole network.
    Fastai2(FineTune),
    /// A logistic regression on the features of the pretrained network, which itself does not learn. Each photo is seen once, as a
    /// whole.
    Fast,
    /// The same regression on two larger views of each photo: its centre, and the whole photo.
    Best,
}

/// What can be chosen of fastai's `fine_tune`.
#[derive(Debug, Clone, PartialEq)]
pub struct FineTune {
    /// Epochs with the whole network, 1 to 1000.
    pub epochs: u32,
    /// Epochs with the body frozen, before the epochs with the whole network, 0 to 100.
    pub freeze_epochs: u32,
    /// Learning rate of the frozen phase. The phase with the whole network starts from half of it.
    pub base_lr: BaseRate,
    /// Photos per batch, 2 to 4096.
    pub batch_size: u32,
    /// How the photos of a batch are blended; `None` if they are not.
    pub mixing: Option<Mixing>,
    /// Share of each label that is spread evenly over all classes, from 0 to below 1.
    pub label_smoothing: f64,
    /// How the square that the network sees is cut from a photo.
    pub crop: TrainingCrop,
}

impl FineTune {
    /// fastai's `base_lr`.
    pub const DEFAULT_LR: f64 = 2e-3;
    /// fastai's `min_scale` of a random crop.
    pub const DEFAULT_MIN_SCALE: f64 = 0.08;
}

impl Default for FineTune {
    /// fastai's defaults, and five epochs.
    fn default() -> Self {
        Self {
            epochs: 5,
            freeze_epochs: 1,
            base_lr: BaseRate::Given(Self::DEFAULT_LR),
            batch_size: 64,
            mixing: None,
            label_smoothing: 0.0,
            crop: TrainingCrop::Resize,
        }
    }
}

impl Recipe {
    /// The names of all recipes, the default first.
    pub const NAMES: [&str; 4] = ["auto", "fast", "best", "fastai2"];

    /// The name of the recipe.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fastai2(_) => "fastai2",
            Self::Fast => "fast",
            Self::Best => "best",
        }
    }

    /// The side of the square that the network sees if the user names none, in pixels.
    pub fn default_image_size_px(&self) -> u32 {
        match self {
            Self::Fastai2(_) | Self::Fast => 224,
            Self::Auto | Self::Best => 288,
        }
    }

    /// Whether a model of the recipe is a regression, whose predictions average over views of its own.
    pub fn is_regression(&self) -> bool {
        match self {
            Self::Fastai2(_) => false,
            Self::Auto | Self::Fast | Self::Best => true,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
