//! zune-jpeg, for the pictures that it decodes right.

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::{Raster, Wanted};
use crate::{error::DecodeError, format::ImageFormat};

/// Decodes a picture. The decoder is strict about the picture's data: a stream that ends early or contradicts itself is an error.
pub(super) fn decode(picture: &[u8], wanted: Wanted) -> Result<Raster, DecodeError> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(picture), options);
    decoder.decode_headers().map_err(|error| meaning(&error))?;
    let output = match wanted {
        Wanted::Color => ColorSpace::RGB,
        Wanted::Stored => decoder.input_colorspace().unwrap_or(ColorSpace::Luma),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(output));
    let samples = decoder.decode().map_err(|error| meaning(&error))?;
    let info = decoder.info().expect("the headers were decoded");
    Ok(Raster {
        width: u32::from(info.width),
        height: u32::from(info.height),
        channels: output.num_components(),
        samples,
    })
}

fn meaning(error: &DecodeErrors) -> DecodeError {
    let format = ImageFormat::Jpeg;
    let detail = error.to_string();
    match error {
        DecodeErrors::Unsupported(_) => DecodeError::UnsupportedFeature { format, detail },
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => DecodeError::Truncated { format },
        _ => DecodeError::Corrupt { format, detail },
    }
}
