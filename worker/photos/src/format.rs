//! The formats that are decoded, with their names and extensions.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

/// A format that is decoded here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// JPEG, baseline and progressive.
    Jpeg,
    /// PNG, also animated.
    Png,
    /// WebP, lossy, lossless and animated.
    WebP,
    /// GIF.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF, also BigTIFF.
    Tiff,
}

impl ImageFormat {
    /// The name in lower case, as stored in datasets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
        }
    }

    /// The extensions, in lower case, that promise this format.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Jpeg => &["jpg", "jpeg", "jpe", "jfif", "mpo"],
            Self::Png => &["png", "apng"],
            Self::WebP => &["webp"],
            Self::Gif => &["gif"],
            Self::Bmp => &["bmp", "dib"],
            Self::Tiff => &["tif", "tiff"],
        }
    }

    /// Whether the extension of `path` promises this format. A path without extension promises nothing and is fine.
    pub fn matches_extension(self, path: &str) -> bool {
        match Path::new(path).extension().and_then(|extension| extension.to_str()) {
            Some(extension) => self.extensions().contains(&extension.to_ascii_lowercase().as_str()),
            None => true,
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_promises_a_format_whatever_its_case() {
        assert!(ImageFormat::Jpeg.matches_extension("a/B.JPG"));
        assert!(ImageFormat::Jpeg.matches_extension("a/no_extension"));
        assert!(!ImageFormat::Png.matches_extension("a/b.jpg"));
    }
}
