//! Photos as bytes and pixels: decoding under limits, resizing, perceptual hashes. This package knows no tensor.

mod bmp;
mod decode;
pub mod derivative;
mod error;
mod format;
mod generic;
mod icc;
mod jpeg;
pub mod neighbours;
mod orientation;
pub mod phash;
mod photo;
mod pixels;
mod png;
pub mod resize;
mod sniff;
mod tiff;

pub use decode::decode;
pub use error::DecodeError;
pub use format::ImageFormat;
pub use orientation::Orientation;
pub use photo::{DecodeLimits, Note, Photo};
