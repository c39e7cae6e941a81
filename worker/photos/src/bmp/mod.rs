//! Decodes BMP files. Their headers are first brought into the form that the `image` crate's decoder knows.

mod rle;

use std::{borrow::Cow, io::Cursor};

use image::codecs::bmp::BmpDecoder;

use super::{
    error::DecodeError,
    format::ImageFormat,
    generic::{classify, decode_generic},
    photo::{DecodeLimits, Decoded},
};

const FILE_HEADER: usize = 14;
const INFO_HEADER: usize = 40;
/// Offsets from the start of the file.
const PIXELS: usize = 10;
const HEADER_SIZE: usize = FILE_HEADER;
const WIDTH: usize = FILE_HEADER + 4;
const HEIGHT: usize = FILE_HEADER + 8;
const PLANES: usize = FILE_HEADER + 12;
const DEPTH: usize = FILE_HEADER + 14;
const COMPRESSION: usize = FILE_HEADER + 16;
const COLORS_USED: usize = FILE_HEADER + 32;
/// Size of the header of OS/2 2.x. Its first 40 bytes are those of the usual header.
const OS2_HEADER: u32 = 64;

/// Whether the bytes are a bitmap as clipboards hold it: the usual header without the file header before it.
pub(super) fn lacks_file_header(bytes: &[u8]) -> bool {
    let is_plausible_depth = matches!(bytes.get(14..16), Some([1 | 4 | 8 | 16 | 24 | 32, 0]));
    bytes.starts_with(&(INFO_HEADER as u32).to_le_bytes()) && bytes.get(12..14) == Some(&[1, 0]) && is_plausible_depth
}

/// Decodes a bitmap.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let bytes = repaired(bytes);
    if let Some(depth) = run_length_depth(&bytes) {
        let pixels = rle::decode(&bytes, depth, limits)?;
        return Ok(Decoded { pixels, orientation: None, notes: Vec::new() });
    }
    let decoder = BmpDecoder::new(Cursor::new(bytes.as_ref())).map_err(|error| classify(ImageFormat::Bmp, &error))?;
    decode_generic(ImageFormat::Bmp, decoder, limits)
}

fn run_length_depth(bytes: &[u8]) -> Option<rle::Depth> {
    if number(bytes, HEADER_SIZE)? < INFO_HEADER as u32 {
        return None;
    }
    match (number(bytes, COMPRESSION)?, number(bytes, DEPTH)? & 0xffff) {
        (1, 8) => Some(rle::Depth::Eight),
        (2, 4) => Some(rle::Depth::Four),
        _ => None,
    }
}

/// Repairs what other readers of bitmaps forgive: a missing file header, OS/2's longer header, and a number of planes other than
/// one.
fn repaired(original: &[u8]) -> Cow<'_, [u8]> {
    let mut bytes = Cow::Borrowed(original);
    if lacks_file_header(original) {
        bytes = Cow::Owned([&file_header(original), original].concat());
    }
    if number(&bytes, HEADER_SIZE) == Some(OS2_HEADER) {
        bytes = Cow::Owned(without_os2_fields(&bytes));
    }
    let has_planes = number(&bytes, HEADER_SIZE).is_some_and(|size| size >= INFO_HEADER as u32);
    if has_planes && bytes.get(PLANES..PLANES + 2).is_some_and(|planes| planes != [1, 0]) {
        bytes.to_mut()[PLANES..PLANES + 2].copy_from_slice(&[1, 0]);
    }
    bytes
}

/// The file header that a clipboard's bitmap would have. The pixels follow the palette or the three masks.
fn file_header(bitmap: &[u8]) -> [u8; FILE_HEADER] {
    let depth = bitmap.get(14).copied().unwrap_or(0);
    let stated = number(bitmap, COLORS_USED - FILE_HEADER).unwrap_or(0);
    let colors = match (stated, depth) {
        (0, 1..=8) => 1 << depth,
        (stated, _) => stated.min(256),
    };
    let masks = if number(bitmap, COMPRESSION - FILE_HEADER) == Some(3) { 12 } else { 0 };
    let pixels = (FILE_HEADER + INFO_HEADER) as u32 + colors * 4 + masks;
    let mut header = [0; FILE_HEADER];
    header[..2].copy_from_slice(b"BM");
    header[2..6].copy_from_slice(&((FILE_HEADER + bitmap.len()) as u32).to_le_bytes());
    header[10..].copy_from_slice(&pixels.to_le_bytes());
    header
}

/// Cuts the 24 bytes that only OS/2 knows out of the header.
fn without_os2_fields(bytes: &[u8]) -> Vec<u8> {
    let (kept, cut) = (FILE_HEADER + INFO_HEADER, FILE_HEADER + OS2_HEADER as usize);
    let mut shorter = [bytes.get(..kept).unwrap_or(bytes), bytes.get(cut..).unwrap_or(&[])].concat();
    if let Some(pixels) = number(bytes, PIXELS).filter(|_| shorter.len() >= kept) {
        let pixels = pixels.saturating_sub((cut - kept) as u32);
        shorter[PIXELS..PIXELS + 4].copy_from_slice(&pixels.to_le_bytes());
        shorter[HEADER_SIZE..HEADER_SIZE + 4].copy_from_slice(&(INFO_HEADER as u32).to_le_bytes());
    }
    shorter
}

/// The little-endian number at `at`.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes)
}
