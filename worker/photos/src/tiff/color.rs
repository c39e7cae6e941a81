//! Converts samples of one byte to opaque RGB.

use super::page::{Alpha, Page, Photometric, SampleFormat};
use crate::pixels::{cmyk_to_rgb, over_white};

/// Converts a raster of `page.kept()` samples a pixel.
pub(super) fn to_rgb(page: &Page, samples: &[u8], palette: &[u64]) -> Vec<u8> {
    let kept = page.kept();
    let colors = page.photometric.colors();
    // Floats are never inverted: pages of them often lack the tag whose absence means that zero is white.
    let is_inverted = page.photometric == Photometric::WhiteIsZero && page.format != SampleFormat::Float;
    let inverted = |value: u8| if is_inverted { 255 - value } else { value };
    let mut rgb = Vec::with_capacity(samples.len() / kept * 3);
    for pixel in samples.chunks_exact(kept) {
        let color = match page.photometric {
            Photometric::WhiteIsZero | Photometric::BlackIsZero => [inverted(pixel[0]); 3],
            Photometric::Rgb | Photometric::YCbCr => [pixel[0], pixel[1], pixel[2]],
            Photometric::Palette => palette_color(palette, usize::from(pixel[0])),
            Photometric::Cmyk => cmyk_to_rgb([pixel[0], pixel[1], pixel[2], pixel[3]]),
            Photometric::CieLab => lab_to_rgb(pixel[0], f32::from(pixel[1] as i8), f32::from(pixel[2] as i8)),
            Photometric::IccLab => lab_to_rgb(pixel[0], f32::from(pixel[1]) - 128.0, f32::from(pixel[2]) - 128.0),
        };
        rgb.extend(match page.alpha {
            Alpha::None => color,
            Alpha::Straight => color.map(|value| over_white(value, pixel[colors].into())),
            Alpha::Premultiplied => color.map(|value| value.saturating_add(255 - pixel[colors])),
        });
    }
    rgb
}

/// A colour of the map, which holds all reds, then all greens, then all blues, 16 bits each. Indices beyond it are black.
fn palette_color(palette: &[u64], index: usize) -> [u8; 3] {
    let colors = palette.len() / 3;
    if index >= colors {
        return [0; 3];
    }
    [0, 1, 2].map(|channel| (palette[channel * colors + index] >> 8) as u8)
}

/// CIE L*a*b* with the white of D50, L* in 0..=255, to sRGB: to XYZ, by Bradford's matrix to linear sRGB, then its curve
/// (<http://www.brucelindbloom.com>, "Math").
fn lab_to_rgb(lightness: u8, a: f32, b: f32) -> [u8; 3] {
    let fy = (f32::from(lightness) * 100.0 / 255.0 + 16.0) / 116.0;
    let cubed = |f: f32| if f > 6.0 / 29.0 { f.powi(3) } else { (f - 16.0 / 116.0) / 7.787 };
    let (x, y, z) = (0.964_22 * cubed(fy + a / 500.0), cubed(fy), 0.825_21 * cubed(fy - b / 200.0));
    let linear = [
        3.133_856 * x - 1.616_867 * y - 0.490_615 * z,
        -0.978_768 * x + 1.916_142 * y + 0.033_454 * z,
        0.071_945 * x - 0.228_991 * y + 1.405_243 * z,
    ];
    linear.map(|value| {
        let value = value.clamp(0.0, 1.0);
        let curved = if value <= 0.003_130_8 { 12.92 * value } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 };
        (curved * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neutral_lab_is_grey_and_full_lightness_is_white() {
        assert_eq!(lab_to_rgb(255, 0.0, 0.0), [255; 3]);
        assert_eq!(lab_to_rgb(0, 0.0, 0.0), [0; 3]);
        let [r, g, b] = lab_to_rgb(128, 0.0, 0.0);
        assert!(r.abs_diff(g) <= 1 && g.abs_diff(b) <= 1, "{r} {g} {b}");
    }
}
