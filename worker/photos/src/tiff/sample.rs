//! From stored samples to bytes, by one rule: the range of the number format becomes 0 to 255.
//!
//! Whole numbers without sign reach from 0 to the largest that their bits can hold, and floats from 0 to 1. Signed numbers have no
//! agreed black and white; [`super::page`] refuses them. Some programs write samples of 32 bits and floats with a range of their own,
//! which nothing in the file tells. Such a picture would turn black or white here, so it is refused, too.

use super::{
    chunk::Extent,
    page::{Page, Photometric, SampleFormat},
    unsupported,
};
use crate::error::DecodeError;

/// Where the brightest sample of a picture of more than 16 bits must be, as a part of the range: at the second of 256 levels.
const LEAST_USE: f64 = 1.0 / 256.0;

/// Spreads the samples of a row to one byte each and returns the largest colour sample as a part of the range. Palette indices are
/// kept.
pub(super) fn to_bytes(row: &[u8], page: &Page, extent: Extent, samples: &mut Vec<u8>) -> Result<f64, DecodeError> {
    let (bits, count) = (page.bits, extent.width as usize * extent.channels);
    match (page.format, bits) {
        (SampleFormat::Unsigned | SampleFormat::Signed, 8) => samples.extend_from_slice(&row[..count]),
        (_, 32 | 64) => return wide_to_bytes(row, page, extent, samples),
        (_, 16) => samples.extend(row.chunks_exact(2).take(count).map(|bytes| scaled(page.order.number(bytes), page))),
        _ => {
            let bit = |at: usize| u64::from(row[at / 8] >> (7 - at % 8) & 1);
            let value =
                |sample: usize| (sample * bits..(sample + 1) * bits).fold(0, |value, at| (value << 1) | bit(at));
            samples.extend((0..count).map(|sample| scaled(value(sample), page)));
        }
    }
    Ok(1.0)
}

/// A whole number of at most 16 bits.
fn scaled(value: u64, page: &Page) -> u8 {
    let largest = (1 << page.bits) - 1;
    if page.photometric == Photometric::Palette {
        value.min(255) as u8
    } else {
        ((value * 255 + largest / 2) / largest) as u8
    }
}

/// Samples of 32 and 64 bits.
fn wide_to_bytes(row: &[u8], page: &Page, extent: Extent, samples: &mut Vec<u8>) -> Result<f64, DecodeError> {
    let mut brightest: f64 = 0.0;
    let width = page.bits / 8;
    for (index, bytes) in row.chunks_exact(width).take(extent.width as usize * extent.channels).enumerate() {
        let part = part_of_range(page.order.number(bytes), page);
        let channel = if page.is_planar { 0 } else { index % extent.channels };
        if channel < page.kept() && !(0.0..=1.0).contains(&part) {
            return Err(unsupported(format!(
                "it holds floats outside of 0 to 1, such as {part}; save it with samples of 8 or 16 bits"
            )));
        }
        if channel < page.photometric.colors() {
            brightest = brightest.max(part);
        }
        samples.push((part * 255.0).round() as u8);
    }
    Ok(brightest)
}

fn part_of_range(number: u64, page: &Page) -> f64 {
    match (page.format, page.bits) {
        (SampleFormat::Float, 32) => f32::from_bits(number as u32).into(),
        (SampleFormat::Float, _) => f64::from_bits(number),
        (_, 32) => number as f64 / f64::from(u32::MAX),
        _ => number as f64 / u64::MAX as f64,
    }
}

/// Refuses a picture that would turn black though it is not, because its samples use next to nothing of their range.
pub(super) fn check_use_of_range(page: &Page, brightest: f64) -> Result<(), DecodeError> {
    if brightest > 0.0 && brightest < LEAST_USE {
        return Err(unsupported(format!(
            "its brightest sample of {} bits is {:.4} % of the largest possible one, so that it would be black; save it with samples of 8 or 16 bits",
            page.bits,
            brightest * 100.0
        )));
    }
    Ok(())
}
