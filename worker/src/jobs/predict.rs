//! The one way in which jobs ask a network about photos: evaluate and classify share it.

use std::sync::Arc;

use sortinghat_proto::{Digest, Precision, Tta};

use crate::{
    batches::{Gallery, Unseen, ViewPlan, Views, views},
    models::Classifier,
    prediction::{
        batch::PixelBatch,
        precision::prediction_precision,
        predict::{PredictError, Predictor, Seen},
        probabilities::Probabilities,
        tta::combine,
    },
    task::{JobContext, JobError},
};

/// What a job asks.
pub(super) struct Question<'a> {
    pub(super) network: &'a Classifier,
    pub(super) photos: Arc<Gallery>,
    /// The digest of each photo.
    pub(super) digests: Vec<Digest>,
    pub(super) tta: Option<Tta>,
    pub(super) seed: u64,
    /// The precision that the user asked for.
    pub(super) precision: Precision,
}

/// What the network says of some consecutive photos.
pub(super) struct Answers {
    /// For each photo, in order: that it has a row below, or why it has none.
    pub(super) outcomes: Vec<Result<(), Unseen>>,
    /// Rows of the photos that could be decoded, in order.
    pub(super) plain: Probabilities,
    /// The same with test-time augmentation, if it was asked for.
    pub(super) augmented: Option<Probabilities>,
    /// How unlike each of them is: above 0 if it resembles none of the classes. `None` if the model cannot tell.
    pub(super) unlike: Option<Vec<f32>>,
}

/// Asks about all photos in order and hands the answers to `each`, batch by batch. Memory is bounded by the batches.
pub(super) fn predict(
    context: &JobContext,
    question: Question<'_>,
    mut each: impl FnMut(Answers) -> Result<(), JobError>,
) -> Result<(), JobError> {
    let Question { network, photos, digests, tta, seed, precision } = question;
    let precision = prediction_precision(&context.machine().compute, precision, network.backbone());
    let predictor = Predictor::new(network, precision, seed);
    let passes = (0..tta.map_or(0, |tta| tta.passes)).map(|pass| predictor.crop(pass)).collect();
    let plan = ViewPlan { squares: network.config().squares.clone(), passes };
    let total = photos.len() as u64;
    let mut done = 0;
    context.progress("predict", done, total, "photos");
    for views in views(photos, digests, plan) {
        context.check_cancelled()?;
        let views = views?;
        done += views.outcomes.len() as u64;
        each(answer(&predictor, tta, views, || {
            // A pass may take long on a slow machine, so each one reports that the job is alive.
            context.progress("predict", done, total, "photos");
            context.check_cancelled()
        })?)?;
    }
    Ok(())
}

fn answer(
    predictor: &Predictor<'_>,
    tta: Option<Tta>,
    views: Views,
    after_pass: impl Fn() -> Result<(), JobError>,
) -> Result<Answers, JobError> {
    let Views { outcomes, digests, plain, augmented } = views;
    if digests.is_empty() {
        let augmented = tta.map(|_| Probabilities::default());
        return Ok(Answers { outcomes, plain: Probabilities::default(), augmented, unlike: None });
    }
    let mut squares = Vec::with_capacity(plain.len());
    for batch in &plain {
        squares.push(halving(batch, &digests, &|batch, _| predictor.seen(batch))?);
        after_pass()?;
    }
    let unlike = predictor.unlike(&squares, digests.len());
    let unlike = unlike.map_err(|error| JobError::torch("telling unlike photos", &error.source))?;
    let plain = Probabilities::mean(&squares.into_iter().map(|square| square.probabilities).collect::<Vec<_>>());
    let mut passes = Vec::with_capacity(augmented.len());
    for (pass, batch) in (0..).zip(&augmented) {
        passes.push(halving(batch, &digests, &|batch, digests| predictor.augmented(batch, digests, pass))?);
        after_pass()?;
    }
    let augmented = tta.map(|tta| combine(tta.recipe, &plain, &passes));
    Ok(Answers { outcomes, plain, augmented, unlike })
}

type Ask<'a, R> = dyn Fn(&PixelBatch, &[Digest]) -> Result<R, PredictError> + 'a;

/// Rows about photos, to which those of more photos can be added.
pub(super) trait Rows {
    /// Adds the rows of the photos that follow.
    fn add(&mut self, more: Self);
}

impl Rows for Probabilities {
    fn add(&mut self, more: Self) {
        self.extend(&more);
    }
}

impl Rows for Seen {
    fn add(&mut self, more: Self) {
        self.probabilities.extend(&more.probabilities);
        if let Some((all, more)) = self.evidence.as_mut().zip(more.evidence) {
            all.extend(more);
        }
    }
}

impl Rows for Vec<f32> {
    fn add(&mut self, more: Self) {
        self.extend(more);
    }
}

/// Asks about a batch. If memory runs out, asks about its halves, down to a single photo.
pub(super) fn halving<R: Rows>(batch: &PixelBatch, digests: &[Digest], ask: &Ask<'_, R>) -> Result<R, JobError> {
    let error = match ask(batch, digests) {
        Ok(rows) => return Ok(rows),
        Err(error) => JobError::torch("predicting", &error.source),
    };
    if !matches!(error, JobError::OutOfMemory { .. }) || batch.count < 2 {
        return Err(error);
    }
    tracing::warn!(photos = batch.count, "out of memory while predicting; going on with half of the batch");
    let half = batch.count / 2;
    let (first, second) = batch.pixels.split_at(half * batch.size * batch.size * 3);
    let part = |pixels: &[u8], count| PixelBatch { pixels: pixels.to_vec(), count, size: batch.size };
    let mut rows = halving(&part(first, half), &digests[..half], ask)?;
    rows.add(halving(&part(second, batch.count - half), &digests[half..], ask)?);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::TchError;

    fn batch(count: usize) -> (PixelBatch, Vec<Digest>) {
        let pixels = (0..count).flat_map(|index| [index as u8; 3]).collect();
        (PixelBatch { pixels, count, size: 1 }, (0..count).map(|index| Digest::of(&[index as u8])).collect())
    }

    /// A device that holds two photos at a time; the row of a photo is its own number.
    fn small_device(batch: &PixelBatch, digests: &[Digest]) -> Result<Probabilities, PredictError> {
        assert_eq!(batch.count, digests.len());
        if batch.count > 2 {
            let source = TchError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB".into());
            return Err(PredictError { photos: batch.count, source });
        }
        Ok(Probabilities::new(batch.pixels.chunks(3).map(|pixel| f32::from(pixel[0])).collect(), 1))
    }

    #[test]
    fn a_batch_that_does_not_fit_is_asked_in_parts_and_keeps_its_order() {
        let (batch, digests) = batch(7);
        let rows = halving(&batch, &digests, &small_device).expect("pieces of at most two fit");
        assert_eq!(rows.iter().flatten().copied().collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn any_other_failure_is_not_tried_again() {
        let (batch, digests) = batch(4);
        let asked = std::cell::Cell::new(0);
        let error = halving::<Probabilities>(&batch, &digests, &|batch, _| {
            asked.set(asked.get() + 1);
            Err(PredictError { photos: batch.count, source: TchError::Torch("device-side assert".into()) })
        });
        assert!(matches!(error, Err(JobError::Internal(_))));
        assert_eq!(asked.get(), 1);
    }
}
