//! Batches of decoded photos, and how the square of each photo is cut.

use sortinghat_proto::Digest;
use tch::{Device, Kind, TchError, Tensor};

use crate::randomness::{Draws, Phase, Purpose};

/// Decoded square photos, 8-bit RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixelBatch {
    /// `[count, size, size, 3]`, row by row.
    pub pixels: Vec<u8>,
    /// Number of photos.
    pub count: usize,
    /// Side in pixels.
    pub size: usize,
}

impl PixelBatch {
    /// `[count, 3, size, size]` f32 in 0..1 on `device`, laid out as NHWC.
    ///
    /// # Errors
    /// When memory runs out.
    ///
    /// # Panics
    /// When `pixels` does not hold `count * size * size * 3` bytes.
    pub fn to_tensor(&self, device: Device) -> Result<Tensor, TchError> {
        assert_eq!(self.pixels.len(), self.count * self.size * self.size * 3, "a batch holds whole photos");
        let extent = |extent: usize| i64::try_from(extent).expect("extents of a buffer in memory fit");
        let (count, size) = (extent(self.count), extent(self.size));
        let bytes = Tensor::f_from_data_size(&self.pixels, &[count, size, size, 3], Kind::Uint8)?;
        // A view: these strides are NHWC already.
        bytes.f_to_device(device)?.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)
    }
}

/// Whether the square of a photo is cut at the centre or at random. The model's `TrainingCrop` says how exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crop {
    /// At the centre, as for a prediction.
    Centre,
    /// At random, in a way that depends on the photo's digest.
    Random {
        /// The run's seed.
        seed: u64,
        /// The phase.
        phase: Phase,
        /// The epoch in its phase, or the pass of test-time augmentation.
        epoch: u32,
    },
}

impl Crop {
    /// The draws for the photo of this digest, if any.
    #[must_use]
    pub fn draws(&self, digest: &Digest) -> Option<Draws> {
        match *self {
            Self::Centre => None,
            Self::Random { seed, phase, epoch } => Some(Draws::photo(seed, Purpose::Crop, phase, epoch, digest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_channels_in_0_to_1_without_moving() {
        let batch = PixelBatch { pixels: vec![0, 51, 102, 153, 204, 255, 1, 2, 3, 4, 5, 6], count: 1, size: 2 };
        let tensor = batch.to_tensor(Device::Cpu).unwrap();
        assert_eq!(tensor.size(), [1, 3, 2, 2]);
        assert!((tensor.double_value(&[0, 1, 0, 0]) - 0.2).abs() < 1e-7);
        assert!((tensor.double_value(&[0, 2, 0, 1]) - 1.0).abs() < 1e-7);
        assert!(crate::aten::is_channels_last(&tensor).unwrap());
    }

    #[test]
    fn random_crops_differ_by_photo_and_epoch_and_the_centre_has_none() {
        let first = |epoch, digest: &Digest| {
            Crop::Random { seed: 1, phase: Phase::Frozen, epoch }.draws(digest).map(|mut draws| draws.bits())
        };
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        assert_ne!(first(0, &one), first(1, &one));
        assert_ne!(first(0, &one), first(0, &other));
        assert_eq!(first(0, &one), first(0, &one));
        assert!(Crop::Centre.draws(&one).is_none());
    }
}
