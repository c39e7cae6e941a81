//! Cuts the square that a network sees from a photo.

use sortinghat_photos::{
    Photo,
    resize::{fastai_resize, random_resized, squeezed_center},
};
use sortinghat_proto::{Digest, TrainingCrop};

use crate::prediction::batch::Crop;

/// The square that a network sees of a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Square {
    /// Its side in pixels.
    pub size: usize,
    /// How it is cut.
    pub rule: TrainingCrop,
}

impl Square {
    /// Cuts it from `photo`, whose original has `digest`; `[size, size, 3]` u8.
    pub fn cut(&self, photo: &Photo, crop: &Crop, digest: &Digest) -> Vec<u8> {
        let size = self.size as u32;
        match (self.rule, crop.draws(digest)) {
            (TrainingCrop::Resize, None) => fastai_resize(photo, size, (0.5, 0.5)),
            (TrainingCrop::Resize, Some(mut draws)) => fastai_resize(photo, size, (draws.uniform(), draws.uniform())),
            (TrainingCrop::RandomResized { .. }, None) => squeezed_center(photo, size),
            (TrainingCrop::RandomResized { min_scale }, Some(mut draws)) => {
                random_resized(photo, size, min_scale, || draws.uniform())
            }
        }
    }
}
