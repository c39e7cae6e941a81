//! fastai's classification head.

use tch::{Kind, TchError, Tensor};

use super::layers::{BatchNorm, Builder, Linear, Mode};

const HIDDEN: i64 = 512;
const EPS: f64 = 1e-5;

/// max and average pooling -> norm -> dropout -> linear 512 -> ReLU -> norm -> dropout -> linear.
///
/// Names follow the positions in fastai's `Sequential` (2: norm, 4: linear, 6: norm, 8: linear).
#[derive(Debug)]
pub(super) struct Head {
    norm_in: BatchNorm,
    hidden: Linear,
    norm_hidden: BatchNorm,
    output: Linear,
    dropout: f64,
}

impl Head {
    /// `dropout` is the rate before the last layer; half of it applies before the first (fastai's `ps`).
    pub(super) fn new(builder: &mut Builder, features: i64, classes: i64, dropout: f64) -> Result<Self, TchError> {
        Ok(Self {
            norm_in: builder.batch_norm("2", 2 * features, EPS)?,
            hidden: builder.linear("4", 2 * features, HIDDEN)?,
            norm_hidden: builder.batch_norm("6", HIDDEN, EPS)?,
            output: builder.linear("8", HIDDEN, classes)?,
            dropout,
        })
    }

    /// `[N, features, H, W]` -> logits `[N, classes]` f32.
    pub(super) fn forward(&self, features: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        // Pooled in f32: an average of 49 bf16 values would lose three digits for nothing.
        let features = features.f_to_kind(Kind::Float)?;
        // Not amax: among equal maxima the gradient goes to one position, as in PyTorch's pooling layer.
        let (maxima, _) = features.f_adaptive_max_pool2d([1, 1])?;
        let means = features.f_adaptive_avg_pool2d([1, 1])?;
        self.forward_pooled(&Tensor::f_cat(&[maxima, means], 1)?.f_flatten(1, -1)?, mode)
    }

    fn forward_pooled(&self, pooled: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let train = mode == Mode::Train;
        let input = self.norm_in.forward(pooled, mode)?.f_dropout(self.dropout / 2.0, train)?;
        let hidden = self.hidden.forward(&input)?.f_relu()?;
        let hidden = self.norm_hidden.forward(&hidden, mode)?.f_dropout(self.dropout, train)?;
        self.output.forward(&hidden)
    }
}
