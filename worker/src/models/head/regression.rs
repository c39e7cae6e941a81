//! The head of a model whose network is not trained: a regression on pooled, centred features.

use tch::{TchError, Tensor, no_grad};

use crate::models::{
    features::{centred, direction, pooled},
    layers::Builder,
};

/// Average pooling -> direction -> centred -> linear -> divided by the temperature.
#[derive(Debug)]
pub(in crate::models) struct RegressionHead {
    /// `[features]`.
    mean: Tensor,
    /// `[classes, features]`.
    weight: Tensor,
    /// `[classes]`.
    bias: Tensor,
    temperature: f64,
}

impl RegressionHead {
    /// A head of zeros.
    pub(in crate::models) fn new(
        builder: &mut Builder,
        features: i64,
        classes: i64,
        temperature: f64,
    ) -> Result<Self, TchError> {
        Ok(Self {
            mean: builder.fixed("mean", &[features])?,
            weight: builder.fixed("weight", &[classes, features])?,
            bias: builder.fixed("bias", &[classes])?,
            temperature,
        })
    }

    /// Takes over a fitted regression: the mean `[features]`, the weight `[classes, features]` and the bias `[classes]`.
    pub(in crate::models) fn set(
        &mut self,
        mean: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        temperature: f64,
    ) -> Result<(), TchError> {
        for (own, fitted) in [(&self.mean, mean), (&self.weight, weight), (&self.bias, bias)] {
            no_grad(|| own.shallow_clone().f_copy_(fitted))?;
        }
        self.temperature = temperature;
        Ok(())
    }

    /// `[N, features, H, W]` -> logits `[N, classes]` f32.
    pub(in crate::models) fn forward(&self, features: &Tensor) -> Result<Tensor, TchError> {
        let features = centred(&direction(&pooled(features)?)?, &self.mean)?;
        features.f_linear(&self.weight, Some(&self.bias))?.f_div_scalar(self.temperature)
    }
}
