//! The pictures of a report, reduced and embedded.

use std::{collections::HashMap, io::Cursor};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};
use sortinghat_photos::{
    Photo,
    resize::{CropBox, Kernel, crop_resize},
};
use sortinghat_proto::Digest;

/// The longer side of an embedded picture in pixels, by how many pictures the page has at most. Few pictures can be large, so that one
/// opens in full, and together they stay within [`MAX_BYTES`].
const SIDES_PX: [(usize, u32); 3] = [(64, 768), (160, 512), (usize::MAX, 256)];
/// JPEG quality of an embedded picture: the file is small, and one can still see what the photo shows.
const QUALITY: u8 = 80;
/// The most bytes that all embedded pictures have together, as `data:` URIs: a browser opens so many without effort.
const MAX_BYTES: usize = 12 << 20;

/// The pictures that a report shows, by photo, as `data:` URIs.
#[derive(Debug)]
pub struct Pictures {
    by_photo: HashMap<Digest, String>,
    bytes: usize,
    side_px: u32,
}

impl Pictures {
    /// No pictures yet, and room for `count` of them.
    pub fn new(count: usize) -> Self {
        let (_, side_px) = *SIDES_PX.iter().find(|(most, _)| count <= *most).expect("the last bound admits any count");
        Self { by_photo: HashMap::new(), bytes: 0, side_px }
    }

    /// Embeds a photo, reduced; returns whether there was still room for it.
    pub fn add(&mut self, digest: Digest, photo: &Photo) -> bool {
        if self.is_full() {
            return false;
        }
        if self.by_photo.contains_key(&digest) {
            return true;
        }
        let uri = format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(reduced(photo, self.side_px)));
        self.bytes += uri.len();
        self.by_photo.insert(digest, uri);
        true
    }

    /// Whether no further picture will be embedded.
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// The picture of a photo; empty if it was not embedded.
    pub(super) fn of(&self, digest: &Digest) -> &str {
        self.by_photo.get(digest).map_or("", String::as_str)
    }
}

/// A JPEG of at most `side_px` on the longer side; never enlarged.
fn reduced(photo: &Photo, side_px: u32) -> Vec<u8> {
    let longer = photo.width.max(photo.height);
    let side = |side: u32| match longer > side_px {
        true => (u64::from(side) * u64::from(side_px) / u64::from(longer)).max(1) as u32,
        false => side,
    };
    let (width, height) = (side(photo.width), side(photo.height));
    let pixels = crop_resize(photo, CropBox::whole(photo.width, photo.height), width, height, Kernel::Lanczos);
    let mut jpeg = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .expect("memory takes every write, and JPEG holds 768 x 768 pixels");
    jpeg.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sortinghat_photos::{DecodeLimits, ImageFormat, decode};

    fn photo(width: u32, height: u32) -> Photo {
        let pixels = vec![90; (width * height * 3) as usize];
        Photo { width, height, pixels, format: ImageFormat::Png, notes: Vec::new() }
    }

    #[test]
    fn a_picture_is_reduced_in_proportion_and_never_enlarged() {
        for (sides, expected) in [((1000, 500), (256, 128)), ((20, 10), (20, 10)), ((3000, 1), (256, 1))] {
            let jpeg = reduced(&photo(sides.0, sides.1), 256);
            let read = decode(&jpeg, &DecodeLimits::default()).expect("our own JPEG");
            assert_eq!((read.width, read.height), expected);
        }
    }

    #[test]
    fn few_pictures_are_large_and_many_are_small() {
        let side = |count| Pictures::new(count).side_px;
        assert_eq!([side(0), side(64), side(65), side(161), side(100_000)], [768, 768, 512, 256, 256]);
    }
}
