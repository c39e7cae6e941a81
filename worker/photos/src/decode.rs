//! From the bytes of a file to an upright, opaque RGB photo, under limits that are read before anything is decoded.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, Cursor},
    panic::{self, AssertUnwindSafe},
};

use image::{
    DynamicImage, ImageDecoder, ImageError,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
};
use serde::{Deserialize, Serialize};

use super::{bmp, error::DecodeError, format::ImageFormat, jpeg, orientation::Orientation, pixels::Pixels, png, tiff};

/// Bounds on what is decoded; checked against the header, before memory is taken.
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
    /// 256 MiB, 200 megapixels, 32,768 pixels on a side: above any camera, below what hurts.
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
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TurnedUpright => "turned upright as its metadata asks",
            Self::AlphaOverWhite => "transparency laid over white",
            Self::DepthReduced => "more than 8 bits a channel, rounded",
            Self::Cmyk => "printing inks converted to RGB",
            Self::WrongExtension => "the extension promises another format",
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
    /// As the metadata says, if it says anything.
    pub(super) orientation: Option<Orientation>,
    pub(super) notes: Vec<Note>,
}

/// Decodes the first frame or page of a file completely.
///
/// The format is found from the content. JPEG, PNG, WebP, GIF, BMP and TIFF are read; grey, palette, CMYK and 16-bit
/// pictures become 8-bit RGB, alpha is laid over white, EXIF orientation is applied.
///
/// # Errors
/// Any [`DecodeError`]. A file that ends early is an error, also where half a picture could be shown. Never panics:
/// a panic inside a decoder becomes [`DecodeError::DecoderFailed`].
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Photo, DecodeError> {
    let size = bytes.len() as u64;
    if size > limits.max_bytes {
        return Err(DecodeError::TooManyBytes { bytes: size, limit: limits.max_bytes });
    }
    let format = ImageFormat::sniff(bytes)?;
    let decoded = panic::catch_unwind(AssertUnwindSafe(|| decode_as(format, bytes, limits)))
        .unwrap_or(Err(DecodeError::DecoderFailed { format }))?;

    let mut notes = decoded.notes;
    let orientation = decoded.orientation.unwrap_or(Orientation::Upright);
    if orientation != Orientation::Upright {
        notes.push(Note::TurnedUpright);
    }
    notes.sort_unstable();
    notes.dedup();
    let Pixels { width, height, rgb } = orientation.apply(decoded.pixels);
    Ok(Photo { width, height, pixels: rgb, format, notes })
}

fn decode_as(format: ImageFormat, bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let reader = Cursor::new(bytes);
    match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, limits),
        ImageFormat::Tiff => tiff::decode(bytes, limits),
        ImageFormat::Png => {
            let decoder = PngDecoder::new(reader).map_err(|error| classify(format, &error))?;
            let decoded = decode_generic(format, decoder, limits)?;
            let in_text = || png::exif_in_text(bytes).and_then(|exif| Orientation::from_exif(&exif));
            Ok(Decoded { orientation: decoded.orientation.or_else(in_text), ..decoded })
        }
        ImageFormat::WebP => WebPDecoder::new(reader)
            .map_err(|error| classify(format, &error))
            .and_then(|decoder| decode_generic(format, decoder, limits)),
        ImageFormat::Gif => GifDecoder::new(reader)
            .map_err(|error| classify(format, &error))
            .and_then(|decoder| decode_generic(format, decoder, limits)),
        ImageFormat::Bmp => bmp::decode(bytes, limits),
    }
}

/// Decodes with one of the `image` crate's decoders.
pub(super) fn decode_generic(
    format: ImageFormat,
    mut decoder: impl ImageDecoder,
    limits: &DecodeLimits,
) -> Result<Decoded, DecodeError> {
    let (width, height) = decoder.dimensions();
    limits.check_sides(width, height)?;
    let color = decoder.color_type();
    let in_exif = decoder.exif_metadata().ok().flatten().and_then(|exif| Orientation::from_exif(&exif));
    let mut in_xmp = || decoder.xmp_metadata().ok().flatten().and_then(|packet| Orientation::from_xmp(&packet));
    let orientation = in_exif.or_else(&mut in_xmp);
    let image = DynamicImage::from_decoder(decoder).map_err(|error| classify(format, &error))?;
    let mut notes = Vec::new();
    if color.has_alpha() {
        notes.push(Note::AlphaOverWhite);
    }
    if color.bytes_per_pixel() > color.channel_count() {
        notes.push(Note::DepthReduced);
    }
    Ok(Decoded { pixels: Pixels::from_image(image), orientation, notes })
}

/// What a decoder's error means for the file.
pub(super) fn classify(format: ImageFormat, error: &ImageError) -> DecodeError {
    let detail = error.to_string();
    match error {
        // This variant passes its source's source on, so the chain does not show the error itself.
        ImageError::IoError(error) if ends_early(error) => DecodeError::Truncated { format },
        _ if ends_early(error) => DecodeError::Truncated { format },
        ImageError::Unsupported(_) => DecodeError::UnsupportedFeature { format, detail },
        _ => DecodeError::Corrupt { format, detail },
    }
}

/// Whether some error in the chain says that the data ended.
pub(super) fn ends_early(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io_kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if io_kind == Some(io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}
