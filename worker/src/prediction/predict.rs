//! The one way from pixels to class probabilities, which evaluation, reports and classification share.

use sortinghat_proto::Digest;
use tch::{Kind, TchError, Tensor, no_grad};

use super::augment::{Augmentation, apply};
use super::batch::{Crop, PixelBatch};
use super::probabilities::Probabilities;
use crate::device::Precision;
use crate::models::{Classifier, Mode};
use crate::randomness::Phase;

/// A prediction failed inside libtorch.
#[derive(Debug, thiserror::Error)]
#[error("failed to predict {photos} photos: {source}")]
pub struct PredictError {
    /// Photos in the batch.
    pub photos: usize,
    /// libtorch's reason.
    pub source: TchError,
}

/// Predicts photos with a model.
#[derive(Debug)]
pub struct Predictor<'a> {
    classifier: &'a Classifier,
    precision: Precision,
    augmentation: Augmentation,
    seed: u64,
}

impl<'a> Predictor<'a> {
    /// `seed` and each photo's digest decide the transforms of test-time augmentation.
    #[must_use]
    pub fn new(classifier: &'a Classifier, precision: Precision, seed: u64) -> Self {
        Self { classifier, precision, augmentation: Augmentation::FASTAI, seed }
    }

    /// How photos must be cut for pass `pass` of [`Self::augmented`].
    #[must_use]
    pub fn crop(&self, pass: u32) -> Crop {
        Crop::Random { seed: self.seed, phase: Phase::TestTime, epoch: pass }
    }

    /// Probabilities of photos without augmentation, all seen in one square.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn plain(&self, batch: &PixelBatch) -> Result<Probabilities, PredictError> {
        self.probabilities(batch, Ok)
    }

    /// The pooled features of photos without augmentation, photo by photo.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn features(&self, batch: &PixelBatch) -> Result<Vec<f32>, PredictError> {
        let rows = no_grad(|| {
            let images = self.classifier.normalise(&batch.to_tensor(self.classifier.device())?)?;
            Vec::<f32>::try_from(self.classifier.pooled_features(&images, self.precision)?.f_flatten(0, -1)?)
        });
        rows.map_err(|source| PredictError { photos: batch.count, source })
    }

    /// Probabilities of photos cut by [`Self::crop`] under training transforms; `digests` in the batch's order.
    ///
    /// # Errors
    /// When memory runs out.
    ///
    /// # Panics
    /// When there is not one digest for each photo.
    pub fn augmented(&self, batch: &PixelBatch, digests: &[Digest], pass: u32) -> Result<Probabilities, PredictError> {
        let draw = |digest| self.augmentation.draw(self.seed, Phase::TestTime, pass, digest);
        let transforms = digests.iter().map(draw).collect::<Vec<_>>();
        self.probabilities(batch, |images| apply(&images, &transforms))
    }

    fn probabilities(
        &self,
        batch: &PixelBatch,
        transform: impl Fn(Tensor) -> Result<Tensor, TchError>,
    ) -> Result<Probabilities, PredictError> {
        let classes = self.classifier.config().classes.len();
        let rows = no_grad(|| {
            let images = transform(batch.to_tensor(self.classifier.device())?)?;
            let images = self.classifier.normalise(&images)?;
            let logits = self.classifier.forward(&images, Mode::Eval, self.precision)?;
            let rows = probabilities(&logits)?.f_to_kind(Kind::Float)?.f_flatten(0, -1)?;
            Vec::<f32>::try_from(rows)
        });
        let rows = rows.map_err(|source| PredictError { photos: batch.count, source })?;
        Ok(Probabilities::new(rows, classes))
    }
}

/// Logits `[N, C]` -> probabilities `[N, C]` f32.
///
/// # Errors
/// When memory runs out.
pub fn probabilities(logits: &Tensor) -> Result<Tensor, TchError> {
    logits.f_softmax(-1, Kind::Float)
}
