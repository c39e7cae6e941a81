//! Validates on the held-out photos after each epoch.

use tch::{Kind, TchError, Tensor, no_grad};
use tokio::time::Instant;

use super::loss::cross_entropy_each;
use super::progress::EpochMetrics;
use super::source::{BatchPlan, PhotoSource, Set, SourceError};
use super::trainer::{TrainError, Trainer, labels, out_of_memory};
use crate::models::Mode;
use crate::prediction::batch::Crop;
use crate::randomness::Phase;

impl Trainer {
    /// Loss and accuracy on the held-out photos, after an epoch that began at `started`.
    pub(super) fn validate(
        &self,
        phase: Phase,
        source: &dyn PhotoSource,
        started: Instant,
    ) -> Result<EpochMetrics, TrainError> {
        let all = (0..self.valid.len()).collect::<Vec<_>>();
        let indices = all.chunks(self.recipe.batch_size).map(<[usize]>::to_vec).collect::<Vec<_>>();
        let mut stream = source.batches(Set::Validation, BatchPlan { crop: Crop::Centre, indices: indices.clone() });
        let (mut loss, mut correct) = (0.0, 0);
        for indices in &indices {
            let pixels = stream.next().ok_or_else(|| SourceError("the batches ended early".to_owned()))??;
            let images = no_grad(|| self.classifier.normalise(&pixels.to_tensor(self.classifier.device())?));
            let images = images.map_err(|source| out_of_memory(source, indices.len()))?;
            let labels = labels(&self.valid, indices, self.classifier.device());
            let (batch_loss, batch_correct) = no_grad(|| self.judge(&images, &labels))?;
            loss += batch_loss;
            correct += batch_correct;
        }
        Ok(EpochMetrics {
            phase,
            epoch: self.position.epoch,
            train_loss: self.smooth_loss.value(),
            valid_loss: loss / self.valid.len() as f64,
            correct,
            total: self.valid.len(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Summed loss of some validation photos, and how many were right. If memory runs out, the photos are judged in halves.
    fn judge(&self, images: &Tensor, labels: &Tensor) -> Result<(f64, usize), TrainError> {
        let photos = images.size()[0];
        let error = match self.judge_at_once(images, labels) {
            Ok(judged) => return Ok(judged),
            Err(error) => out_of_memory(error, photos as usize),
        };
        if photos < 2 || !matches!(error, TrainError::OutOfMemory { .. }) {
            return Err(error);
        }
        let half = |start, length| self.judge(&images.narrow(0, start, length), &labels.narrow(0, start, length));
        let (first, second) = (half(0, photos / 2)?, half(photos / 2, photos - photos / 2)?);
        Ok((first.0 + second.0, first.1 + second.1))
    }

    fn judge_at_once(&self, images: &Tensor, labels: &Tensor) -> Result<(f64, usize), TchError> {
        let logits = self.classifier.forward(images, Mode::Eval, self.recipe.validation_precision)?;
        let losses = cross_entropy_each(&logits, labels, self.recipe.label_smoothing)?;
        let right = logits.f_argmax(1, false)?.f_eq_tensor(labels)?.f_sum(Kind::Int64)?;
        let right = usize::try_from(right.int64_value(&[])).expect("a count is not negative");
        Ok((losses.f_sum(Kind::Double)?.double_value(&[]), right))
    }
}
