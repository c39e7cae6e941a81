//! TIFF: the first page, in the sample layouts that scanners, cameras and editors write.

use std::io::Cursor;

use tiff::{
    ColorType, TiffError,
    decoder::{Decoder, DecodingResult, Limits},
    tags::Tag,
};

use super::{
    decode::{DecodeLimits, Decoded, Note, ends_early},
    error::DecodeError,
    format::ImageFormat,
    orientation::Orientation,
    pixels::{Pixels, cmyk_to_rgb, over_white},
};

const FORMAT: ImageFormat = ImageFormat::Tiff;
/// The tag that says what samples mean, and two of its values.
const PHOTOMETRIC: u16 = 262;
const PHOTOMETRIC_GREY: u16 = 1;
const PHOTOMETRIC_PALETTE: u16 = 3;

/// Decodes the first page.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    // The library refuses palettes, but reads their indices if they claim to be grey.
    let as_grey = palette_claimed_grey(bytes);
    let has_palette = as_grey.is_some();
    let bytes = as_grey.as_deref().unwrap_or(bytes);
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(|error| classify(&error))?;
    let (width, height) = decoder.dimensions().map_err(|error| classify(&error))?;
    limits.check_sides(width, height)?;
    decoder = decoder.with_limits(tiff_limits(limits));

    let color = decoder.colortype().map_err(|error| classify(&error))?;
    let orientation = decoder
        .find_tag_unsigned::<u32>(Tag::Orientation)
        .ok()
        .flatten()
        .and_then(Orientation::from_exif_value)
        .unwrap_or(Orientation::Upright);
    let color = match color {
        ColorType::Gray(bits @ 1..=8) if has_palette => ColorType::Palette(bits),
        other => other,
    };
    let is_premultiplied = decoder.find_tag_unsigned_vec::<u32>(Tag::ExtraSamples).ok().flatten() == Some(vec![1]);
    let palette = match color {
        ColorType::Palette(_) => decoder.get_tag_u16_vec(Tag::ColorMap).map_err(|error| classify(&error))?,
        _ => Vec::new(),
    };
    let mut buffer = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut buffer).map_err(|error| classify(&error))?;
    if buffer.as_buffer(0).as_bytes().len() < layout.complete_len {
        return Err(DecodeError::Truncated { format: FORMAT });
    }

    let samples_per_pixel = usize::from(color.num_samples());
    let row_samples = width as usize * if layout.planes > 1 { 1 } else { samples_per_pixel };
    let rows = height as usize * layout.planes;
    let samples = Samples::new(&buffer, color.bit_depth(), row_samples, rows)?;
    let raster = if layout.planes > 1 { samples.interleaved(layout.planes) } else { samples };
    let rgb = match color {
        ColorType::RGBA(_) if is_premultiplied => premultiplied_over_white(&raster.eight_bit),
        _ => to_rgb(color, &raster.eight_bit, &palette)?,
    };
    Ok(Decoded { pixels: Pixels { width, height, rgb }, orientation, notes: notes(color) })
}

/// A copy of a classic TIFF whose first page has a palette, with the page's photometric interpretation changed from palette to
/// grey; `None` for any other file.
fn palette_claimed_grey(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_little = bytes.starts_with(b"II*\0");
    if !is_little && !bytes.starts_with(b"MM\0*") {
        return None;
    }
    let short = |at: usize| {
        let two = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(if is_little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) })
    };
    let four: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let directory = if is_little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) } as usize;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries).map(|index| directory + 2 + index * 12).find(|at| short(*at) == Some(PHOTOMETRIC))?;
    let value = entry + 8;
    if short(value)? != PHOTOMETRIC_PALETTE {
        return None;
    }
    let grey = if is_little { PHOTOMETRIC_GREY.to_le_bytes() } else { PHOTOMETRIC_GREY.to_be_bytes() };
    let mut copy = bytes.to_vec();
    copy[value..value + 2].copy_from_slice(&grey);
    Some(copy)
}

/// Lays `[r, g, b, a]` pixels over white whose colours are multiplied by alpha already.
fn premultiplied_over_white(samples: &[u8]) -> Vec<u8> {
    pixels::<4>(samples).flat_map(|[r, g, b, a]| [r, g, b].map(|value| value.saturating_add(255 - a))).collect()
}

/// Room for the picture itself at 16 bits and four channels, and for one strip of it in compressed form.
fn tiff_limits(limits: &DecodeLimits) -> Limits {
    let bytes = usize::try_from(limits.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    let mut bounds = Limits::default();
    bounds.decoding_buffer_size = bytes;
    bounds.intermediate_buffer_size = bytes;
    bounds
}

/// Samples brought to one byte each; palette indices and narrow greys are kept as stored.
struct Samples {
    eight_bit: Vec<u8>,
}

impl Samples {
    fn new(buffer: &DecodingResult, bits: u8, row_samples: usize, rows: usize) -> Result<Self, DecodeError> {
        let eight_bit = match (buffer, bits) {
            (DecodingResult::U8(bytes), 8) => bytes.clone(),
            (DecodingResult::U8(bytes), 1 | 2 | 4) => unpack(bytes, bits, row_samples, rows),
            (DecodingResult::U16(words), 16) => {
                words.iter().map(|word| ((u32::from(*word) + 128) / 257) as u8).collect()
            }
            _ => return Err(unsupported(format!("{bits} bits a sample in this number format"))),
        };
        Ok(Self { eight_bit })
    }

    /// From one plane a channel to pixels.
    fn interleaved(&self, planes: usize) -> Self {
        let plane = self.eight_bit.len() / planes;
        let eight_bit = (0..plane)
            .flat_map(|pixel| (0..planes).map(move |channel| self.eight_bit[channel * plane + pixel]))
            .collect();
        Self { eight_bit }
    }
}

/// Spreads packed samples, rows starting at whole bytes, to one byte each.
fn unpack(packed: &[u8], bits: u8, row_samples: usize, rows: usize) -> Vec<u8> {
    let row_bytes = (row_samples * usize::from(bits)).div_ceil(8);
    let mask = (1u16 << bits) as u8 - 1;
    let mut samples = Vec::with_capacity(row_samples * rows);
    for row in packed.chunks(row_bytes.max(1)).take(rows) {
        for sample in 0..row_samples {
            let bit = sample * usize::from(bits);
            samples.push((row[bit / 8] >> (8 - usize::from(bits) - bit % 8)) & mask);
        }
    }
    samples
}

fn to_rgb(color: ColorType, samples: &[u8], palette: &[u16]) -> Result<Vec<u8>, DecodeError> {
    Ok(match color {
        ColorType::Gray(bits @ (1 | 2 | 4)) => {
            let white = (1u16 << bits) - 1;
            samples.iter().flat_map(|grey| [(u16::from(*grey) * 255 / white) as u8; 3]).collect()
        }
        ColorType::Gray(_) => samples.iter().flat_map(|grey| [*grey; 3]).collect(),
        ColorType::Palette(_) => {
            let colors = palette.len() / 3;
            samples.iter().flat_map(|index| palette_color(palette, colors, usize::from(*index))).collect()
        }
        ColorType::RGB(_) => samples.to_vec(),
        ColorType::GrayA(_) => {
            pixels::<2>(samples).flat_map(|[grey, alpha]| [over_white(grey, alpha.into()); 3]).collect()
        }
        ColorType::RGBA(_) => {
            pixels::<4>(samples).flat_map(|[r, g, b, a]| [r, g, b].map(|value| over_white(value, a.into()))).collect()
        }
        ColorType::CMYK(_) => pixels::<4>(samples).flat_map(cmyk_to_rgb).collect(),
        other => return Err(unsupported(format!("{other:?} samples"))),
    })
}

fn pixels<const N: usize>(samples: &[u8]) -> impl Iterator<Item = [u8; N]> {
    samples.as_chunks::<N>().0.iter().copied()
}

/// A colour of the map, which holds all reds, then all greens, then all blues, 16 bits each. Indices beyond it are black.
fn palette_color(palette: &[u16], colors: usize, index: usize) -> [u8; 3] {
    if index >= colors {
        return [0; 3];
    }
    [0, 1, 2].map(|channel| (palette[channel * colors + index] >> 8) as u8)
}

fn notes(color: ColorType) -> Vec<Note> {
    let mut notes = Vec::new();
    if matches!(color, ColorType::GrayA(_) | ColorType::RGBA(_)) {
        notes.push(Note::AlphaOverWhite);
    }
    if matches!(color, ColorType::CMYK(_)) {
        notes.push(Note::Cmyk);
    }
    if color.bit_depth() > 8 {
        notes.push(Note::DepthReduced);
    }
    notes
}

fn unsupported(detail: String) -> DecodeError {
    DecodeError::UnsupportedFeature { format: FORMAT, detail }
}

fn classify(error: &TiffError) -> DecodeError {
    match error {
        TiffError::IoError(error) if ends_early(error) => DecodeError::Truncated { format: FORMAT },
        TiffError::UnsupportedError(detail) => unsupported(detail.to_string()),
        _ => DecodeError::Corrupt { format: FORMAT, detail: error.to_string() },
    }
}
