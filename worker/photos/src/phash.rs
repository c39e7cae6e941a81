//! Fingerprints by which near-duplicates are found: a perceptual hash and a tiny picture.
//!
//! The hash is the classic one: 32 x 32 grey values, their discrete cosine transform, and one bit for each of 64 low
//! frequencies that says whether it lies above their median. Icons on a white ground have similar hashes. So a second feature must
//! agree: a 12 x 12 colour thumbnail, compared relative to its contrast.
//!
//! A mirror image counts as a near-duplicate too: training flips pictures, so the model would already know the mirror image of a
//! photo that it has learned from.

use std::f32::consts::PI;

use serde::{Deserialize, Serialize};

use super::{
    photo::Photo,
    resize::{CropBox, Kernel, crop_resize},
};

const HASH_SIDE: usize = 32;
const FREQUENCIES: usize = 8;
/// Side of the thumbnail, in pixels.
const THUMB_SIDE: usize = 12;
/// Bytes of the thumbnail, `[12, 12, 3]` u8.
pub const THUMB_BYTES: usize = THUMB_SIDE * THUMB_SIDE * 3;

/// Hashes that differ in more bits are of different pictures.
pub const MAX_HASH_DISTANCE: u32 = 10;
/// Thumbnails whose difference exceeds this part of their contrast are of different pictures.
const MAX_RELATIVE_DIFFERENCE: f32 = 0.25;
/// The least contrast, in grey levels, that a thumbnail counts as having, so that noise on a plain ground makes no difference.
const LEAST_CONTRAST: f32 = 4.0;
/// Aspect ratios (long side over short side, signed by direction) that differ by a larger factor are different pictures.
const MAX_ASPECT_FACTOR: f32 = 1.1;

/// What is remembered of a photo to recognise its near-duplicates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The perceptual hash.
    pub hash: u64,
    /// The perceptual hash of the mirror image.
    pub mirrored_hash: u64,
    /// The whole photo squeezed to `[12, 12, 3]` u8.
    #[serde(with = "hexadecimal")]
    pub thumb: [u8; THUMB_BYTES],
    /// Width over height.
    pub aspect: f32,
}

impl Fingerprint {
    /// Computes the fingerprint.
    pub fn of(photo: &Photo) -> Self {
        let coefficients = low_frequencies(&squeezed(photo, HASH_SIDE));
        let mut mirrored = coefficients;
        for (index, coefficient) in mirrored.iter_mut().enumerate() {
            if is_odd_across(index) {
                *coefficient = -*coefficient;
            }
        }
        let mut thumb = [0; THUMB_BYTES];
        thumb.copy_from_slice(&squeezed(photo, THUMB_SIDE));
        let aspect = photo.width as f32 / photo.height as f32;
        Self { hash: above_median(&coefficients), mirrored_hash: above_median(&mirrored), thumb, aspect }
    }

    /// Whether two photos show the same picture or its mirror image: all of hash, shape and thumbnail must agree.
    pub fn is_near(&self, other: &Self) -> bool {
        // The hash is compared first, because it rejects nearly every pair.
        let agree = |hash: u64, facing: Facing| {
            (hash ^ other.hash).count_ones() <= MAX_HASH_DISTANCE
                && self.is_shaped_like(other)
                && self.relative_difference(other, facing) <= MAX_RELATIVE_DIFFERENCE
        };
        agree(self.hash, Facing::Same) || agree(self.mirrored_hash, Facing::Mirrored)
    }

    fn is_shaped_like(&self, other: &Self) -> bool {
        (self.aspect / other.aspect).max(other.aspect / self.aspect) <= MAX_ASPECT_FACTOR
    }

    /// Mean absolute difference of the thumbnails over the smaller of their contrasts.
    fn relative_difference(&self, other: &Self, facing: Facing) -> f32 {
        let (own, others) = (self.thumb.as_chunks::<3>().0, other.thumb.as_chunks::<3>().0);
        let difference: u32 = own
            .iter()
            .enumerate()
            .map(|(index, pixel)| (pixel, others[facing.index(index)]))
            .map(|(a, b)| (0..3).map(|channel| u32::from(a[channel].abs_diff(b[channel]))).sum::<u32>())
            .sum();
        let contrast = self.contrast().min(other.contrast()).max(LEAST_CONTRAST);
        difference as f32 / THUMB_BYTES as f32 / contrast
    }

    /// Mean absolute deviation of the thumbnail from its mean colour, in grey levels.
    fn contrast(&self) -> f32 {
        let mut sums = [0u32; 3];
        for pixel in self.thumb.as_chunks::<3>().0 {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += u32::from(*value);
            }
        }
        let means = sums.map(|sum| sum as f32 / (THUMB_SIDE * THUMB_SIDE) as f32);
        let pixels = self.thumb.as_chunks::<3>().0;
        let deviation: f32 = pixels
            .iter()
            .flat_map(|pixel| pixel.iter().zip(means))
            .map(|(value, mean)| (f32::from(*value) - mean).abs())
            .sum();
        deviation / THUMB_BYTES as f32
    }
}

/// The thumbnail as text.
mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::THUMB_BYTES;

    pub(super) fn serialize<S: Serializer>(thumb: &[u8; THUMB_BYTES], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(thumb))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; THUMB_BYTES], D::Error> {
        let mut thumb = [0; THUMB_BYTES];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut thumb).map_err(D::Error::custom)?;
        Ok(thumb)
    }
}

/// How two thumbnails are laid upon each other.
#[derive(Clone, Copy)]
enum Facing {
    Same,
    Mirrored,
}

impl Facing {
    /// The pixel of the other thumbnail that lies under pixel `index`.
    fn index(self, index: usize) -> usize {
        match self {
            Self::Same => index,
            Self::Mirrored => index / THUMB_SIDE * THUMB_SIDE + THUMB_SIDE - 1 - index % THUMB_SIDE,
        }
    }
}

/// The whole photo at `side` x `side`, whatever its shape.
fn squeezed(photo: &Photo, side: usize) -> Vec<u8> {
    let whole = CropBox::whole(photo.width, photo.height);
    crop_resize(photo, whole, side as u32, side as u32, Kernel::Bilinear)
}

/// The frequencies 1 to 8 down and across of `[32, 32, 3]` u8, across running fastest.
fn low_frequencies(rgb: &[u8]) -> [f32; FREQUENCIES * FREQUENCIES] {
    let grey: Vec<f32> = rgb.as_chunks::<3>().0.iter().map(luma).collect();
    let cosines = cosines();
    let mut rows = [[0f32; FREQUENCIES]; HASH_SIDE];
    for (row, values) in rows.iter_mut().zip(grey.chunks_exact(HASH_SIDE)) {
        for (coefficient, cosine) in row.iter_mut().zip(&cosines) {
            *coefficient = values.iter().zip(cosine).map(|(value, cosine)| value * cosine).sum();
        }
    }
    let mut coefficients = [0f32; FREQUENCIES * FREQUENCIES];
    for (index, coefficient) in coefficients.iter_mut().enumerate() {
        let (down, across) = (index / FREQUENCIES, index % FREQUENCIES);
        *coefficient = rows.iter().zip(&cosines[down]).map(|(row, cosine)| row[across] * cosine).sum();
    }
    coefficients
}

/// Whether the coefficient changes its sign when the picture is mirrored left to right.
fn is_odd_across(index: usize) -> bool {
    (index % FREQUENCIES + 1) % 2 == 1
}

fn above_median(coefficients: &[f32; FREQUENCIES * FREQUENCIES]) -> u64 {
    let mut sorted = *coefficients;
    sorted.sort_unstable_by(f32::total_cmp);
    let median = (sorted[31] + sorted[32]) / 2.0;
    coefficients.iter().enumerate().map(|(bit, value)| u64::from(*value > median) << bit).sum()
}

/// Rec. 601 luma, 0..=255.
fn luma(pixel: &[u8; 3]) -> f32 {
    0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])
}

/// Row `k` is `cos(pi * (k + 1) * (2 x + 1) / 64)`: the frequencies 1 to 8, without the constant one.
fn cosines() -> [[f32; HASH_SIDE]; FREQUENCIES] {
    let mut table = [[0.0; HASH_SIDE]; FREQUENCIES];
    for (frequency, row) in table.iter_mut().enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            *value = (PI * (frequency + 1) as f32 * (2 * x + 1) as f32 / (2 * HASH_SIDE) as f32).cos();
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageFormat;

    /// A picture drawn by a function of (x, y) in 0..1.
    fn drawn(width: u32, height: u32, draw: impl Fn(f32, f32) -> [u8; 3]) -> Photo {
        let at = |index: u32, side: u32| (index as f32 + 0.5) / side as f32;
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| draw(at(x, width), at(y, height)));
        Photo { width, height, pixels: pixels.collect(), format: ImageFormat::Png, notes: Vec::new() }
    }

    fn disc(center_x: f32, color: [u8; 3]) -> impl Fn(f32, f32) -> [u8; 3] {
        move |x, y| if (x - center_x).hypot(y - 0.4) < 0.25 { color } else { [255; 3] }
    }

    fn near(a: &Photo, b: &Photo) -> bool {
        Fingerprint::of(a).is_near(&Fingerprint::of(b))
    }

    #[test]
    fn another_size_of_the_same_picture_is_near() {
        let draw = disc(0.3, [200, 30, 30]);
        assert!(near(&drawn(300, 200, &draw), &drawn(120, 80, &draw)));
    }

    #[test]
    fn the_mirror_image_is_near() {
        assert!(near(&drawn(200, 200, disc(0.3, [200, 30, 30])), &drawn(200, 200, disc(0.7, [200, 30, 30]))));
    }

    #[test]
    fn the_same_shape_in_another_colour_is_another_picture() {
        assert!(!near(&drawn(200, 200, disc(0.3, [200, 30, 30])), &drawn(200, 200, disc(0.3, [30, 30, 200]))));
    }

    #[test]
    fn the_same_shape_in_another_format_is_another_picture() {
        let draw = disc(0.5, [0, 0, 0]);
        assert!(!near(&drawn(200, 200, &draw), &drawn(200, 100, &draw)));
    }

    #[test]
    fn plain_grounds_of_different_colours_are_different_pictures() {
        assert!(!near(&drawn(50, 50, |_, _| [255; 3]), &drawn(50, 50, |_, _| [225; 3])));
        assert!(near(&drawn(50, 50, |_, _| [255; 3]), &drawn(70, 70, |_, _| [255; 3])));
    }
}
