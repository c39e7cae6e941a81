//! What a network sees of a photo.

use sortinghat_proto::{TrainingCrop, manifest};

/// A square that a network sees of a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Square {
    /// Its side in pixels.
    pub size: usize,
    /// How it is cut.
    pub framing: Framing,
}

/// How a square is cut from a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Framing {
    /// A part of the photo, by the rule of training: at random in training, in the centre otherwise.
    Crop(TrainingCrop),
    /// The whole photo in the middle of a white square.
    Pad,
}

impl From<manifest::View> for Square {
    fn from(view: manifest::View) -> Self {
        let framing = match view.framing {
            manifest::Framing::Crop => Framing::Crop(TrainingCrop::Resize),
            manifest::Framing::Pad => Framing::Pad,
        };
        Self { size: view.size_px as usize, framing }
    }
}
