//! Finds the format of a file from its first bytes, never from its name, and names formats that are not read.

use super::{bmp, error::DecodeError, format::ImageFormat};

impl ImageFormat {
    /// Finds the format from the first bytes.
    ///
    /// # Errors
    /// [`DecodeError::Empty`], [`DecodeError::UnsupportedFormat`] or [`DecodeError::NotAnImage`].
    pub fn sniff(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if let Some(name) = unsupported_tiff_relative(bytes) {
            return Err(DecodeError::UnsupportedFormat { name });
        }
        let supported = SUPPORTED.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| *format);
        if let Some(format) = supported {
            return Ok(format);
        }
        if bmp::lacks_file_header(bytes) {
            return Ok(Self::Bmp);
        }
        if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            return Ok(Self::WebP);
        }
        Err(unsupported_name(bytes).map_or(DecodeError::NotAnImage, |name| DecodeError::UnsupportedFormat { name }))
    }
}

const SUPPORTED: [(&[u8], ImageFormat); 9] = [
    (b"\xff\xd8\xff", ImageFormat::Jpeg),
    (b"\x89PNG\r\n\x1a\n", ImageFormat::Png),
    (b"GIF87a", ImageFormat::Gif),
    (b"GIF89a", ImageFormat::Gif),
    (b"BM", ImageFormat::Bmp),
    (b"II*\0", ImageFormat::Tiff),
    (b"MM\0*", ImageFormat::Tiff),
    (b"II+\0", ImageFormat::Tiff),
    (b"MM\0+", ImageFormat::Tiff),
];

/// First bytes of formats that people often have, so that a refusal can name the format.
const UNSUPPORTED: [(&[u8], &str); 34] = [
    (b"\x00\x00\x00\x0cJXL ", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cjP  ", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"8BPS", "psd"),
    (b"%PDF", "pdf"),
    (b"%!PS", "postscript"),
    (b"\xc5\xd0\xd3\xc6", "postscript"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"\x00\x00\x02\x00", "cur"),
    (b"icns", "icns"),
    (b"DDS ", "dds"),
    (b"qoif", "qoi"),
    (b"\x76\x2f\x31\x01", "openexr"),
    (b"#?RADIANCE", "hdr"),
    (b"gimp xcf", "xcf"),
    (b"/* XPM */", "xpm"),
    (b"#define ", "xbm"),
    (b"P1", "pnm"),
    (b"P2", "pnm"),
    (b"P3", "pnm"),
    (b"P4", "pnm"),
    (b"P5", "pnm"),
    (b"P6", "pnm"),
    (b"Pf", "pfm"),
    (b"\x01\xda", "sgi"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"\xd7\xcd\xc6\x9a", "wmf"),
    (b"SIMPLE  =", "fits"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "rar"),
    (b"\x1aE\xdf\xa3", "video"),
];

/// Recognises camera files that look like TIFF but hold a sensor's mosaic and at most a thumbnail.
fn unsupported_tiff_relative(bytes: &[u8]) -> Option<&'static str> {
    let is_cr2 = bytes.starts_with(b"II*\0") && bytes.get(8..10) == Some(b"CR");
    let is_orf = bytes.starts_with(b"IIRO") || bytes.starts_with(b"IIRS");
    let is_rw2 = bytes.starts_with(b"IIU\0");
    (is_cr2 || is_orf || is_rw2).then_some("camera raw")
}

fn unsupported_name(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(iso_media_name(bytes.get(8..12)?));
    }
    UNSUPPORTED
        .iter()
        .find(|(magic, _)| bytes.starts_with(magic))
        .map(|(_, name)| *name)
        .or_else(|| is_svg(bytes).then_some("svg"))
}

fn iso_media_name(brand: &[u8]) -> &'static str {
    match brand {
        b"avif" | b"avis" => "avif",
        b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1" => "heic",
        b"crx " => "camera raw",
        _ => "video",
    }
}

/// An SVG starts with its element, after at most a byte order mark, a declaration, comments and blanks.
fn is_svg(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    head.starts_with("<svg") || (head.starts_with('<') && head.contains("<svg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_are_not_read_are_refused_by_name() {
        let heic = b"\x00\x00\x00\x18ftypheic\x00\x00";
        let avif = b"\x00\x00\x00\x20ftypavif\x00\x00";
        let svg = b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- a cat -->\n<svg width=\"1\"/>";
        for (bytes, name) in [(&heic[..], "heic"), (avif, "avif"), (svg, "svg"), (b"PK\x03\x04..", "zip")] {
            assert_eq!(ImageFormat::sniff(bytes), Err(DecodeError::UnsupportedFormat { name }));
        }
    }

    #[test]
    fn an_empty_file_and_a_file_that_is_no_image_are_told_apart() {
        assert_eq!(ImageFormat::sniff(b""), Err(DecodeError::Empty));
        assert_eq!(ImageFormat::sniff(b"hello"), Err(DecodeError::NotAnImage));
        assert_eq!(ImageFormat::sniff(b"<html><body>404</body></html>"), Err(DecodeError::NotAnImage));
    }
}
