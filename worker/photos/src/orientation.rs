//! Turns pictures upright, as their metadata asks.

use super::pixels::Pixels;

/// How the stored picture must be turned to stand upright; EXIF's values 1 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// 1: as stored.
    Upright,
    /// 2: mirror left and right.
    MirrorHorizontal,
    /// 3: half a turn.
    Rotate180,
    /// 4: mirror top and bottom.
    MirrorVertical,
    /// 5: mirror along the main diagonal.
    Transpose,
    /// 6: a quarter turn clockwise.
    Rotate90,
    /// 7: mirror along the other diagonal.
    Transverse,
    /// 8: a quarter turn counter-clockwise.
    Rotate270,
}

impl Orientation {
    /// From EXIF's number; anything outside 1 to 8 means nothing and gives `None`.
    pub fn from_exif_value(value: u32) -> Option<Self> {
        Some(match value {
            1 => Self::Upright,
            2 => Self::MirrorHorizontal,
            3 => Self::Rotate180,
            4 => Self::MirrorVertical,
            5 => Self::Transpose,
            6 => Self::Rotate90,
            7 => Self::Transverse,
            8 => Self::Rotate270,
            _ => return None,
        })
    }

    /// Reads the orientation from EXIF data, with or without the `Exif\0\0` prefix. `None` if the data states no
    /// orientation or cannot be read: damaged metadata is no reason to refuse a photo.
    pub fn from_exif(data: &[u8]) -> Option<Self> {
        let tiff = data.strip_prefix(b"Exif\0\0").unwrap_or(data);
        let mut reader = exif::Reader::new();
        reader.continue_on_error(true);
        let fields = match reader.read_raw(tiff.to_vec()) {
            Ok(fields) => fields,
            Err(exif::Error::PartialResult(partial)) => partial.into_inner().0,
            Err(_) => return None,
        };
        let field = fields.get_field(exif::Tag::Orientation, exif::In::PRIMARY)?;
        field.value.get_uint(0).and_then(Self::from_exif_value)
    }

    /// Reads `tiff:Orientation` from an XMP packet, where it is an attribute or an element. Editors that write no EXIF
    /// state the orientation there.
    pub fn from_xmp(packet: &[u8]) -> Option<Self> {
        const NAME: &[u8] = b"tiff:Orientation";
        let start = packet.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
        let rest = &packet[start..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        let digit = value.first().filter(|byte| byte.is_ascii_digit())?;
        Self::from_exif_value(u32::from(digit - b'0'))
    }

    /// Whether width and height change places.
    fn swaps_sides(self) -> bool {
        matches!(self, Self::Transpose | Self::Rotate90 | Self::Transverse | Self::Rotate270)
    }

    /// The stored (x, y) that is seen at (x, y) of the upright picture; `width` and `height` are the stored sides.
    fn source(self, x: usize, y: usize, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Upright => (x, y),
            Self::MirrorHorizontal => (width - 1 - x, y),
            Self::Rotate180 => (width - 1 - x, height - 1 - y),
            Self::MirrorVertical => (x, height - 1 - y),
            Self::Transpose => (y, x),
            Self::Rotate90 => (y, height - 1 - x),
            Self::Transverse => (width - 1 - y, height - 1 - x),
            Self::Rotate270 => (width - 1 - y, x),
        }
    }

    /// Turns the pixels upright.
    pub(super) fn apply(self, stored: Pixels) -> Pixels {
        if self == Self::Upright {
            return stored;
        }
        let (width, height) = (stored.width as usize, stored.height as usize);
        let (out_width, out_height) = if self.swaps_sides() { (height, width) } else { (width, height) };
        let mut rgb = Vec::with_capacity(stored.rgb.len());
        for y in 0..out_height {
            for x in 0..out_width {
                let (source_x, source_y) = self.source(x, y, width, height);
                let start = (source_y * width + source_x) * 3;
                rgb.extend_from_slice(&stored.rgb[start..start + 3]);
            }
        }
        Pixels { width: out_width as u32, height: out_height as u32, rgb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a b c / d e f`, one letter for each pixel.
    fn letters(width: u32, height: u32, text: &str) -> Pixels {
        Pixels { width, height, rgb: text.bytes().flat_map(|letter| [letter; 3]).collect() }
    }

    #[test]
    fn each_orientation_turns_the_picture_as_exif_defines() {
        let expected = [
            (1, 3, 2, "abcdef"),
            (2, 3, 2, "cbafed"),
            (3, 3, 2, "fedcba"),
            (4, 3, 2, "defabc"),
            (5, 2, 3, "adbecf"),
            (6, 2, 3, "daebfc"),
            (7, 2, 3, "fcebda"),
            (8, 2, 3, "cfbead"),
        ];
        for (value, width, height, text) in expected {
            let orientation = Orientation::from_exif_value(value).expect("1 to 8 are orientations");
            assert_eq!(orientation.apply(letters(3, 2, "abcdef")), letters(width, height, text), "value {value}");
        }
    }

    #[test]
    fn damaged_metadata_leaves_the_picture_as_it_is() {
        assert_eq!(Orientation::from_exif(b"Exif\0\0II*\0\xff\xff\xff\xff"), None);
        assert_eq!(Orientation::from_exif(b""), None);
        assert_eq!(Orientation::from_exif_value(9), None);
    }

    #[test]
    fn xmp_states_the_orientation_as_attribute_or_element() {
        assert_eq!(Orientation::from_xmp(b"<x tiff:Orientation=\"3\"/>"), Some(Orientation::Rotate180));
        assert_eq!(Orientation::from_xmp(b"<tiff:Orientation>6</tiff:Orientation>"), Some(Orientation::Rotate90));
        assert_eq!(Orientation::from_xmp(b"<tiff:Orientation> sideways"), None);
    }
}
