//! What turns a network's last feature map into logits.

mod fastai;
mod regression;

use tch::{TchError, Tensor};

pub(super) use fastai::FastaiHead;
pub(super) use regression::{RegressionHead, Unlike};

use super::layers::Mode;

/// A head of either kind.
#[derive(Debug)]
pub(super) enum Head {
    /// fastai's, which is trained with the network.
    Fastai(FastaiHead),
    /// A regression, which was fitted on the features of a network that is not trained.
    Regression(RegressionHead),
}

impl Head {
    /// `[N, features, H, W]` -> logits `[N, classes]` f32.
    pub(super) fn forward(&self, features: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        match self {
            Self::Fastai(head) => head.forward(features, mode),
            Self::Regression(head) => head.forward(features),
        }
    }

    /// The same in evaluation, and what [`RegressionHead::unlike`] asks of a view, if the head can tell.
    pub(super) fn forward_with_evidence(&self, features: &Tensor) -> Result<(Tensor, Option<Tensor>), TchError> {
        match self {
            Self::Fastai(head) => Ok((head.forward(features, Mode::Eval)?, None)),
            Self::Regression(head) => head.forward_with_evidence(features),
        }
    }
}
