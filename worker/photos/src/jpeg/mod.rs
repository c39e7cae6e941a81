//! JPEG: grey, YCbCr, RGB, CMYK and YCCK, baseline and progressive.
//!
//! Two decoders share the work: a fast one for what nearly every camera and program writes, and libjpeg-turbo for all the rest.
//! [`Layout::decoder`] decides between them from the markers, because the fast decoder does not notice what it decodes wrong.

mod exact;
mod fast;
mod layout;

use self::layout::{Decoder, Layout};
use super::{
    error::DecodeError,
    format::ImageFormat,
    icc,
    orientation::Orientation,
    photo::{DecodeLimits, Decoded, Note},
    pixels::{Pixels, cmyk_to_rgb},
};

const START_OF_SCAN: u8 = 0xda;
const COMMENT: u8 = 0xfe;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;

/// The colours in which samples are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// RGB, or inks where inks are stored.
    Color,
    /// Whatever is stored.
    Stored,
}

/// Decoded samples, row by row without padding.
pub(super) struct Raster {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Samples of a pixel.
    pub(super) channels: usize,
    pub(super) samples: Vec<u8>,
}

/// Decodes a whole JPEG. A stream that ends early or contradicts itself is an error, where a browser would show half a picture. The
/// decoders do not get the metadata, because damage there damages no pixel.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let stripped = Stripped::of(bytes);
    let layout = Layout::of(&stripped.picture);
    let Raster { width, height, channels, samples } = raster(&stripped.picture, &layout, Wanted::Color, limits)?;
    let has_inks = channels == 4;
    let rgb = if has_inks { rgb_from_inks(&samples, stripped.is_adobes) } else { samples };
    let mut notes = Vec::new();
    if has_inks {
        notes.push(Note::Cmyk);
    }
    if !layout.has_end || !layout.has_huffman_tables {
        notes.push(Note::Mended);
    }
    if stripped.icc.is_some_and(icc::is_not_srgb) {
        notes.push(Note::ColorProfile);
    }
    Ok(Decoded { pixels: Pixels { width, height, rgb }, orientation: stripped.orientation(), notes })
}

/// Decodes a JPEG that is a part of another file, such as a strip of a TIFF.
pub(super) fn decode_part(picture: &[u8], wanted: Wanted, limits: &DecodeLimits) -> Result<Raster, DecodeError> {
    raster(picture, &Layout::of(picture), wanted, limits)
}

fn raster(picture: &[u8], layout: &Layout, wanted: Wanted, limits: &DecodeLimits) -> Result<Raster, DecodeError> {
    let format = ImageFormat::Jpeg;
    let decoder = layout.decoder().map_err(|detail| DecodeError::UnsupportedFeature { format, detail })?;
    if !layout.has_frame() {
        return Err(DecodeError::Truncated { format });
    }
    limits.check_sides(layout.width, layout.height)?;
    if !layout.has_end && !layout.is_complete() {
        return Err(DecodeError::Truncated { format });
    }
    if !layout.has_every_component() {
        return Err(DecodeError::Corrupt { format, detail: "no scan holds one of its colour components".into() });
    }
    match decoder {
        Decoder::Exact => exact::decode(picture, wanted),
        // The fast decoder also refuses some legal pictures. The other one has the last word.
        Decoder::Fast => {
            fast::decode(picture, wanted).or_else(|error| exact::decode(picture, wanted).map_err(|_| error))
        }
    }
}

/// A JPEG file taken apart: the picture without metadata, and the metadata that matters.
struct Stripped<'a> {
    /// A JPEG file with nothing but what its pixels need.
    picture: Vec<u8>,
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
    /// The first part of the colour profile.
    icc: Option<&'a [u8]>,
    /// Whether a complete Adobe segment is there, which says how colours are coded.
    is_adobes: bool,
}

impl<'a> Stripped<'a> {
    /// Walks the segments before the first scan. Bytes between segments that belong to none are skipped.
    fn of(bytes: &'a [u8]) -> Self {
        let picture = Vec::with_capacity(bytes.len());
        let mut stripped = Self { picture, exif: None, xmp: None, icc: None, is_adobes: false };
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
            // A profile of more than one segment starts in the first one, after its number and the number of segments.
            APP2 if data.starts_with(b"ICC_PROFILE\0\x01") => self.icc = self.icc.or(data.get(14..)),
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
