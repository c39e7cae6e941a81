//! JPEG: grey, YCbCr, RGB, CMYK and YCCK, baseline and progressive.

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::{
    error::DecodeError,
    format::ImageFormat,
    orientation::Orientation,
    photo::{DecodeLimits, Decoded, Note},
    pixels::{Pixels, cmyk_to_rgb},
};

const START_OF_SCAN: u8 = 0xda;
const COMMENT: u8 = 0xfe;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;

/// Decodes a whole JPEG. The decoder is strict about the picture's data: a stream that ends early or contradicts itself is an
/// error, where a browser would show half a picture. The decoder does not get the metadata, because damage there damages no pixel.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let stripped = Stripped::of(bytes);
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(limits.max_side as usize)
        .set_max_height(limits.max_side as usize);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stripped.picture.as_slice()), options);
    decoder.decode_headers().map_err(|error| classify(&stripped, &error))?;
    let info = decoder.info().expect("the headers were decoded");
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    limits.check_sides(width, height)?;

    let inks = decoder.input_colorspace() == Some(ColorSpace::CMYK);
    let output = if inks { ColorSpace::CMYK } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(output));
    let samples = decoder.decode().map_err(|error| classify(&stripped, &error))?;
    if !stripped.has_end_marker() {
        return Err(DecodeError::Truncated { format: ImageFormat::Jpeg });
    }
    let rgb = if inks { rgb_from_inks(&samples, stripped.is_adobes) } else { samples };
    let is_cmyk = matches!(decoder.input_colorspace(), Some(ColorSpace::CMYK | ColorSpace::YCCK));
    let notes = if is_cmyk { vec![Note::Cmyk] } else { Vec::new() };
    Ok(Decoded { pixels: Pixels { width, height, rgb }, orientation: stripped.orientation(), notes })
}

/// A JPEG file taken apart: the picture without metadata, and the metadata that matters.
struct Stripped<'a> {
    /// A JPEG file with nothing but what its pixels need.
    picture: Vec<u8>,
    /// Where the first scan starts in `picture`.
    scan: usize,
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
    /// Whether a complete Adobe segment is there, which says how colours are coded.
    is_adobes: bool,
}

impl<'a> Stripped<'a> {
    /// Walks the segments before the first scan. Bytes between segments that belong to none are skipped.
    fn of(bytes: &'a [u8]) -> Self {
        let picture = Vec::with_capacity(bytes.len());
        let mut stripped = Self { picture, scan: 0, exif: None, xmp: None, is_adobes: false };
        stripped.picture.extend_from_slice(b"\xff\xd8");
        let mut at = 2;
        while let Some(head) = bytes.get(at..at + 4) {
            let (marker, length) = (head[1], usize::from(u16::from_be_bytes([head[2], head[3]])));
            if head[0] != 0xff || matches!(marker, 0xff | 0x00) {
                at += 1;
                continue;
            }
            if marker == START_OF_SCAN {
                break;
            }
            let end = (at + 2 + length.max(2)).min(bytes.len());
            stripped.take_in(marker, &bytes[at..end]);
            at = end;
        }
        stripped.scan = stripped.picture.len();
        stripped.picture.extend_from_slice(bytes.get(at..).unwrap_or(&[]));
        stripped
    }

    /// Sorts one segment, which starts with its marker and length.
    fn take_in(&mut self, marker: u8, segment: &'a [u8]) {
        let data = segment.get(4..).unwrap_or(&[]);
        match marker {
            APP1 => {
                if data.starts_with(b"Exif\0\0") {
                    self.exif = self.exif.or(Some(data));
                } else if data.starts_with(b"http://ns.adobe.com/xap/1.0/\0") {
                    self.xmp = self.xmp.or(Some(data));
                }
            }
            // A shorter segment lacks the byte about colours, and every reader ignores it.
            APP14 if data.starts_with(b"Adobe") && data.len() >= 12 => {
                self.is_adobes = true;
                self.picture.extend_from_slice(segment);
            }
            APP0 => self.picture.extend_from_slice(segment),
            0xe0..=0xef | COMMENT => {}
            _ => self.picture.extend_from_slice(segment),
        }
    }

    /// Whether the end-of-image marker follows the first scan. In coded data 0xff is never followed by 0xd9.
    fn has_end_marker(&self) -> bool {
        self.picture[self.scan..].windows(2).any(|pair| pair == [0xff, 0xd9])
    }

    /// The orientation that EXIF states, or else the one that XMP states.
    fn orientation(&self) -> Option<Orientation> {
        let in_xmp = || self.xmp.and_then(Orientation::from_xmp);
        self.exif.and_then(Orientation::from_exif).or_else(in_xmp)
    }
}

/// Converts inks to RGB. Adobe's applications store inks inverted; files without Adobe's marker store them as they are.
fn rgb_from_inks(samples: &[u8], inverted: bool) -> Vec<u8> {
    let mask = if inverted { 0xff } else { 0 };
    samples.as_chunks::<4>().0.iter().flat_map(|inks| cmyk_to_rgb(inks.map(|ink| ink ^ mask))).collect()
}

fn classify(stripped: &Stripped<'_>, error: &DecodeErrors) -> DecodeError {
    let format = ImageFormat::Jpeg;
    let detail = error.to_string();
    match error {
        DecodeErrors::Unsupported(_) => DecodeError::UnsupportedFeature { format, detail },
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => DecodeError::Truncated { format },
        _ if !stripped.has_end_marker() => DecodeError::Truncated { format },
        _ => DecodeError::Corrupt { format, detail },
    }
}
