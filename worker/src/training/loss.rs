//! Cross-entropy with fastai's label smoothing, and the loss that is shown.

use tch::{Reduction, TchError, Tensor};

/// Mean loss of a batch: `e/C * sum(-log p) + (1 - e) * NLL` with `smoothing` e; `logits` are `[N, C]`, `targets` `[N]` i64.
///
/// # Errors
/// When shapes differ.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(targets, None::<&Tensor>, Reduction::Mean, -100, smoothing)
}

/// The loss of each photo, `[N]`, smoothed alike.
///
/// # Errors
/// When shapes differ.
pub fn cross_entropy_each(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(targets, None::<&Tensor>, Reduction::None, -100, smoothing)
}

/// The training loss that is shown: an exponential average, debiased (fastai's `AvgSmoothLoss`).
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct SmoothLoss {
    value: f64,
    count: u32,
}

impl SmoothLoss {
    const BETA: f64 = 0.98;

    /// Takes in the loss of one batch.
    pub fn add(&mut self, loss: f64) {
        self.count += 1;
        self.value = Self::BETA * self.value + (1.0 - Self::BETA) * loss;
    }

    /// The average so far; NaN before the first batch.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value / (1.0 - Self::BETA.powi(i32::try_from(self.count).unwrap_or(i32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_loss_of_a_constant_is_that_constant_from_the_first_batch_on() {
        let mut smooth = SmoothLoss::default();
        for _ in 0..5 {
            smooth.add(1.25);
            assert!((smooth.value() - 1.25).abs() < 1e-12);
        }
        smooth.add(0.0);
        assert!(smooth.value() < 1.25 && smooth.value() > 0.9);
    }
}
