//! What the decoder of PNG leaves out: EXIF data in text chunks, and a check of all checksums.
//!
//! ImageMagick and older tools keep EXIF data in text, since PNG had no chunk for it at first.

use std::io::{self, Read as _};

use flate2::{Crc, read::ZlibDecoder};

const SIGNATURE: usize = 8;
const KEYWORD: &[u8] = b"Raw profile type exif\0";
/// More than any EXIF block, which a JPEG segment bounds to 64 KiB, needs as text.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// A chunk as it is stored.
struct Chunk<'a> {
    kind: &'a [u8],
    data: &'a [u8],
    /// The checksum over kind and data; `None` if the file ends before it.
    checksum: Option<u32>,
}

/// The chunks of a PNG, up to the first one that the file does not hold whole.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(SIGNATURE..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let number = |bytes: Option<&[u8]>| Some(u32::from_be_bytes(bytes?.try_into().ok()?));
        let end = (number(rest.get(..4))? as usize).checked_add(8)?;
        let (kind, data) = (rest.get(4..8)?, rest.get(8..end)?);
        let checksum = number(rest.get(end..end + 4));
        rest = rest.get(end + 4..).unwrap_or(&[]);
        Some(Chunk { kind, data, checksum })
    })
}

/// Whether the text of a `zTXt` chunk stays within [`MAX_TEXT_BYTES`].
fn has_short_text(data: &[u8]) -> bool {
    let end_of_keyword = data.iter().position(|byte| *byte == 0);
    let text = end_of_keyword.and_then(|end| inflated(data.get(end + 2..)?));
    text.is_some_and(|text| (text.len() as u64) < MAX_TEXT_BYTES)
}

/// Whether a strict reader opens a PNG that the decoder has read: the decoder forgives wrong checksums, a missing end, and text without
/// bounds.
pub(super) fn is_sound(bytes: &[u8]) -> bool {
    let mut compressed = Vec::new();
    for Chunk { kind, data, checksum } in chunks(bytes) {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(data);
        if checksum != Some(crc.sum()) {
            return false;
        }
        match kind {
            b"IDAT" => compressed.extend_from_slice(data),
            // Pillow refuses a picture with too much compressed text.
            b"zTXt" if !has_short_text(data) => return false,
            // Reading to the end compares the checksum of the pixels.
            b"IEND" => return io::copy(&mut ZlibDecoder::new(compressed.as_slice()), &mut io::sink()).is_ok(),
            _ => {}
        }
    }
    false
}

/// The EXIF data in the text chunks of a PNG, if it is there and whole.
pub(super) fn exif_in_text(bytes: &[u8]) -> Option<Vec<u8>> {
    chunks(bytes).find_map(|Chunk { kind, data, .. }| {
        let value = data.strip_prefix(KEYWORD)?;
        match kind {
            b"tEXt" => Some(profile(value)),
            b"zTXt" => Some(value.strip_prefix(b"\0").and_then(inflated).and_then(|text| profile(&text))),
            _ => None,
        }
    })?
}

fn inflated(data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    ZlibDecoder::new(data).take(MAX_TEXT_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The bytes of a profile: a line with its name, one with its length in bytes, then hexadecimal digits in lines.
fn profile(text: &[u8]) -> Option<Vec<u8>> {
    let mut lines = text.split(|byte| *byte == b'\n').skip_while(|line| line.is_empty()).skip(2);
    let digits: Vec<u8> = lines.by_ref().flatten().copied().filter(u8::is_ascii_hexdigit).collect();
    hex::decode(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_with(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u32).to_be_bytes();
        [b"\x89PNG\r\n\x1a\n".as_slice(), &length, kind, data, b"crc!"].concat()
    }

    #[test]
    fn a_wrong_checksum_of_a_chunk_or_of_the_pixels_is_found() {
        let sound = crate::derivative::encode_png(9, 7, &[5; 9 * 7 * 3]);
        assert!(is_sound(&sound));
        let pixels = sound.windows(4).position(|kind| kind == b"IDAT").expect("pixels") + 4;
        let length = u32::from_be_bytes(sound[pixels - 8..pixels - 4].try_into().expect("four bytes")) as usize;
        let mut wrong = sound.clone();
        wrong[pixels + length] ^= 1;
        assert!(!is_sound(&wrong), "the checksum of the chunk");
        let mut wrong = sound.clone();
        wrong[pixels + length - 1] ^= 1;
        let mut crc = Crc::new();
        crc.update(&wrong[pixels - 4..pixels + length]);
        wrong[pixels + length..pixels + length + 4].copy_from_slice(&crc.sum().to_be_bytes());
        assert!(!is_sound(&wrong), "the checksum of the pixels");
        assert!(!is_sound(&sound[..sound.len() - 12]), "no end");
    }

    #[test]
    fn a_profile_in_text_is_read_whole() {
        let text = b"Raw profile type exif\0\nexif\n       4\n45786966\n";
        assert_eq!(exif_in_text(&png_with(b"tEXt", text)), Some(b"Exif".to_vec()));
        assert_eq!(exif_in_text(&png_with(b"tEXt", b"Comment\0\nexif\n4\n45786966\n")), None);
        assert_eq!(exif_in_text(b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt"), None);
    }
}
