//! Everything that decides how a model is trained, stored with the model.

use serde::{Deserialize, Serialize};
use sortinghat_proto::{BaseRate, Mixing};

use super::schedule::FineTune;
use crate::device::Precision;
use crate::prediction::augment::Augmentation;

/// A training run's settings. With its seed and its photos it determines every number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Epochs with everything trained.
    pub epochs: u32,
    /// Epochs before, with the body frozen.
    pub freeze_epochs: u32,
    /// Peak learning rate of the head while frozen.
    pub base_rate: BaseRate,
    /// Photos in a step; fewer if there are not as many.
    pub batch_size: usize,
    /// Seeds order, augmentation, dropout and blends.
    pub seed: u64,
    /// What the body's convolutions compute in while training.
    pub precision: Precision,
    /// What the body's convolutions compute in for validation. It is the precision of later predictions, so that an evaluation gives
    /// the numbers of the training table's last line.
    pub validation_precision: Precision,
    /// The random transforms; `None` trains on the photos as they are.
    pub augmentation: Option<Augmentation>,
    /// Blends of two photos; `None` for none.
    pub mixing: Option<Mixing>,
    /// Share of each label that is spread over all classes; 0 for none.
    pub label_smoothing: f64,
    /// Adam's decoupled decay.
    pub weight_decay: f64,
}

/// A setting outside its range.
#[derive(Debug, thiserror::Error)]
#[error("{field} is {found}; allowed is {allowed}")]
pub struct RecipeError {
    /// Which.
    pub field: &'static str,
    /// Its value.
    pub found: String,
    /// Its range.
    pub allowed: &'static str,
}

impl Recipe {
    /// fastai's `base_lr`.
    pub const DEFAULT_RATE: f64 = 2e-3;

    /// fastai 2's `fine_tune(epochs)` with its default transforms, in f32.
    #[must_use]
    pub fn fastai2(epochs: u32, seed: u64) -> Self {
        Self {
            epochs,
            freeze_epochs: 1,
            base_rate: BaseRate::Given(Self::DEFAULT_RATE),
            batch_size: 64,
            seed,
            precision: Precision::F32,
            validation_precision: Precision::F32,
            augmentation: Some(Augmentation::FASTAI),
            mixing: None,
            label_smoothing: 0.0,
            weight_decay: 0.01,
        }
    }

    /// The learning-rate schedule it implies for a peak of `base_learning_rate`, given or found.
    #[must_use]
    pub fn fine_tune(&self, base_learning_rate: f64) -> FineTune {
        FineTune {
            epochs: self.epochs,
            freeze_epochs: self.freeze_epochs,
            base_learning_rate,
            learning_rate_divisor: 100.0,
            warmup: 0.3,
            div: 5.0,
        }
    }

    /// Photos in a step for `examples` training photos: at least two, which batch normalisation needs.
    #[must_use]
    pub fn effective_batch_size(&self, examples: usize) -> usize {
        self.batch_size.min(examples).max(2)
    }

    /// Refuses what cannot be trained with.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn check(&self) -> Result<(), RecipeError> {
        let require = |holds: bool, field, found: String, allowed| {
            if holds { Ok(()) } else { Err(RecipeError { field, found, allowed }) }
        };
        let epochs = self.epochs.saturating_add(self.freeze_epochs);
        require((1..=10_000).contains(&epochs), "epochs", epochs.to_string(), "1 to 10000 in all")?;
        if let BaseRate::Given(rate) = self.base_rate {
            require(rate > 0.0 && rate <= 10.0, "base_rate", rate.to_string(), "above 0, up to 10")?;
        }
        if let Some(Mixing::MixUp { alpha } | Mixing::CutMix { alpha }) = self.mixing {
            require(alpha > 0.0 && alpha <= 1.0, "mixing", alpha.to_string(), "above 0, up to 1")?;
        }
        let smoothing = self.label_smoothing;
        require((0.0..1.0).contains(&smoothing), "label_smoothing", smoothing.to_string(), "0 up to below 1")?;
        require((2..=4096).contains(&self.batch_size), "batch_size", self.batch_size.to_string(), "2 to 4096")?;
        require((0.0..=1.0).contains(&self.weight_decay), "weight_decay", self.weight_decay.to_string(), "0 to 1")
    }
}
