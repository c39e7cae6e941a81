//! Why a file did not become a photo.

use super::format::ImageFormat;

/// Why bytes could not be decoded. [`DecodeError::reason`] is stable and meant for machines, the message for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The file holds no byte.
    #[error("the file is empty")]
    Empty,
    /// The first bytes belong to no format that is known by name.
    #[error("the file is not an image of any known format")]
    NotAnImage,
    /// A known format that is not read here.
    #[error("{name} is not supported; {}", conversion(.name))]
    UnsupportedFormat {
        /// The format in lower case, such as `heic`.
        name: &'static str,
    },
    /// A supported format in a variant that is not read here.
    #[error("this kind of {format} is not supported: {detail}")]
    UnsupportedFeature {
        /// The format of the file.
        format: ImageFormat,
        /// What is special about the file, in the decoder's words.
        detail: String,
    },
    /// The data ends before the picture does.
    #[error("the {format} file is cut off: its data ends before the picture does")]
    Truncated {
        /// The format of the file.
        format: ImageFormat,
    },
    /// The data contradicts its format.
    #[error("the {format} file is damaged: {detail}")]
    Corrupt {
        /// The format of the file.
        format: ImageFormat,
        /// What is wrong, in the decoder's words.
        detail: String,
    },
    /// The file is larger than the limit.
    #[error("the file has {bytes} bytes, more than the {limit} allowed")]
    TooManyBytes {
        /// Size of the file in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The header announces more pixels than the limits allow.
    #[error(
        "the picture is {width} x {height} pixels, more than the allowed {max_pixels} in all or {max_side} on a side"
    )]
    TooManyPixels {
        /// Announced width in pixels.
        width: u32,
        /// Announced height in pixels.
        height: u32,
        /// The limit of width times height.
        max_pixels: u64,
        /// The limit of either side.
        max_side: u32,
    },
    /// The header announces a picture without pixels.
    #[error("the picture is {width} x {height} pixels: there is nothing to see")]
    NoPixels {
        /// Announced width in pixels.
        width: u32,
        /// Announced height in pixels.
        height: u32,
    },
    /// The decoder panicked. That is a defect of the decoder, but the file is refused to be safe.
    #[error("the {format} decoder gave up on the file")]
    DecoderFailed {
        /// The format of the file.
        format: ImageFormat,
    },
}

/// What to do with a file of a format that is not read here.
fn conversion(name: &str) -> &'static str {
    match name {
        "heic" | "avif" => "convert it to JPEG, for example with heif-convert (Debian: libheif-examples)",
        "svg" => "convert it to PNG, for example with rsvg-convert (Debian: librsvg2-bin)",
        "camera raw" => "export it as JPEG from the camera's program, or convert it with darktable-cli",
        "zip" | "gzip" | "7z" | "rar" => "unpack it into the folder",
        "video" => "save single pictures of it",
        _ => "convert it to JPEG or PNG",
    }
}

impl DecodeError {
    /// A stable word for tables and machines.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotAnImage => "not_an_image",
            Self::UnsupportedFormat { .. } => "unsupported_format",
            Self::UnsupportedFeature { .. } => "unsupported_feature",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt { .. } => "corrupt",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::NoPixels { .. } => "no_pixels",
            Self::DecoderFailed { .. } => "decoder_failed",
        }
    }

    /// The name of a known format that is not read here. Such files do not count as failures of a set of photos.
    pub fn unsupported_format(&self) -> Option<&'static str> {
        match self {
            Self::UnsupportedFormat { name } => Some(name),
            _ => None,
        }
    }
}
