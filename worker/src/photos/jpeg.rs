//! JPEG: grey, YCbCr, RGB, CMYK and YCCK, baseline and progressive.

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::{
    decode::{DecodeLimits, Decoded, Note},
    error::DecodeError,
    format::ImageFormat,
    orientation::Orientation,
    pixels::{Pixels, cmyk_to_rgb},
};

/// Decodes a whole JPEG. The decoder is strict about the picture's data: a stream that ends early or contradicts itself is an
/// error, where a browser would show half a picture. Of the headers before it, it takes what every other reader takes.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(limits.max_side as usize)
        .set_max_height(limits.max_side as usize);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| classify(bytes, &error))?;
    let info = decoder.info().expect("the headers were decoded");
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    limits.check_sides(width, height)?;

    let inks = decoder.input_colorspace() == Some(ColorSpace::CMYK);
    let output = if inks { ColorSpace::CMYK } else { ColorSpace::RGB };
    decoder.set_options(options.set_strict_mode(true).jpeg_set_out_colorspace(output));
    let samples = decoder.decode().map_err(|error| classify(bytes, &error))?;
    if !has_end_marker(bytes) {
        return Err(DecodeError::Truncated { format: ImageFormat::Jpeg });
    }
    let rgb = if inks { rgb_from_inks(&samples, has_adobe_marker(bytes)) } else { samples };
    let orientation = decoder.exif().map_or(Orientation::Upright, |exif| Orientation::from_exif(exif));
    let is_cmyk = matches!(decoder.input_colorspace(), Some(ColorSpace::CMYK | ColorSpace::YCCK));
    let notes = if is_cmyk { vec![Note::Cmyk] } else { Vec::new() };
    Ok(Decoded { pixels: Pixels { width, height, rgb }, orientation, notes })
}

/// Adobe's applications store inks inverted; files without Adobe's marker store them plainly.
fn rgb_from_inks(samples: &[u8], inverted: bool) -> Vec<u8> {
    let mask = if inverted { 0xff } else { 0 };
    samples.as_chunks::<4>().0.iter().flat_map(|inks| cmyk_to_rgb(inks.map(|ink| ink ^ mask))).collect()
}

/// Whether an APP14 segment named `Adobe` precedes the picture's data.
fn has_adobe_marker(bytes: &[u8]) -> bool {
    let header = &bytes[..start_of_scan(bytes).unwrap_or(bytes.len())];
    header.windows(9).any(|window| window[..2] == [0xff, 0xee] && &window[4..] == b"Adobe")
}

/// Whether the end-of-image marker follows the first scan. In coded data 0xff is never followed by 0xd9.
fn has_end_marker(bytes: &[u8]) -> bool {
    let start = start_of_scan(bytes).unwrap_or(0);
    bytes[start..].windows(2).any(|pair| pair == [0xff, 0xd9])
}

/// Offset of the first start-of-scan marker, found by walking the segments.
fn start_of_scan(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        let segment = bytes.get(at..at + 4)?;
        match (segment[0], segment[1]) {
            (0xff, 0xda) => return Some(at),
            (0xff, 0xff) => at += 1,
            (0xff, _) => at += 2 + usize::from(u16::from_be_bytes([segment[2], segment[3]])),
            _ => at += 1,
        }
    }
}

fn classify(bytes: &[u8], error: &DecodeErrors) -> DecodeError {
    let format = ImageFormat::Jpeg;
    let detail = error.to_string();
    match error {
        DecodeErrors::Unsupported(_) => DecodeError::UnsupportedFeature { format, detail },
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => DecodeError::Truncated { format },
        _ if !has_end_marker(bytes) => DecodeError::Truncated { format },
        _ => DecodeError::Corrupt { format, detail },
    }
}
