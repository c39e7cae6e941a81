//! libjpeg-turbo, for the pictures that the fast decoder does not decode right. Pillow and browsers use the same library.

use std::{
    ffi::{c_int, c_long},
    panic::{self, AssertUnwindSafe},
    ptr,
};

use mozjpeg::{ColorSpace, ColorSpaceExt as _, decompress::DecompressBuilder};
use mozjpeg_sys::{self as ffi, jpeg_common_struct, jpeg_error_mgr};

use super::{Raster, Wanted};
use crate::{error::DecodeError, format::ImageFormat};

/// The number of a message of the library.
struct Message(c_int);

/// Decodes a picture. What the library only warns of and then papers over, such as a bad code or data that end early, is an error.
pub(super) fn decode(picture: &[u8], wanted: Wanted) -> Result<Raster, DecodeError> {
    panic::catch_unwind(AssertUnwindSafe(|| read(picture, wanted))).unwrap_or_else(|payload| {
        match payload.downcast::<Message>() {
            Ok(message) => Err(message.meaning()),
            Err(other) => panic::resume_unwind(other),
        }
    })
}

fn read(picture: &[u8], wanted: Wanted) -> Result<Raster, DecodeError> {
    let failed = |error: std::io::Error| DecodeError::Corrupt { format: ImageFormat::Jpeg, detail: error.to_string() };
    let decoder = DecompressBuilder::new().with_err(strict_errors()).from_mem(picture).map_err(failed)?;
    let stored = decoder.color_space();
    let has_inks = matches!(stored, ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK);
    let output = match wanted {
        Wanted::Stored => stored,
        Wanted::Color if has_inks => ColorSpace::JCS_CMYK,
        Wanted::Color => ColorSpace::JCS_RGB,
    };
    let mut lines = decoder.to_colorspace(output).map_err(failed)?;
    let (width, height, channels) = (lines.width(), lines.height(), lines.color_space().num_components());
    let samples = lines.read_scanlines::<u8>().map_err(failed)?;
    Ok(Raster { width: width as u32, height: height as u32, channels, samples })
}

/// An error manager that unwinds at each error and at each warning about the picture's data.
fn strict_errors() -> jpeg_error_mgr {
    jpeg_error_mgr {
        error_exit: Some(give_up),
        emit_message: Some(judge),
        output_message: Some(say_nothing),
        format_message: None,
        reset_error_mgr: Some(say_nothing),
        msg_code: 0,
        msg_parm: ffi::msg_parm_union::default(),
        trace_level: 0,
        num_warnings: c_long::default(),
        jpeg_message_table: ptr::null(),
        last_jpeg_message: 0,
        addon_message_table: ptr::null(),
        first_addon_message: 0,
        last_addon_message: 0,
    }
}

extern "C-unwind" fn say_nothing(_: &mut jpeg_common_struct) {}

extern "C-unwind" fn give_up(state: &mut jpeg_common_struct) {
    panic::resume_unwind(Box::new(Message::of(state)));
}

/// Called with a negative level for warnings, otherwise for remarks.
extern "C-unwind" fn judge(state: &mut jpeg_common_struct, level: c_int) {
    let message = Message::of(state);
    if level < 0 && !message.is_harmless() {
        panic::resume_unwind(Box::new(message));
    }
}

impl Message {
    #[allow(unsafe_code, reason = "the library tells the number of its message only through a pointer")]
    fn of(state: &jpeg_common_struct) -> Self {
        // SAFETY: the library sets `err` to the error manager before it calls one of the manager's functions.
        Self(unsafe { (*state.err).msg_code })
    }

    /// Whether the message says nothing about the pixels.
    fn is_harmless(&self) -> bool {
        [
            ffi::JWRN_ADOBE_XFORM,
            ffi::JWRN_BOGUS_ICC,
            ffi::JWRN_EXTRANEOUS_DATA,
            ffi::JWRN_JFIF_MAJOR,
            ffi::JWRN_NOT_SEQUENTIAL,
        ]
        .contains(&self.0)
    }

    fn meaning(&self) -> DecodeError {
        let format = ImageFormat::Jpeg;
        let unsupported = |detail: &str| DecodeError::UnsupportedFeature { format, detail: detail.into() };
        let corrupt = |detail: &str| DecodeError::Corrupt { format, detail: detail.into() };
        match self.0 {
            ffi::JERR_FRACT_SAMPLE_NOTIMPL | ffi::JERR_CCIR601_NOTIMPL | ffi::JERR_BAD_MCU_SIZE => {
                unsupported("its components have sides that are no multiples of one another")
            }
            ffi::JERR_CONVERSION_NOTIMPL => unsupported("its colour space"),
            ffi::JERR_COMPONENT_COUNT => unsupported("its number of colour components"),
            ffi::JWRN_HIT_MARKER | ffi::JWRN_JPEG_EOF => DecodeError::Truncated { format },
            ffi::JWRN_HUFF_BAD_CODE => corrupt("a code that is in no Huffman table"),
            ffi::JWRN_MUST_RESYNC => corrupt("restart markers in the wrong order"),
            ffi::JWRN_BOGUS_PROGRESSION => corrupt("progressive scans in an impossible order"),
            ffi::JERR_BAD_HUFF_TABLE | ffi::JERR_NO_HUFF_TABLE => corrupt("a Huffman table is wrong or missing"),
            ffi::JERR_NO_QUANT_TABLE => corrupt("a quantization table is missing"),
            other => corrupt(&format!("libjpeg's error {other}")),
        }
    }
}
