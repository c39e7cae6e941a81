//! Resizing as the training recipes define it: fastai's crop, and the short-side resize of ImageNet checks.
//!
//! Filters are antialiased and follow Pillow's kernels and order of passes. Values differ from Pillow's by at most 1 of 255,
//! because weights have 15 bits here and 22 there.

use std::borrow::Cow;

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};

use super::photo::Photo;

/// The part of a photo that is kept, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl CropBox {
    /// fastai's `Resize(size, method=Crop)`: the largest square, at the offset `(x, y)` in `0..=1`, where `(0.5, 0.5)` is
    /// the centre of validation and training draws both uniformly. Rounding is fastai's, towards zero.
    pub fn fastai_square(width: u32, height: u32, size: u32, offset: (f64, f64)) -> Self {
        let (w, h, s) = (f64::from(width), f64::from(height), f64::from(size));
        let scale = if w / s < h / s { w / s } else { h / s };
        let side = ((scale * s) as u32).max(1);
        let left = (offset.0 * f64::from(width - side)) as u32;
        let top = (offset.1 * f64::from(height - side)) as u32;
        Self { left, top, width: side, height: side }
    }

    /// fastai's `RandomResizedCrop` of at least `min_scale` of the area: `uniform` gives draws in [0, 1). After ten tries that
    /// do not fit it is the centre, cut to an aspect of 3:4 or 4:3.
    pub fn random_resized(width: u32, height: u32, min_scale: f64, mut uniform: impl FnMut() -> f64) -> Self {
        const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
        let (w, h) = (f64::from(width), f64::from(height));
        for _ in 0..10 {
            let area = (min_scale + (1.0 - min_scale) * uniform()) * w * h;
            let aspect = (ASPECT.0.ln() + (ASPECT.1.ln() - ASPECT.0.ln()) * uniform()).exp();
            let side = |square: f64| square.sqrt().round_ties_even() as u32;
            let (crop_width, crop_height) = (side(area * aspect).max(1), side(area / aspect).max(1));
            if crop_width <= width && crop_height <= height {
                let mut place = |free: u32| (uniform() * f64::from(free + 1)) as u32;
                let (left, top) = (place(width - crop_width), place(height - crop_height));
                return Self { left, top, width: crop_width, height: crop_height };
            }
        }
        let (crop_width, crop_height) = if w / h < ASPECT.0 {
            (width, (w / ASPECT.0) as u32)
        } else if w / h > ASPECT.1 {
            ((h * ASPECT.1) as u32, height)
        } else {
            (width, height)
        };
        let (left, top) = ((width - crop_width) / 2, (height - crop_height) / 2);
        Self { left, top, width: crop_width, height: crop_height }
    }

    /// The whole photo.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// torchvision's `CenterCrop(side)`: margins are halved and rounded to the nearest even number.
    fn center(width: u32, height: u32, side: u32) -> Self {
        let margin = |length: u32| (f64::from(length - side) / 2.0).round_ties_even() as u32;
        Self { left: margin(width), top: margin(height), width: side, height: side }
    }
}

/// The resampling kernels that recipes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Antialiased bilinear (a triangle).
    Bilinear,
    /// Antialiased bicubic with a = -0.5.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

impl Kernel {
    fn filter(self) -> FilterType {
        match self {
            Self::Bilinear => FilterType::Bilinear,
            Self::Bicubic => FilterType::CatmullRom,
            Self::Lanczos => FilterType::Lanczos3,
        }
    }
}

/// Crops, then resizes to `width` x `height`; returns `[height, width, 3]` u8. The kernel sees nothing outside the box, as
/// in fastai, where the crop is made first.
///
/// # Panics
/// If the box is not inside the photo or a target side is zero.
pub fn crop_resize(photo: &Photo, crop: CropBox, width: u32, height: u32, kernel: Kernel) -> Vec<u8> {
    let cropped = cropped(photo, crop);
    if (crop.width, crop.height) == (width, height) {
        return cropped.into_owned();
    }
    // Each pass rounds to 8 bits and cuts what the kernel overshoots, so in pictures with hard edges the order of the passes shows.
    let middle = if goes_down_first(crop, width, height) { (crop.width, height) } else { (width, crop.height) };
    let once = resized(&cropped, (crop.width, crop.height), middle, kernel);
    resized(&once, middle, (width, height), kernel)
}

/// Whether Pillow (13.0, `ImagingResampleInner`) resizes the columns before the rows. It does where the
/// number of rows shrinks by much more than the number of columns.
fn goes_down_first(crop: CropBox, width: u32, height: u32) -> bool {
    let (fewer_rows, fewer_columns) =
        (i64::from(crop.height) - i64::from(height), i64::from(crop.width) - i64::from(width));
    fewer_rows > 0 && fewer_rows > 2 * fewer_columns
}

/// Resizes pixels from one width and height to another. The pixel type is fixed here, because the code for all pixel types takes
/// minutes to compile.
fn resized(pixels: &[u8], from: (u32, u32), to: (u32, u32), kernel: Kernel) -> Vec<u8> {
    const WHOLE: &str = "three bytes a pixel";
    let mut resized = vec![0; 3 * to.0 as usize * to.1 as usize];
    let source = TypedImageRef::<U8x3>::from_buffer(from.0, from.1, pixels).expect(WHOLE);
    let mut target = TypedImage::<U8x3>::from_buffer(to.0, to.1, &mut resized).expect(WHOLE);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(kernel.filter()));
    Resizer::new().resize_typed(&source, &mut target, &options).expect("neither is empty");
    resized
}

/// fastai's `Resize(size)`: crop at `offset`, then antialiased bilinear to `size` x `size`; `[size, size, 3]` u8.
pub fn fastai_resize(photo: &Photo, size: u32, offset: (f64, f64)) -> Vec<u8> {
    let crop = CropBox::fastai_square(photo.width, photo.height, size, offset);
    crop_resize(photo, crop, size, size, Kernel::Bilinear)
}

/// fastai's `RandomResizedCrop(size, min_scale)` in training; see [`CropBox::random_resized`]. `[size, size, 3]` u8.
pub fn random_resized(photo: &Photo, size: u32, min_scale: f64, uniform: impl FnMut() -> f64) -> Vec<u8> {
    let crop = CropBox::random_resized(photo.width, photo.height, min_scale, uniform);
    crop_resize(photo, crop, size, size, Kernel::Bilinear)
}

/// fastai's `RandomResizedCrop(size)` in validation: the photo squeezed into a square 14% larger, in steps of 8 pixels, and its
/// centre; `[size, size, 3]` u8.
pub fn squeezed_center(photo: &Photo, size: u32) -> Vec<u8> {
    let larger = size + (f64::from(size) * 0.14 / 8.0).ceil() as u32 * 8;
    let whole = CropBox::whole(photo.width, photo.height);
    let pixels = crop_resize(photo, whole, larger, larger, Kernel::Bilinear);
    let squeezed = Photo { width: larger, height: larger, pixels, format: photo.format, notes: Vec::new() };
    cropped(&squeezed, CropBox::center(larger, larger, size)).into_owned()
}

/// The whole photo in the middle of a white square, resized to `size` x `size` with the antialiased bilinear kernel; `[size, size, 3]`
/// u8. An odd pixel of margin is at the right or at the bottom.
pub fn padded(photo: &Photo, size: u32) -> Vec<u8> {
    let side = photo.width.max(photo.height);
    if photo.width == photo.height {
        return crop_resize(photo, CropBox::whole(side, side), size, size, Kernel::Bilinear);
    }
    let (left, top) = ((side - photo.width) as usize / 2, (side - photo.height) as usize / 2);
    let (row_bytes, side_bytes) = (photo.width as usize * 3, side as usize * 3);
    let mut pixels = vec![255; side_bytes * side as usize];
    for (row, source) in photo.pixels.chunks_exact(row_bytes).enumerate() {
        pixels[(top + row) * side_bytes + left * 3..][..row_bytes].copy_from_slice(source);
    }
    let square = Photo { width: side, height: side, pixels, format: photo.format, notes: Vec::new() };
    crop_resize(&square, CropBox::whole(side, side), size, size, Kernel::Bilinear)
}

/// The ImageNet check: short side to `resize` with bicubic, then the centre `crop` x `crop`; `[crop, crop, 3]` u8.
///
/// # Panics
/// If `crop` exceeds `resize`.
pub fn imagenet_center(photo: &Photo, resize: u32, crop: u32) -> Vec<u8> {
    let (width, height) = short_side_to(photo.width, photo.height, resize);
    let whole = CropBox::whole(photo.width, photo.height);
    let pixels = crop_resize(photo, whole, width, height, Kernel::Bicubic);
    let resized = Photo { width, height, pixels, format: photo.format, notes: Vec::new() };
    cropped(&resized, CropBox::center(width, height, crop)).into_owned()
}

/// Sides with the shorter one equal to `short`, the longer one rounded down, as torchvision does.
fn short_side_to(width: u32, height: u32, short: u32) -> (u32, u32) {
    let longer = |long: u32, of: u32| (u64::from(short) * u64::from(long) / u64::from(of)) as u32;
    if width <= height { (short, longer(height, width)) } else { (longer(width, height), short) }
}

fn cropped(photo: &Photo, crop: CropBox) -> Cow<'_, [u8]> {
    if (crop.width, crop.height) == (photo.width, photo.height) {
        return Cow::Borrowed(&photo.pixels);
    }
    let (stride, row_bytes) = (photo.width as usize * 3, crop.width as usize * 3);
    let mut pixels = Vec::with_capacity(row_bytes * crop.height as usize);
    for row in crop.top as usize..(crop.top + crop.height) as usize {
        let start = row * stride + crop.left as usize * 3;
        pixels.extend_from_slice(&photo.pixels[start..start + row_bytes]);
    }
    Cow::Owned(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageFormat;

    #[test]
    fn the_validation_crop_is_fastais() {
        // Width, height, size, side, left, top: `resize_crop_valid` of the fastai 2.8 reference values.
        let golden = [
            (640, 480, 224, 480, 80, 0),
            (480, 640, 224, 480, 0, 80),
            (1000, 667, 460, 667, 166, 0),
            (300, 300, 224, 300, 0, 0),
            (101, 57, 224, 57, 22, 0),
        ];
        for (width, height, size, side, left, top) in golden {
            let crop = CropBox::fastai_square(width, height, size, (0.5, 0.5));
            assert_eq!(crop, CropBox { left, top, width: side, height: side });
        }
    }

    #[test]
    fn the_training_crop_stays_inside_at_both_ends() {
        let crop = CropBox::fastai_square(640, 480, 224, (1.0, 1.0));
        assert_eq!((crop.left + crop.width, crop.top + crop.height), (640, 480));
        assert_eq!(CropBox::fastai_square(1, 500, 224, (0.0, 0.999)).width, 1);
    }

    #[test]
    fn a_padded_photo_is_whole_and_lies_in_the_middle_of_white() {
        let photo = |width: u32, height: u32| Photo {
            width,
            height,
            pixels: vec![7; (width * height * 3) as usize],
            format: ImageFormat::Png,
            notes: Vec::new(),
        };
        let column = padded(&photo(1, 4), 4);
        let dark = |pixels: &[u8]| pixels.chunks(3).map(|pixel| u8::from(pixel[0] < 128)).collect::<Vec<_>>();
        assert_eq!(
            dark(&column),
            [[0, 1, 0, 0]; 4].concat(),
            "three columns are free: one at the left, two at the right"
        );
        assert_eq!(dark(&padded(&photo(2, 2), 2)), [1; 4]);
        let small = padded(&photo(40, 20), 4);
        assert_eq!(dark(&small), [[0; 4], [1; 4], [1; 4], [0; 4]].concat());
    }

    #[test]
    fn the_longer_side_is_rounded_down() {
        assert_eq!(short_side_to(451, 300, 256), (384, 256));
        assert_eq!(short_side_to(300, 451, 256), (256, 384));
    }
}
