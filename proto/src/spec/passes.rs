//! How a network's passes are computed and combined: arithmetic and test-time augmentation.

use serde::{Deserialize, Serialize};

use super::check::{in_range, or_default};
use crate::{Refusal, v1};

/// Arithmetic of a network's passes. Weights are always 32-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// The fastest arithmetic of the device: bf16 where the device has instructions for it, but `F32` for training on a CPU.
    Auto,
    /// 32-bit floats.
    F32,
    /// bf16 autocast.
    Bf16,
}

impl Precision {
    /// The precision that the wire's number means; 0 means [`Precision::Auto`].
    pub(super) fn from_wire(number: i32, field: &str) -> Result<Self, Refusal> {
        match v1::Precision::try_from(number) {
            Ok(v1::Precision::Unspecified) => Ok(Self::Auto),
            Ok(v1::Precision::F32) => Ok(Self::F32),
            Ok(v1::Precision::Bf16) => Ok(Self::Bf16),
            Err(_) => Err(Refusal::invalid(field, "use f32, bf16 or nothing")),
        }
    }

    /// The wire's number.
    pub(super) fn to_wire(self) -> i32 {
        match self {
            Self::Auto => v1::Precision::Unspecified,
            Self::F32 => v1::Precision::F32,
            Self::Bf16 => v1::Precision::Bf16,
        }
        .into()
    }
}

/// Test-time augmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tta {
    /// How the passes are combined.
    pub recipe: TtaRecipe,
    /// Number of augmented passes, 1 to 32.
    pub passes: u32,
}

impl Tta {
    /// The augmentation that the wire's recipe and number of passes mean; `None` if both are 0.
    pub(super) fn from_wire(recipe: i32, passes: u32, field: &str) -> Result<Option<Self>, Refusal> {
        let recipe = match v1::TtaRecipe::try_from(recipe) {
            Ok(v1::TtaRecipe::Unspecified) if passes == 0 => return Ok(None),
            Ok(v1::TtaRecipe::Unspecified) => {
                return Err(Refusal::invalid(format!("{field}_passes"), "passes mean nothing without a tta recipe"));
            }
            Ok(v1::TtaRecipe::Fastai2) => TtaRecipe::Fastai2,
            Ok(v1::TtaRecipe::Fastai07) => TtaRecipe::Fastai07,
            Ok(v1::TtaRecipe::Max) => TtaRecipe::Max,
            Err(_) => return Err(Refusal::invalid(field, "unknown tta recipe: use fastai2, fastai07 or max")),
        };
        let passes = in_range(or_default(passes, 4), 1..=32, &format!("{field}_passes"))?;
        Ok(Some(Self { recipe, passes }))
    }

    /// The wire's recipe and number of passes.
    pub(super) fn to_wire(tta: Option<Self>) -> (i32, u32) {
        let Some(Self { recipe, passes }) = tta else { return (v1::TtaRecipe::Unspecified.into(), 0) };
        let recipe = match recipe {
            TtaRecipe::Fastai2 => v1::TtaRecipe::Fastai2,
            TtaRecipe::Fastai07 => v1::TtaRecipe::Fastai07,
            TtaRecipe::Max => v1::TtaRecipe::Max,
        };
        (recipe.into(), passes)
    }
}

/// How the predictions of the augmented passes are combined with the prediction of the plain pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// The name of the recipe on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fastai2 => "fastai2",
            Self::Fastai07 => "fastai07",
            Self::Max => "max",
        }
    }
}
