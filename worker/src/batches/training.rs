//! The photos of a training run, batch by batch.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use sortinghat_proto::Digest;

use super::{
    ahead::Ahead,
    cut::cut,
    gallery::{Gallery, Unreadable},
};
use crate::{
    models::Square,
    prediction::batch::{Crop, PixelBatch},
    task::JobError,
    training::source::{BatchPlan, BatchStream, PhotoSource, Set, SourceError},
};

/// How many decoded batches wait, beside the one in use and the one that is being decoded.
const DEPTH: usize = 2;

/// Called with the set, the number of the batch that is about to be used, and how many the plan has; an error ends the run.
type OnBatch<'a> = dyn Fn(Set, usize, usize) -> Result<(), JobError> + 'a;

/// The photos of one training run, as its trainer asks for them.
pub struct TrainingPhotos<'a> {
    gallery: Arc<Gallery>,
    square: Square,
    digests: Arc<[Digest]>,
    train: Vec<usize>,
    valid: Vec<usize>,
    on_batch: Box<OnBatch<'a>>,
    /// Why the last batch failed. The trainer passes on only a text.
    failure: Mutex<Option<JobError>>,
}

impl fmt::Debug for TrainingPhotos<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingPhotos")
            .field("gallery", &self.gallery)
            .field("square", &self.square)
            .finish_non_exhaustive()
    }
}

impl<'a> TrainingPhotos<'a> {
    /// Photos cut to `square`. `digests` are those of the gallery's photos; `train` and `valid` are numbers of
    /// photos in the order of the trainer's examples. `on_batch` is called on the trainer's thread before each batch.
    ///
    /// # Panics
    /// When there is not one digest for each photo.
    pub fn new(
        gallery: Arc<Gallery>,
        square: Square,
        digests: Vec<Digest>,
        (train, valid): (Vec<usize>, Vec<usize>),
        on_batch: impl Fn(Set, usize, usize) -> Result<(), JobError> + 'a,
    ) -> Self {
        assert_eq!(gallery.len(), digests.len(), "one digest for each photo");
        let (digests, on_batch) = (digests.into(), Box::new(on_batch));
        Self { gallery, square, digests, train, valid, on_batch, failure: Mutex::default() }
    }

    /// Why the source failed, if it did.
    pub fn take_failure(&self) -> Option<JobError> {
        self.failure.lock().take()
    }

    fn keep_failure(&self, error: JobError) -> SourceError {
        let message = error.to_string();
        *self.failure.lock() = Some(error);
        SourceError(message)
    }
}

impl PhotoSource for TrainingPhotos<'_> {
    fn batches<'b>(&'b self, set: Set, plan: BatchPlan) -> BatchStream<'b> {
        let numbers = match set {
            Set::Training => &self.train,
            Set::Validation => &self.valid,
        };
        let batches: Vec<Vec<usize>> =
            plan.indices.iter().map(|batch| batch.iter().map(|&index| numbers[index]).collect()).collect();
        let (gallery, digests) = (self.gallery.clone(), self.digests.clone());
        let (square, crop, count) = (self.square, plan.crop, batches.len());
        let decoded = Ahead::new(DEPTH, count, move |number| batch(&gallery, &digests, &batches[number], square, crop));
        Box::new(decoded.enumerate().map(move |(number, batch)| {
            let ready = (self.on_batch)(set, number, count).and(batch);
            ready.map_err(|error| self.keep_failure(error))
        }))
    }
}

/// The error of a stored picture that does not decode. Ingest has written it, so no user is at fault.
pub(crate) fn undecodable(digest: &Digest, error: &dyn fmt::Display) -> JobError {
    JobError::Internal(format!("the dataset's picture of photo {digest} does not decode: {error}"))
}

fn batch(
    gallery: &Gallery,
    digests: &[Digest],
    numbers: &[usize],
    square: Square,
    crop: Crop,
) -> Result<PixelBatch, JobError> {
    let squares = gallery.map(numbers, |number| Ok(cut(square, &*gallery.photo(number)?, &crop, &digests[number])));
    let mut pixels = Vec::with_capacity(numbers.len() * square.size * square.size * 3);
    for (square, &number) in squares.into_iter().zip(numbers) {
        let broken = |error: &dyn fmt::Display| undecodable(&digests[number], error);
        pixels.extend(square.map_err(|unreadable| match unreadable {
            Unreadable::Failed(error) => error,
            Unreadable::Undecodable(error) => broken(&error),
            Unreadable::Unread(why) => broken(&why),
        })?);
    }
    Ok(PixelBatch { pixels, count: numbers.len(), size: square.size })
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::TrainingCrop;

    use super::super::gallery::tests::Plain;
    use super::*;
    use crate::models::Framing;

    const SQUARE: Square = Square { size: 4, framing: Framing::Crop(TrainingCrop::Resize) };

    fn source<'a>(on_batch: impl Fn(Set, usize, usize) -> Result<(), JobError> + 'a) -> TrainingPhotos<'a> {
        let gallery = Gallery::new(Box::new(Plain::default()), 0);
        let digests = (0..10).map(|index| Digest::of(&[index])).collect();
        TrainingPhotos::new(gallery, SQUARE, digests, (vec![9, 8, 5], vec![0, 1, 7]), on_batch)
    }

    /// The first byte of each photo of each batch.
    fn values(source: &TrainingPhotos<'_>, set: Set, indices: Vec<Vec<usize>>) -> Vec<Result<Vec<u8>, SourceError>> {
        let batches = source.batches(set, BatchPlan { crop: Crop::Centre, indices });
        batches.map(|batch| batch.map(|batch| batch.pixels.chunks(48).map(|square| square[0]).collect())).collect()
    }

    #[test]
    fn batches_hold_the_photos_of_their_set_in_the_plans_order() {
        let source = source(|_, _, _| Ok(()));
        assert_eq!(values(&source, Set::Training, vec![vec![2, 0], vec![1]]), [Ok(vec![5, 9]), Ok(vec![8])]);
        assert_eq!(values(&source, Set::Validation, vec![vec![1, 0]]), [Ok(vec![1, 0])]);
    }

    #[test]
    fn a_photo_that_does_not_decode_fails_its_batch_with_the_reason() {
        let source = source(|_, _, _| Ok(()));
        let batches = values(&source, Set::Validation, vec![vec![0], vec![2]]);
        assert_eq!(batches[0], Ok(vec![0]));
        assert!(batches[1].as_ref().expect_err("photo 7 is broken").0.contains(Digest::of(&[7]).as_str()));
        assert!(matches!(source.take_failure(), Some(JobError::Internal(_))));
    }

    #[test]
    fn the_run_can_be_cancelled_before_any_batch() {
        let source =
            source(|_, number, count| if (number, count) == (1, 2) { Err(JobError::Cancelled) } else { Ok(()) });
        let batches = values(&source, Set::Training, vec![vec![0], vec![1]]);
        assert!(batches[0].is_ok() && batches[1].is_err());
        assert!(matches!(source.take_failure(), Some(JobError::Cancelled)));
    }
}
