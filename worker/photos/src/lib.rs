//! Photos as bytes and pixels: decoding under limits, resizing, perceptual hashes. Knows no tensor.

mod bmp;
pub mod decode;
pub mod derivative;
mod error;
mod format;
mod jpeg;
pub mod neighbours;
mod orientation;
pub mod phash;
mod pixels;
mod png;
pub mod resize;
mod tiff;

pub use decode::{DecodeLimits, Note, Photo, decode};
pub use error::DecodeError;
pub use format::ImageFormat;
pub use orientation::Orientation;
