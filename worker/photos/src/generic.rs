//! Decoding with the decoders of the `image` crate, which all formats but JPEG and TIFF use.

use std::{error::Error as StdError, io};

use image::{DynamicImage, ImageDecoder, ImageError};

use super::{
    error::DecodeError,
    format::ImageFormat,
    icc,
    orientation::Orientation,
    photo::{DecodeLimits, Decoded, Note},
    pixels::Pixels,
};

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
    let has_profile = decoder.icc_profile().ok().flatten().is_some_and(|profile| icc::is_not_srgb(&profile));
    let image = DynamicImage::from_decoder(decoder).map_err(|error| classify(format, &error))?;
    let mut notes = Vec::new();
    if color.has_alpha() {
        notes.push(Note::AlphaOverWhite);
    }
    if color.bytes_per_pixel() > color.channel_count() {
        notes.push(Note::DepthReduced);
    }
    if has_profile {
        notes.push(Note::ColorProfile);
    }
    Ok(Decoded { pixels: Pixels::from_image(image), orientation, notes })
}

/// What a decoder's error means for the file.
pub(super) fn classify(format: ImageFormat, error: &ImageError) -> DecodeError {
    let detail = error.to_string();
    match error {
        // This variant names the source of the I/O error as its own source, so the I/O error itself is not in the chain.
        ImageError::IoError(error) if ends_early(error) => DecodeError::Truncated { format },
        _ if ends_early(error) => DecodeError::Truncated { format },
        ImageError::Unsupported(_) => DecodeError::UnsupportedFeature { format, detail },
        _ => DecodeError::Corrupt { format, detail },
    }
}

/// Whether an error in the chain says that the data ended.
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
