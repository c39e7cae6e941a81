//! TIFF: the first page, in the sample layouts that scanners, cameras and editors write.
//!
//! Strips and tiles, channels together or apart, in whole numbers of 1 to 64 bits and in floats from 0 to 1; grey, palette, RGB, CMYK, CIE Lab and what JPEG
//! keeps of YCbCr; uncompressed, LZW, Deflate, PackBits, fax and JPEG. The parser is our own: writers take liberties that other
//! readers forgive and that no library for TIFF does. Libraries decode what is compressed, except for PackBits.

mod chunk;
mod color;
mod directory;
mod fax;
mod page;
mod sample;
mod tag;

use self::{
    chunk::Extent,
    directory::Directory,
    page::{Alpha, Compression, Page, Photometric},
};
use super::{
    error::DecodeError,
    format::ImageFormat,
    icc, jpeg,
    orientation::Orientation,
    photo::{DecodeLimits, Decoded, Note},
    pixels::Pixels,
};

/// Decodes the first page.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let directory = Directory::first(bytes)?;
    let page = Page::read(&directory, limits)?;
    let orientation =
        directory.first_number(tag::ORIENTATION)?.and_then(|value| Orientation::from_exif_value(value as u32));
    let in_xmp = || directory.blob(tag::XMP).ok().flatten().and_then(Orientation::from_xmp);
    let orientation = orientation.or_else(in_xmp);
    if let Compression::OldJpeg(offset) = page.compression {
        return Ok(Decoded { orientation, ..jpeg::decode(directory.up_to(offset, u64::MAX)?, limits)? });
    }
    if page.photometric == Photometric::YCbCr && page.compression != Compression::Jpeg {
        return Err(unsupported("YCbCr outside of JPEG".into()));
    }
    let palette = match page.photometric {
        Photometric::Palette => directory.numbers(tag::COLOR_MAP)?,
        _ => Vec::new(),
    };
    let raster = raster(&directory, &page)?;
    let rgb = color::to_rgb(&page, &raster, &palette);
    let pixels = Pixels { width: page.width, height: page.height, rgb };
    let mut notes = notes(&page);
    if directory.blob(tag::ICC_PROFILE).ok().flatten().is_some_and(icc::is_not_srgb) {
        notes.push(Note::ColorProfile);
    }
    Ok(Decoded { pixels, orientation, notes })
}

/// All chunks put together: `[height, width, kept]` u8.
fn raster(directory: &Directory<'_>, page: &Page) -> Result<Vec<u8>, DecodeError> {
    let (width, height, kept) = (page.width as usize, page.height as usize, page.kept());
    let (across, down) = (page.chunks_across(), page.chunks_down());
    let planes = if page.is_planar { kept } else { 1 };
    let jpeg_tables = directory.blob(tag::JPEG_TABLES)?;
    let mut raster = vec![0; width * height * kept];
    let mut brightest: f64 = 0.0;
    for (plane, index) in (0..planes).flat_map(|plane| (0..across * down).map(move |index| (plane, index))) {
        let (left, top) = (index % across * page.chunks.width as usize, index / across * page.chunks.height as usize);
        let rows = (height - top).min(page.chunks.height as usize);
        let extent = Extent {
            width: page.chunks.width,
            rows: if page.chunks.are_tiles { page.chunks.height } else { rows as u32 },
            channels: if page.is_planar { 1 } else { page.samples },
        };
        let at = plane * across * down + index;
        let data = directory.up_to(page.chunks.offsets[at], page.chunks.lengths[at])?;
        let chunk = chunk::decode(data, page, extent, jpeg_tables)?;
        brightest = brightest.max(chunk.brightest);
        let columns = (width - left).min(extent.width as usize);
        // How many channels of a pixel are copied, and which channel of the raster is the first of them.
        let (copied, first) = if page.is_planar { (1, plane) } else { (kept, 0) };
        for (row, samples) in chunk.samples.chunks_exact(chunk.row).take(rows).enumerate() {
            let start = ((top + row) * width + left) * kept;
            let target = raster[start..start + columns * kept].chunks_exact_mut(kept);
            for (target, pixel) in target.zip(samples.chunks_exact(extent.channels)) {
                target[first..first + copied].copy_from_slice(&pixel[..copied]);
            }
        }
    }
    sample::check_use_of_range(page, brightest)?;
    Ok(raster)
}

fn notes(page: &Page) -> Vec<Note> {
    let mut notes = Vec::new();
    if page.alpha != Alpha::None {
        notes.push(Note::AlphaOverWhite);
    }
    if page.photometric == Photometric::Cmyk {
        notes.push(Note::Cmyk);
    }
    if page.bits > 8 {
        notes.push(Note::DepthReduced);
    }
    notes
}

fn unsupported(detail: String) -> DecodeError {
    DecodeError::UnsupportedFeature { format: ImageFormat::Tiff, detail }
}

fn corrupt(detail: String) -> DecodeError {
    DecodeError::Corrupt { format: ImageFormat::Tiff, detail }
}

fn truncated() -> DecodeError {
    DecodeError::Truncated { format: ImageFormat::Tiff }
}
