//! A decoded photo, the limits of decoding, and what was done to a photo on the way.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{error::DecodeError, format::ImageFormat, orientation::Orientation, pixels::Pixels};

/// Bounds on what is decoded. They are checked against the header, before memory is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest file, in bytes.
    pub max_bytes: u64,
    /// Largest width times height.
    pub max_pixels: u64,
    /// Largest width or height, in pixels.
    pub max_side: u32,
}

impl Default for DecodeLimits {
    /// 256 MiB, 200 megapixels, 32,768 pixels on a side: more than any camera makes, and less than what exhausts a
    /// machine's memory.
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_pixels: 200_000_000, max_side: 32_768 }
    }
}

impl DecodeLimits {
    /// Checks the sides that a header announces.
    pub(super) fn check_sides(&self, width: u32, height: u32) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::NoPixels { width, height });
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels || width.max(height) > self.max_side {
            let Self { max_pixels, max_side, .. } = *self;
            return Err(DecodeError::TooManyPixels { width, height, max_pixels, max_side });
        }
        Ok(())
    }
}

/// What was done to a photo on the way to RGB, for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// EXIF or XMP asked for another orientation than the stored one.
    TurnedUpright,
    /// Transparent pixels were laid over white.
    AlphaOverWhite,
    /// Samples of more than 8 bits were rounded.
    DepthReduced,
    /// Printing inks were converted without a colour profile.
    Cmyk,
    /// The name promises another format than the content has.
    WrongExtension,
    /// Parts that the format asks for are missing or wrong, but every pixel could be read.
    Mended,
    /// The colours are meant by a colour profile other than sRGB, which is not applied.
    ColorProfile,
}

impl Note {
    /// Whether every reader sees the photo's pixels in the original file.
    pub(super) fn keeps_original(self) -> bool {
        match self {
            Self::TurnedUpright | Self::AlphaOverWhite | Self::DepthReduced | Self::Cmyk | Self::Mended => false,
            // The profile stays in the file, so that it can be applied later.
            Self::WrongExtension | Self::ColorProfile => true,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TurnedUpright => "turned upright as its metadata asks",
            Self::AlphaOverWhite => "transparency laid over white",
            Self::DepthReduced => "more than 8 bits a channel, rounded",
            Self::Cmyk => "printing inks converted to RGB",
            Self::WrongExtension => "the extension promises another format",
            Self::Mended => "parts that the format asks for are missing or wrong; no pixel is affected",
            Self::ColorProfile => "a colour profile other than sRGB, which is not applied",
        })
    }
}

/// A decoded photo: upright, opaque, 8-bit RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// Width in pixels, after turning upright.
    pub width: u32,
    /// Height in pixels, after turning upright.
    pub height: u32,
    /// `[height, width, 3]` u8, row by row.
    pub pixels: Vec<u8>,
    /// The format of the file.
    pub format: ImageFormat,
    /// What was done to it, sorted, each at most once.
    pub notes: Vec<Note>,
}

/// What a decoder of one format yields.
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    /// The orientation that the metadata states, if it states one.
    pub(super) orientation: Option<Orientation>,
    pub(super) notes: Vec<Note>,
}
