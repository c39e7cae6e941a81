//! From a compressed strip or tile to samples of one byte.

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use weezl::{BitOrder, LzwStatus, decode::Decoder as LzwDecoder};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use super::{
    corrupt,
    directory::ByteOrder,
    fax,
    page::{Compression, Page, Photometric, SampleFormat},
    truncated, unsupported,
};
use crate::error::DecodeError;

/// More than any strip of a picture within the limits has at 16 bits and two channels. It bounds what a few bytes can expand to.
const MAX_CHUNK_BYTES: usize = 1 << 30;

/// A chunk with one byte a sample, rows without padding.
pub(super) struct Chunk {
    pub(super) samples: Vec<u8>,
    /// Samples in a row.
    pub(super) row: usize,
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
    for bytes in bytes.chunks_exact(row_bytes) {
        to_bytes(bytes, page, row, &mut samples);
    }
    Ok(Chunk { samples, row })
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

/// Spreads the samples of a row to one byte each. Palette indices are kept, other unsigned samples are scaled to 0..=255; signed
/// samples, floats and those of 32 bits have no agreed range, and are cut to 0..=255 as Pillow does.
fn to_bytes(row: &[u8], page: &Page, count: usize, samples: &mut Vec<u8>) {
    let bits = page.bits;
    let is_index = page.photometric == Photometric::Palette;
    let largest = (1u64 << bits.min(32)) - 1;
    let scaled =
        |value: u64| if is_index { value.min(255) as u8 } else { ((value * 255 + largest / 2) / largest) as u8 };
    match (page.format, bits) {
        // Pillow shows signed bytes as they are stored.
        (SampleFormat::Unsigned | SampleFormat::Signed, 8) => samples.extend_from_slice(&row[..count]),
        (SampleFormat::Float, _) => {
            let values = row.chunks_exact(bits / 8).take(count);
            samples.extend(values.map(|bytes| float(page.order.number(bytes), bits) as u8));
        }
        (SampleFormat::Signed, _) | (_, 32 | 64) => {
            let values = row.chunks_exact(bits.div_ceil(8)).take(count);
            let is_signed = page.format == SampleFormat::Signed;
            samples.extend(values.map(|bytes| {
                let value = page.order.number(bytes);
                let is_negative = is_signed && value >> (bits - 1) == 1;
                if is_negative { 0 } else { value.min(255) as u8 }
            }));
        }
        (SampleFormat::Unsigned, 16) => {
            samples.extend(row.chunks_exact(2).take(count).map(|bytes| scaled(page.order.number(bytes))));
        }
        (SampleFormat::Unsigned, _) => {
            let bit = |at: usize| u64::from(row[at / 8] >> (7 - at % 8) & 1);
            let value =
                |sample: usize| (sample * bits..(sample + 1) * bits).fold(0, |value, at| (value << 1) | bit(at));
            samples.extend((0..count).map(|sample| scaled(value(sample))));
        }
    }
}

/// A float of 32 or 64 bits; no page has floats of another width.
fn float(bits: u64, width: usize) -> f64 {
    match width {
        32 => f32::from_bits(bits as u32).into(),
        64 => f64::from_bits(bits),
        _ => 0.0,
    }
}

/// A chunk that is a JPEG file, possibly without its tables, which are then given once for all chunks.
fn decode_jpeg(data: &[u8], page: &Page, extent: Extent, jpeg_tables: Option<&[u8]>) -> Result<Chunk, DecodeError> {
    let tables = jpeg_tables.and_then(|tables| tables.strip_suffix(b"\xff\xd9"));
    let whole = match (tables, data.strip_prefix(b"\xff\xd8")) {
        (Some(tables), Some(rest)) => [tables, rest].concat(),
        _ => data.to_vec(),
    };
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(whole.as_slice()), DecoderOptions::default());
    decoder.decode_headers().map_err(|error| corrupt(error.to_string()))?;
    let info = decoder.info().expect("the headers were decoded");
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    if width < extent.width || height < extent.rows || usize::from(info.components) != extent.channels {
        return Err(corrupt(format!("a chunk of {width} x {height} pixels where {extent:?} is expected")));
    }
    if u64::from(width) * u64::from(height) > 4 * (u64::from(extent.width) * u64::from(extent.rows)).max(1 << 16) {
        return Err(corrupt(format!("a chunk of {width} x {height} pixels for {extent:?}")));
    }
    // The tag says what the channels mean; without conversion they come as stored.
    let stored = decoder.input_colorspace().unwrap_or(ColorSpace::Luma);
    let is_ycbcr = page.photometric == Photometric::YCbCr && extent.channels == 3;
    let output = if is_ycbcr { ColorSpace::RGB } else { stored };
    decoder.set_options(DecoderOptions::default().jpeg_set_out_colorspace(output));
    let samples = decoder.decode().map_err(|error| corrupt(error.to_string()))?;
    Ok(Chunk { samples, row: width as usize * extent.channels })
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
