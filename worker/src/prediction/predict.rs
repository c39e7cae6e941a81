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

/// What a model says of photos that it sees in one square.
#[derive(Debug)]
pub struct Seen {
    /// Their probabilities.
    pub probabilities: Probabilities,
    /// What [`Predictor::unlike`] asks for, photo by photo; `None` if the model cannot tell.
    pub evidence: Option<Vec<f32>>,
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

    /// Probabilities of photos without augmentation, all seen in one square, and what tells those that resemble no class.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn seen(&self, batch: &PixelBatch) -> Result<Seen, PredictError> {
        let classes = self.classifier.config().classes.len();
        let seen = no_grad(|| {
            let images = self.classifier.normalise(&batch.to_tensor(self.classifier.device())?)?;
            let (logits, evidence) = self.classifier.forward_with_evidence(&images, self.precision)?;
            let probabilities = Probabilities::new(values(&probabilities(&logits)?)?, classes);
            Ok(Seen { probabilities, evidence: evidence.as_ref().map(values).transpose()? })
        });
        seen.map_err(|source| PredictError { photos: batch.count, source })
    }

    /// How unlike each of `photos` photos is, by the evidence of each of their views: above 0 if they resemble none of the classes. `None` if
    /// the model cannot tell.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn unlike(&self, views: &[Seen], photos: usize) -> Result<Option<Vec<f32>>, PredictError> {
        let Some(views) = views.iter().map(|view| view.evidence.as_deref()).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let scores = no_grad(|| {
            let view = |values: &&[f32]| {
                let rows = Tensor::f_from_slice(values)?.f_view([photos as i64, -1])?;
                rows.f_to_device(self.classifier.device())
            };
            let views = views.iter().map(view).collect::<Result<Vec<_>, _>>()?;
            self.classifier.unlike(&views)?.as_ref().map(values).transpose()
        });
        scores.map_err(|source| PredictError { photos, source })
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
            values(&probabilities(&logits)?)
        });
        let rows = rows.map_err(|source| PredictError { photos: batch.count, source })?;
        Ok(Probabilities::new(rows, classes))
    }
}

/// All values of a tensor, row by row.
fn values(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    Vec::try_from(tensor.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)
}

/// Logits `[N, C]` -> probabilities `[N, C]` f32.
///
/// # Errors
/// When memory runs out.
pub fn probabilities(logits: &Tensor) -> Result<Tensor, TchError> {
    logits.f_softmax(-1, Kind::Float)
}
