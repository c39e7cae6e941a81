//! What the tags of a page say about its samples and where they lie.

use super::{
    corrupt,
    directory::{ByteOrder, Directory},
    tag, truncated, unsupported,
};
use crate::{error::DecodeError, photo::DecodeLimits};

/// The meaning of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
    CieLab,
    IccLab,
}

impl Photometric {
    fn from_tag(value: u64) -> Result<Self, DecodeError> {
        Ok(match value {
            0 => Self::WhiteIsZero,
            1 => Self::BlackIsZero,
            2 => Self::Rgb,
            3 => Self::Palette,
            5 => Self::Cmyk,
            6 => Self::YCbCr,
            8 => Self::CieLab,
            9 => Self::IccLab,
            other => return Err(unsupported(format!("photometric interpretation {other}"))),
        })
    }

    /// Samples of a pixel without alpha.
    pub(super) fn colors(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb | Self::YCbCr | Self::CieLab | Self::IccLab => 3,
            Self::Cmyk => 4,
        }
    }
}

/// The number format of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleFormat {
    Unsigned,
    Signed,
    Float,
}

/// What the sample after the colours means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpha {
    None,
    Straight,
    /// The colours are multiplied by alpha already.
    Premultiplied,
}

/// How chunks are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    /// Modified Huffman: one-dimensional fax rows that start at whole bytes.
    Huffman,
    /// Fax group 3, one-dimensional.
    Fax3,
    /// Fax group 4.
    Fax4,
    Lzw,
    /// One whole JPEG file at this offset.
    OldJpeg(u64),
    Jpeg,
    Deflate,
    PackBits,
}

/// Strips or tiles.
#[derive(Debug)]
pub(super) struct Chunks {
    /// Width of a chunk in pixels.
    pub(super) width: u32,
    /// Height of a chunk in pixels.
    pub(super) height: u32,
    /// Whether chunks at the lower border are stored in full height.
    pub(super) are_tiles: bool,
    pub(super) offsets: Vec<u64>,
    pub(super) lengths: Vec<u64>,
}

/// A page whose tags make sense together.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) photometric: Photometric,
    /// Samples of a pixel as stored.
    pub(super) samples: usize,
    /// Bits of a sample.
    pub(super) bits: usize,
    pub(super) format: SampleFormat,
    pub(super) alpha: Alpha,
    pub(super) compression: Compression,
    /// 1: none, 2: differences along rows, 3: the same for floats.
    pub(super) predictor: u64,
    /// Whether each channel is stored by itself.
    pub(super) is_planar: bool,
    /// Whether the first pixel is in the lowest bit of a byte.
    pub(super) has_reversed_bits: bool,
    pub(super) order: ByteOrder,
    pub(super) chunks: Chunks,
}

impl Page {
    pub(super) fn read(directory: &Directory<'_>, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let number = |tag, default| Ok::<_, DecodeError>(directory.first_number(tag)?.unwrap_or(default));
        let side = |tag| Ok::<_, DecodeError>(u32::try_from(number(tag, 0)?).unwrap_or(u32::MAX));
        let (width, height) = (side(tag::IMAGE_WIDTH)?, side(tag::IMAGE_LENGTH)?);
        limits.check_sides(width, height)?;
        let compression = compression(directory)?;
        let photometric = Photometric::from_tag(number(tag::PHOTOMETRIC_INTERPRETATION, 0)?)?;
        let default_samples = if matches!(compression, Compression::OldJpeg(_)) { 3 } else { 1 };
        let samples = usize::try_from(number(tag::SAMPLES_PER_PIXEL, default_samples)?).unwrap_or(usize::MAX);
        if samples < photometric.colors() || samples > 16 {
            return Err(unsupported(format!("{samples} samples a pixel for {photometric:?}")));
        }
        let page = Self {
            width,
            height,
            photometric,
            samples,
            bits: bits(directory, samples)?,
            format: format(directory)?,
            alpha: alpha(directory, photometric, samples)?,
            compression,
            predictor: number(tag::PREDICTOR, 1)?,
            is_planar: number(tag::PLANAR_CONFIGURATION, 1)? == 2 && samples > 1,
            has_reversed_bits: number(tag::FILL_ORDER, 1)? == 2,
            order: directory.order(),
            chunks: chunks(directory, width, height)?,
        };
        limits.check_sides(page.chunks.width, page.chunks.height)?;
        page.check()?;
        Ok(page)
    }

    /// Refuses number formats without an agreed range, and pages that lack chunks.
    fn check(&self) -> Result<(), DecodeError> {
        let is_lab = matches!(self.photometric, Photometric::CieLab | Photometric::IccLab);
        let is_index = self.photometric == Photometric::Palette;
        let has_known_range = match self.format {
            SampleFormat::Unsigned => !is_index || self.bits <= 16,
            // Bytes that are called signed are shown as they are stored, by every reader.
            SampleFormat::Signed => self.bits == 8,
            SampleFormat::Float => matches!(self.bits, 32 | 64) && !is_lab && !is_index,
        };
        if !has_known_range {
            let why = match self.format {
                SampleFormat::Unsigned => "palette indices",
                SampleFormat::Signed => "signed, and nothing says which of them are black and white",
                SampleFormat::Float => "floats whose range is not known",
            };
            return Err(unsupported(format!(
                "its samples of {} bits are {why}; save it with samples of 8 or 16 bits without sign",
                self.bits
            )));
        }
        let expected = self.chunks_across() * self.chunks_down() * self.planes();
        if self.chunks.offsets.len().min(self.chunks.lengths.len()) < expected {
            return Err(truncated());
        }
        Ok(())
    }

    /// Samples that are needed of each pixel: colours, then alpha.
    pub(super) fn kept(&self) -> usize {
        self.photometric.colors() + usize::from(self.alpha != Alpha::None)
    }

    /// Planes as stored.
    fn planes(&self) -> usize {
        if self.is_planar { self.samples } else { 1 }
    }

    pub(super) fn chunks_across(&self) -> usize {
        self.width.div_ceil(self.chunks.width) as usize
    }

    pub(super) fn chunks_down(&self) -> usize {
        self.height.div_ceil(self.chunks.height) as usize
    }
}

fn compression(directory: &Directory<'_>) -> Result<Compression, DecodeError> {
    Ok(match directory.first_number(tag::COMPRESSION)?.unwrap_or(1) {
        1 => Compression::None,
        2 => Compression::Huffman,
        3 if directory.first_number(tag::T4_OPTIONS)?.unwrap_or(0) & 1 == 0 => Compression::Fax3,
        3 => return Err(unsupported("two-dimensional fax group 3".into())),
        4 => Compression::Fax4,
        5 => Compression::Lzw,
        6 => match directory.first_number(tag::JPEG_INTERCHANGE_FORMAT)? {
            Some(offset) => Compression::OldJpeg(offset),
            None => return Err(unsupported("old-style JPEG without a whole JPEG in it".into())),
        },
        7 => Compression::Jpeg,
        8 | 32946 => Compression::Deflate,
        32773 => Compression::PackBits,
        34887 => return Err(unsupported("LERC compression".into())),
        34925 => return Err(unsupported("LZMA compression".into())),
        50000 => return Err(unsupported("Zstandard compression".into())),
        50001 => return Err(unsupported("WebP compression".into())),
        other => return Err(unsupported(format!("compression {other}"))),
    })
}

/// Bits of a sample. All entries must be the same; some writers leave entries out or add some.
fn bits(directory: &Directory<'_>, samples: usize) -> Result<usize, DecodeError> {
    let mut all = directory.numbers(tag::BITS_PER_SAMPLE)?;
    all.truncate(samples);
    let bits = all.first().copied().unwrap_or(1);
    if all.iter().any(|other| *other != bits) {
        return Err(unsupported(format!("samples of different widths: {all:?} bits")));
    }
    match bits {
        1..=16 | 32 | 64 => Ok(bits as usize),
        _ => Err(unsupported(format!("{bits} bits a sample"))),
    }
}

fn format(directory: &Directory<'_>) -> Result<SampleFormat, DecodeError> {
    match directory.first_number(tag::SAMPLE_FORMAT)?.unwrap_or(1) {
        1 | 4 => Ok(SampleFormat::Unsigned),
        2 => Ok(SampleFormat::Signed),
        3 => Ok(SampleFormat::Float),
        other => Err(unsupported(format!("sample format {other}"))),
    }
}

/// The sample after the colours is alpha if a tag says so, and in RGB also if no tag says what it is. 999 is what Corel writes.
fn alpha(directory: &Directory<'_>, photometric: Photometric, samples: usize) -> Result<Alpha, DecodeError> {
    let can_have_alpha = !matches!(photometric, Photometric::Cmyk | Photometric::CieLab | Photometric::IccLab);
    if samples == photometric.colors() || !can_have_alpha {
        return Ok(Alpha::None);
    }
    Ok(match directory.first_number(tag::EXTRA_SAMPLES)? {
        Some(1) => Alpha::Premultiplied,
        Some(2 | 999) => Alpha::Straight,
        None if photometric == Photometric::Rgb => Alpha::Straight,
        _ => Alpha::None,
    })
}

fn chunks(directory: &Directory<'_>, width: u32, height: u32) -> Result<Chunks, DecodeError> {
    let tile_side = |tag| {
        let side = directory.first_number(tag)?.and_then(|side| u32::try_from(side).ok()).filter(|side| *side > 0);
        side.ok_or_else(|| corrupt("tiles without sides".into()))
    };
    let offsets = directory.numbers(tag::TILE_OFFSETS)?;
    if !offsets.is_empty() {
        let (width, height) = (tile_side(tag::TILE_WIDTH)?, tile_side(tag::TILE_LENGTH)?);
        return Ok(Chunks {
            width,
            height,
            are_tiles: true,
            offsets,
            lengths: directory.numbers(tag::TILE_BYTE_COUNTS)?,
        });
    }
    let rows = directory.first_number(tag::ROWS_PER_STRIP)?.unwrap_or(height.into()).clamp(1, height.into()) as u32;
    let (offsets, lengths) = (directory.numbers(tag::STRIP_OFFSETS)?, directory.numbers(tag::STRIP_BYTE_COUNTS)?);
    Ok(Chunks { width, height: rows, are_tiles: false, offsets, lengths })
}
