//! Reads EXIF data from the text chunks of a PNG. ImageMagick and older tools keep it there, since PNG had no chunk for EXIF at
//! first.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

const KEYWORD: &[u8] = b"Raw profile type exif\0";
/// More than any EXIF block, which a JPEG segment bounds to 64 KiB, needs as text.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// The EXIF data in the text chunks of a PNG, if it is there and whole.
pub(super) fn exif_in_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes.get(8..)?;
    loop {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let (kind, data) = (rest.get(4..8)?, rest.get(8..length.checked_add(8)?)?);
        if let Some(value) = data.strip_prefix(KEYWORD) {
            match kind {
                b"tEXt" => return profile(value),
                b"zTXt" => return profile(&inflated(value.strip_prefix(b"\0")?)?),
                _ => {}
            }
        }
        // Each chunk ends with a checksum of four bytes.
        rest = rest.get(length + 12..)?;
    }
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
    fn a_profile_in_text_is_read_whole() {
        let text = b"Raw profile type exif\0\nexif\n       4\n45786966\n";
        assert_eq!(exif_in_text(&png_with(b"tEXt", text)), Some(b"Exif".to_vec()));
        assert_eq!(exif_in_text(&png_with(b"tEXt", b"Comment\0\nexif\n4\n45786966\n")), None);
        assert_eq!(exif_in_text(b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt"), None);
    }
}
