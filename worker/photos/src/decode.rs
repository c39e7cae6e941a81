//! Decodes the bytes of a file to an upright, opaque RGB photo. The limits are checked before anything is decoded.

use std::{
    io::Cursor,
    panic::{self, AssertUnwindSafe},
};

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};

use super::{
    bmp,
    error::DecodeError,
    format::ImageFormat,
    generic::{classify, decode_generic},
    jpeg,
    orientation::Orientation,
    photo::{DecodeLimits, Decoded, Note, Photo},
    pixels::Pixels,
    png, tiff,
};

/// Decodes the first frame or page of a file completely.
///
/// The format is found from the content. JPEG, PNG, WebP, GIF, BMP and TIFF are read; grey, palette, CMYK and 16-bit
/// pictures become 8-bit RGB, alpha is laid over white, EXIF orientation is applied.
///
/// # Errors
/// Any [`DecodeError`]. A file that ends early is an error, even if half of the picture could be shown. The function
/// never panics: a panic inside a decoder becomes [`DecodeError::DecoderFailed`].
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
