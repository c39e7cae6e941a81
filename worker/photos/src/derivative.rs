//! The picture that a dataset stores: lossless, upright, small enough to be read every epoch, never enlarged.

use ::png::{BitDepth, ColorType, Compression, Encoder};

use super::{
    format::ImageFormat,
    photo::Photo,
    png,
    resize::{CropBox, Kernel, crop_resize},
};

/// The short side, in pixels, to which larger photos are reduced unless a job says otherwise.
pub const DEFAULT_SHORT_SIDE: u32 = 512;

/// An encoded picture and its sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivative {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The encoded file.
    pub bytes: Vec<u8>,
    /// The format of `bytes`.
    pub format: ImageFormat,
    /// Whether the original was not stored only because a strict reader does not open it.
    pub is_mended: bool,
}

/// Makes the stored picture of `photo`, which was decoded from `original`.
///
/// A photo whose short side exceeds `short_side` is reduced with Lanczos and stored as PNG. A smaller photo keeps its
/// pixels exactly. A JPEG or PNG to which nothing was done is stored as its original bytes, in which every reader sees the same
/// opaque, upright picture. Any other small photo is stored as PNG, among them one that only a lenient reader opens.
pub fn derivative(photo: &Photo, original: &[u8], short_side: u32) -> Derivative {
    if let Some((width, height)) = reduced_sides(photo, short_side) {
        let whole = CropBox::whole(photo.width, photo.height);
        let pixels = crop_resize(photo, whole, width, height, Kernel::Lanczos);
        let bytes = encode_png(width, height, &pixels);
        return Derivative { width, height, bytes, format: ImageFormat::Png, is_mended: false };
    }
    let (width, height) = (photo.width, photo.height);
    let may_be_kept = matches!(photo.format, ImageFormat::Jpeg | ImageFormat::Png)
        && photo.notes.iter().all(|note| note.keeps_original());
    let is_mended = may_be_kept && photo.format == ImageFormat::Png && !png::is_sound(original);
    if may_be_kept && !is_mended {
        return Derivative { width, height, bytes: original.to_vec(), format: photo.format, is_mended };
    }
    let bytes = encode_png(width, height, &photo.pixels);
    Derivative { width, height, bytes, format: ImageFormat::Png, is_mended }
}

/// The pixels of `photo`'s derivative: what a dataset would give back for it.
pub fn reduced(photo: Photo, short_side: u32) -> Photo {
    let Some((width, height)) = reduced_sides(&photo, short_side) else { return photo };
    let whole = CropBox::whole(photo.width, photo.height);
    let pixels = crop_resize(&photo, whole, width, height, Kernel::Lanczos);
    Photo { width, height, pixels, ..photo }
}

/// The sides after reduction, rounded to the nearest; `None` if the photo is small enough.
fn reduced_sides(photo: &Photo, short_side: u32) -> Option<(u32, u32)> {
    let short = photo.width.min(photo.height);
    if short <= short_side {
        return None;
    }
    let scaled =
        |side: u32| ((u64::from(side) * u64::from(short_side) + u64::from(short) / 2) / u64::from(short)) as u32;
    Some((scaled(photo.width), scaled(photo.height)))
}

/// Encodes `[height, width, 3]` u8 as PNG; prefers speed to a small file.
pub fn encode_png(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rgb.len() / 2 + 1024);
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header().expect("memory takes every write");
    writer.write_image_data(rgb).expect("three bytes a pixel, and memory takes every write");
    writer.finish().expect("memory takes every write");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeLimits, Note, decode};

    fn photo(width: u32, height: u32) -> Photo {
        let pixels = (0..width * height * 3).map(|index| (index * 7 % 251) as u8).collect();
        Photo { width, height, pixels, format: ImageFormat::Gif, notes: Vec::new() }
    }

    #[test]
    fn a_small_photo_keeps_every_pixel() {
        let small = photo(40, 30);
        let derivative = derivative(&small, b"unused: a GIF is stored anew", 30);
        let read = decode(&derivative.bytes, &DecodeLimits::default()).expect("our own PNG");
        assert_eq!((read.width, read.height, read.pixels), (40, 30, small.pixels));
    }

    #[test]
    fn an_untouched_png_is_stored_as_it_came() {
        let bytes = encode_png(5, 4, &photo(5, 4).pixels);
        let read = decode(&bytes, &DecodeLimits::default()).expect("our own PNG");
        assert_eq!(derivative(&read, &bytes, 512).bytes, bytes);
        let turned = Photo { notes: vec![Note::TurnedUpright], ..read };
        assert_ne!(derivative(&turned, b"sideways", 512).bytes, b"sideways");
    }

    #[test]
    fn a_large_photo_is_reduced_to_the_short_side() {
        let reduced = derivative(&photo(90, 61), b"", 30);
        assert_eq!((reduced.width, reduced.height, reduced.format), (44, 30, ImageFormat::Png));
    }

    #[test]
    fn the_reduced_pixels_are_those_of_the_stored_picture() {
        for sides in [(90, 61), (20, 20)] {
            let original = photo(sides.0, sides.1);
            let stored = decode(&derivative(&original, b"", 30).bytes, &DecodeLimits::default()).expect("our own PNG");
            assert_eq!(super::reduced(original, 30).pixels, stored.pixels);
        }
    }
}
