//! The views of photos that a prediction needs: the plain one, and one for each pass of test-time augmentation.

use std::sync::Arc;

use sortinghat_photos::DecodeError;
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
};

/// The most photos that are predicted at a time.
const MAX_PHOTOS: usize = 64;
/// The most bytes that the pixels of all views of a batch may have. With the batches that wait, four times as much is in memory.
const MAX_BYTES: usize = 96 << 20;

/// How photos are to be seen.
#[derive(Debug, Clone)]
pub struct ViewPlan {
    /// What is seen of each photo without augmentation; at least one square.
    pub squares: Vec<Square>,
    /// The crops of the augmented passes, which see the first square; none without test-time augmentation.
    pub passes: Vec<Crop>,
}

/// Why a photo is not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// The reason, for people.
    pub why: String,
    /// The file has more bytes or pixels than are allowed.
    pub is_over_limit: bool,
}

impl From<DecodeError> for Unseen {
    fn from(error: DecodeError) -> Self {
        let is_over_limit = matches!(error, DecodeError::TooManyBytes { .. } | DecodeError::TooManyPixels { .. });
        Self { why: error.to_string(), is_over_limit }
    }
}

/// Some consecutive photos, each seen in every square and by every augmented pass.
#[derive(Debug)]
pub struct Views {
    /// For each photo, in order: that it is in the batches below, or why it is not.
    pub outcomes: Vec<Result<(), Unseen>>,
    /// Digests of the photos that could be decoded, in order.
    pub digests: Vec<Digest>,
    /// These photos, seen in each square.
    pub plain: Vec<PixelBatch>,
    /// The crops of these photos for each augmented pass.
    pub augmented: Vec<PixelBatch>,
}

impl ViewPlan {
    /// Every square that is cut from a photo, and how: first those without augmentation.
    fn cuts(&self) -> impl Iterator<Item = (Square, Crop)> {
        let plain = self.squares.iter().map(|square| (*square, Crop::Centre));
        plain.chain(self.passes.iter().map(|pass| (self.squares[0], *pass)))
    }

    /// Photos in one batch.
    fn photos(&self) -> usize {
        let bytes_of_one: usize = self.cuts().map(|(square, _)| square.size * square.size * 3).sum();
        (MAX_BYTES / bytes_of_one.max(1)).clamp(1, MAX_PHOTOS)
    }
}

/// The views of all photos of a gallery in order, decoded ahead; every photo is decoded once for all its views.
///
/// An item is an error if a photo could not be fetched. That a photo cannot be decoded is one of the item's outcomes.
pub fn views(
    gallery: Arc<Gallery>,
    digests: Vec<Digest>,
    plan: ViewPlan,
) -> impl Iterator<Item = Result<Views, JobError>> {
    let all: Vec<usize> = (0..gallery.len()).collect();
    let batches: Vec<Vec<usize>> = all.chunks(plan.photos()).map(<[usize]>::to_vec).collect();
    Ahead::new(2, batches.len(), move |number| batch(&gallery, &digests, &batches[number], &plan))
}

fn batch(gallery: &Gallery, digests: &[Digest], numbers: &[usize], plan: &ViewPlan) -> Result<Views, JobError> {
    let cuts: Vec<(Square, Crop)> = plan.cuts().collect();
    let squares = gallery.map(numbers, |number| {
        let photo = gallery.photo(number)?;
        let cut = |(square, crop): &(Square, Crop)| cut(*square, &photo, crop, &digests[number]);
        Ok::<_, Unreadable>(cuts.iter().map(cut).collect::<Vec<_>>())
    });
    let mut pixels = vec![Vec::new(); cuts.len()];
    let (mut outcomes, mut decoded) = (Vec::with_capacity(numbers.len()), Vec::with_capacity(numbers.len()));
    for (squares, &number) in squares.into_iter().zip(numbers) {
        match squares {
            Ok(squares) => {
                for (pixels, square) in pixels.iter_mut().zip(squares) {
                    pixels.extend(square);
                }
                decoded.push(digests[number].clone());
                outcomes.push(Ok(()));
            }
            Err(Unreadable::Undecodable(error)) => outcomes.push(Err(error.into())),
            Err(Unreadable::Unread(why)) => outcomes.push(Err(Unseen { why, is_over_limit: false })),
            Err(Unreadable::Failed(error)) => return Err(error),
        }
    }
    let count = decoded.len();
    let batch = |(pixels, (square, _)): (Vec<u8>, &(Square, Crop))| PixelBatch { pixels, count, size: square.size };
    let mut plain: Vec<PixelBatch> = pixels.into_iter().zip(&cuts).map(batch).collect();
    let augmented = plain.split_off(plan.squares.len());
    Ok(Views { outcomes, digests: decoded, plain, augmented })
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::TrainingCrop;

    use super::super::gallery::tests::Plain;
    use super::*;
    use crate::{models::Framing, randomness::Phase};

    fn square(size: usize) -> Square {
        Square { size, framing: Framing::Crop(TrainingCrop::Resize) }
    }

    fn digests() -> Vec<Digest> {
        (0..10).map(|index| Digest::of(&[index])).collect()
    }

    #[test]
    fn a_broken_photo_is_an_outcome_and_the_others_keep_their_order() {
        let gallery = Gallery::new(Box::new(Plain::default()), 0);
        let passes = vec![Crop::Random { seed: 1, phase: Phase::TestTime, epoch: 0 }; 2];
        let batches: Vec<Views> = views(gallery, digests(), ViewPlan { squares: vec![square(4)], passes })
            .collect::<Result<_, _>>()
            .expect("readable");
        let [views] = batches.as_slice() else { panic!("ten small photos are one batch") };
        let broken: Vec<bool> = views.outcomes.iter().map(Result::is_err).collect();
        assert_eq!(broken, (0..10).map(|index| index == 7).collect::<Vec<_>>());
        for batch in views.plain.iter().chain(&views.augmented) {
            let values: Vec<u8> = batch.pixels.chunks(48).map(|square| square[0]).collect();
            assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 8, 9]);
        }
        assert_eq!(views.digests.last(), Some(&Digest::of(&[9])));
    }

    #[test]
    fn many_large_views_make_small_batches() {
        let plan = |size, passes| ViewPlan { squares: vec![square(size)], passes: vec![Crop::Centre; passes] };
        assert_eq!(plan(224, 0).photos(), 64);
        assert_eq!(plan(224, 4).photos(), 64);
        assert_eq!(plan(1024, 32).photos(), 1);
    }

    #[test]
    fn a_photo_is_seen_in_every_square_and_every_pass_sees_the_first() {
        let gallery = Gallery::new(Box::new(Plain::default()), 0);
        let pad = Square { size: 6, framing: Framing::Pad };
        let passes = vec![Crop::Random { seed: 1, phase: Phase::TestTime, epoch: 0 }];
        let plan = ViewPlan { squares: vec![square(4), pad], passes };
        let seen = views(gallery, digests(), plan).next().expect("a batch").expect("readable");
        assert_eq!(seen.plain.iter().map(|batch| batch.size).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(seen.augmented.iter().map(|batch| batch.size).collect::<Vec<_>>(), [4]);
        assert!(seen.plain.iter().chain(&seen.augmented).all(|batch| batch.count == 9));
    }
}
