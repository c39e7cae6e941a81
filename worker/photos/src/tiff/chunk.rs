//! From a compressed strip or tile to samples of one byte.

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use weezl::{BitOrder, LzwStatus, decode::Decoder as LzwDecoder};

use super::{
    corrupt,
    directory::ByteOrder,
    fax,
    page::{Compression, Page, Photometric},
    sample, truncated, unsupported,
};
use crate::{
    error::DecodeError,
    jpeg::{self, Wanted},
    photo::DecodeLimits,
};

/// More than any strip of a picture within the limits has at 16 bits and two channels. It bounds what a few bytes can expand to.
const MAX_CHUNK_BYTES: usize = 1 << 30;

/// A chunk with one byte a sample, rows without padding.
pub(super) struct Chunk {
    pub(super) samples: Vec<u8>,
    /// Samples in a row.
    pub(super) row: usize,
    /// The largest colour sample, as a part of the range of its number format.
    pub(super) brightest: f64,
}

/// How large a chunk is in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Pixels in a row.
    pub(super) width: u32,
    pub(super) rows: u32,
    /// Samples of a pixel: 1 if each channel is stored by itself.
    pub(super) channels: usize,
}

/// Decodes a chunk.
pub(super) fn decode(
    data: &[u8],
    page: &Page,
    extent: Extent,
    jpeg_tables: Option<&[u8]>,
) -> Result<Chunk, DecodeError> {
    if page.compression == Compression::Jpeg {
        return decode_jpeg(data, page, extent, jpeg_tables);
    }
    let reversed: Vec<u8>;
    let data = if page.has_reversed_bits {
        reversed = data.iter().map(|byte| byte.reverse_bits()).collect();
        &reversed
    } else {
        data
    };
    let row = extent.width as usize * extent.channels;
    let row_bytes = (row * page.bits).div_ceil(8);
    if row_bytes.saturating_mul(extent.rows as usize) > MAX_CHUNK_BYTES {
        return Err(unsupported(format!("strips or tiles of {row_bytes} x {} bytes", extent.rows)));
    }
    let mut bytes = decompress(data, page.compression, extent, row_bytes * extent.rows as usize)?;
    for row in bytes.chunks_exact_mut(row_bytes) {
        undo_predictor(row, page, extent.channels)?;
    }
    let mut samples = Vec::with_capacity(row * extent.rows as usize);
    let mut brightest: f64 = 0.0;
    for bytes in bytes.chunks_exact(row_bytes) {
        brightest = brightest.max(sample::to_bytes(bytes, page, extent, &mut samples)?);
    }
    Ok(Chunk { samples, row, brightest })
}

/// Exactly `length` bytes.
fn decompress(data: &[u8], compression: Compression, extent: Extent, length: usize) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = match compression {
        Compression::None => data[..length.min(data.len())].to_vec(),
        Compression::Huffman | Compression::Fax3 | Compression::Fax4 => {
            fax::decode(data, compression, extent.width, extent.rows)?
        }
        Compression::Lzw => lzw(data, length)?,
        Compression::Deflate => {
            let mut bytes = Vec::new();
            let read = ZlibDecoder::new(data).take(length as u64).read_to_end(&mut bytes);
            read.map_err(|error| corrupt(error.to_string()))?;
            bytes
        }
        Compression::PackBits => pack_bits(data, length),
        Compression::Jpeg | Compression::OldJpeg(_) => unreachable!("JPEG is not decoded to bytes of samples"),
    };
    if bytes.len() < length {
        return Err(truncated());
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn lzw(data: &[u8], length: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = LzwDecoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut bytes = vec![0; length];
    let (mut read, mut written) = (0, 0);
    while written < length {
        let step = decoder.decode_bytes(&data[read..], &mut bytes[written..]);
        read += step.consumed_in;
        written += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::Done | LzwStatus::NoProgress) => break,
            Err(error) => return Err(corrupt(error.to_string())),
        }
    }
    bytes.truncate(written);
    Ok(bytes)
}

fn pack_bits(data: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    let mut at = 0;
    while let Some(control) = data.get(at).filter(|_| bytes.len() < length) {
        at += 1;
        match *control as i8 {
            -128 => {}
            repeats @ ..0 => {
                let Some(byte) = data.get(at) else { break };
                bytes.extend(std::iter::repeat_n(*byte, (1 - isize::from(repeats)) as usize));
                at += 1;
            }
            literals => {
                let end = (at + literals as usize + 1).min(data.len());
                bytes.extend_from_slice(&data[at..end]);
                at = end;
            }
        }
    }
    bytes
}

/// Turns differences along a row into values; `channels` samples apart.
fn undo_predictor(row: &mut [u8], page: &Page, channels: usize) -> Result<(), DecodeError> {
    match (page.predictor, page.bits) {
        (1, _) => {}
        (2, 8) => (channels..row.len()).for_each(|at| row[at] = row[at].wrapping_add(row[at - channels])),
        (2, 16) => {
            for at in (2 * channels..row.len().saturating_sub(1)).step_by(2) {
                let read = |at: usize| page.order.number(&row[at..at + 2]) as u16;
                let sum = read(at).wrapping_add(read(at - 2 * channels));
                let bytes = match page.order {
                    ByteOrder::Little => sum.to_le_bytes(),
                    ByteOrder::Big => sum.to_be_bytes(),
                };
                row[at..at + 2].copy_from_slice(&bytes);
            }
        }
        (predictor, bits) => return Err(unsupported(format!("predictor {predictor} with {bits} bits a sample"))),
    }
    Ok(())
}

/// A chunk that is a JPEG file, possibly without its tables, which are then given once for all chunks.
fn decode_jpeg(data: &[u8], page: &Page, extent: Extent, jpeg_tables: Option<&[u8]>) -> Result<Chunk, DecodeError> {
    let tables = jpeg_tables.and_then(|tables| tables.strip_suffix(b"\xff\xd9"));
    let whole = match (tables, data.strip_prefix(b"\xff\xd8")) {
        (Some(tables), Some(rest)) => [tables, rest].concat(),
        _ => data.to_vec(),
    };
    // The tag says what the channels mean; without conversion they come as stored.
    let is_ycbcr = page.photometric == Photometric::YCbCr && extent.channels == 3;
    let wanted = if is_ycbcr { Wanted::Color } else { Wanted::Stored };
    let max_pixels = 4 * (u64::from(extent.width) * u64::from(extent.rows)).max(1 << 16);
    let limits = DecodeLimits { max_pixels, ..DecodeLimits::default() };
    let raster = jpeg::decode_part(&whole, wanted, &limits).map_err(|error| match error {
        DecodeError::UnsupportedFeature { detail, .. } => unsupported(detail),
        DecodeError::Truncated { .. } => truncated(),
        error => corrupt(error.to_string()),
    })?;
    let (width, height) = (raster.width, raster.height);
    if width < extent.width || height < extent.rows || raster.channels != extent.channels {
        return Err(corrupt(format!("a chunk of {width} x {height} pixels where {extent:?} is expected")));
    }
    Ok(Chunk { samples: raster.samples, row: width as usize * extent.channels, brightest: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_bits_repeats_and_copies() {
        // Apple's example for the format: three literals, one byte three times, a no-op.
        let packed = [0x02, 0x80, 0x00, 0x2a, 0xfe, 0xaa, 0x80, 0x01, 0x01, 0x02];
        assert_eq!(pack_bits(&packed, 8), [0x80, 0x00, 0x2a, 0xaa, 0xaa, 0xaa, 0x01, 0x02]);
        assert_eq!(
            pack_bits(&[0x02, 0x80], 8),
            [0x80],
            "the bytes that are there are kept; the caller finds them too few"
        );
    }

    #[test]
    fn lzw_data_that_ends_early_gives_the_bytes_that_are_there() {
        assert!(lzw(&[], 4).is_ok_and(|bytes| bytes.is_empty()));
    }
}
