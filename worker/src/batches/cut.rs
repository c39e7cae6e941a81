//! Cuts the square that a network sees from a photo.

use sortinghat_photos::{
    Photo,
    resize::{fastai_resize, padded, random_resized, squeezed_center},
};
use sortinghat_proto::{Digest, TrainingCrop};

use crate::{
    models::{Framing, Square},
    prediction::batch::Crop,
};

/// Cuts `square` from `photo`, whose original has `digest`; `[size, size, 3]` u8.
pub(super) fn cut(square: Square, photo: &Photo, crop: &Crop, digest: &Digest) -> Vec<u8> {
    let size = square.size as u32;
    match (square.framing, crop.draws(digest)) {
        (Framing::Pad, _) => padded(photo, size),
        (Framing::Crop(TrainingCrop::Resize), None) => fastai_resize(photo, size, (0.5, 0.5)),
        (Framing::Crop(TrainingCrop::Resize), Some(mut draws)) => {
            fastai_resize(photo, size, (draws.uniform(), draws.uniform()))
        }
        (Framing::Crop(TrainingCrop::RandomResized { .. }), None) => squeezed_center(photo, size),
        (Framing::Crop(TrainingCrop::RandomResized { min_scale }), Some(mut draws)) => {
            random_resized(photo, size, min_scale, || draws.uniform())
        }
    }
}
