//! Converts what a decoder yields to opaque 8-bit RGB.

use image::DynamicImage;

/// Opaque RGB pixels, `[height, width, 3]` u8, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<u8>,
}

impl Pixels {
    /// Converts any colour type: 16-bit samples are rounded to 8 bits (`round(v / 257)`), alpha is laid over white.
    pub(super) fn from_image(image: DynamicImage) -> Self {
        let (width, height) = (image.width(), image.height());
        let rgb = if image.color().has_alpha() {
            let mut rgba = image.into_rgba8().into_raw();
            lay_over_white(&mut rgba)
        } else {
            image.into_rgb8().into_raw()
        };
        Self { width, height, rgb }
    }
}

/// Lays `[r, g, b, a]` pixels over white: `round((c * a + 255 * (255 - a)) / 255)`. Reuses the buffer.
fn lay_over_white(rgba: &mut Vec<u8>) -> Vec<u8> {
    let pixels = rgba.len() / 4;
    for pixel in 0..pixels {
        let alpha = u32::from(rgba[pixel * 4 + 3]);
        for channel in 0..3 {
            rgba[pixel * 3 + channel] = over_white(rgba[pixel * 4 + channel], alpha);
        }
    }
    rgba.truncate(pixels * 3);
    std::mem::take(rgba)
}

/// One channel of one pixel over white, rounded to the nearest.
pub(super) fn over_white(value: u8, alpha: u32) -> u8 {
    ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// One CMYK pixel, 0 meaning no ink, without a colour profile: `(255 - k) * (255 - ink) / 255`.
pub(super) fn cmyk_to_rgb(cmyk: [u8; 4]) -> [u8; 3] {
    let light = 255 - u32::from(cmyk[3]);
    [cmyk[0], cmyk[1], cmyk[2]].map(|ink| ((light * (255 - u32::from(ink)) + 127) / 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparent_is_white_and_opaque_is_itself() {
        let mut rgba = vec![10, 20, 30, 0, 10, 20, 30, 255, 0, 0, 0, 128];
        assert_eq!(lay_over_white(&mut rgba), [255, 255, 255, 10, 20, 30, 127, 127, 127]);
    }

    #[test]
    fn sixteen_bits_are_rounded_and_not_cut() {
        let image = image::ImageBuffer::from_raw(3, 1, vec![0u16, 385, 65535]).expect("three grey pixels");
        assert_eq!(Pixels::from_image(DynamicImage::ImageLuma16(image)).rgb, [0, 0, 0, 1, 1, 1, 255, 255, 255]);
    }

    #[test]
    fn full_ink_is_black_and_no_ink_is_white() {
        assert_eq!(cmyk_to_rgb([0, 0, 0, 0]), [255, 255, 255]);
        assert_eq!(cmyk_to_rgb([0, 0, 0, 255]), [0, 0, 0]);
        assert_eq!(cmyk_to_rgb([255, 0, 0, 0]), [0, 255, 255]);
    }
}
