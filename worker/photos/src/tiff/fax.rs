//! Fax codes of black-and-white pages: one bit for each pixel, rows at whole bytes, 0 for white.

use std::convert::Infallible;

use fax::{
    BitReader, ByteReader, Color,
    decoder::{decode_g4, pels},
    maps::{black, white},
};

use super::{corrupt, page::Compression, truncated};
use crate::error::DecodeError;

/// Decodes `rows` rows of `width` pixels.
pub(super) fn decode(data: &[u8], compression: Compression, width: u32, rows: u32) -> Result<Vec<u8>, DecodeError> {
    let too_large = || corrupt(format!("a fax page of {width} x {rows} pixels"));
    let (width, rows) = (u16::try_from(width).map_err(|_| too_large())?, u16::try_from(rows).map_err(|_| too_large())?);
    let mut packed = Vec::with_capacity(usize::from(width).div_ceil(8) * usize::from(rows));
    if compression == Compression::Fax4 {
        let decoded = decode_g4(data.iter().copied(), width, Some(rows), |row| pack(row, width, &mut packed));
        decoded.ok_or_else(truncated)?;
        return Ok(packed);
    }
    // The last code may end with the data, but the reader looks beyond it.
    let bytes = data.iter().copied().chain([0, 0]).map(Ok::<_, Infallible>);
    let mut reader = ByteReader::new(bytes).map_err(|_| truncated())?;
    let mut changes = Vec::new();
    for _ in 0..rows {
        if compression == Compression::Fax3 {
            skip_end_of_line(&mut reader);
        }
        read_row(&mut reader, width, &mut changes)?;
        pack(&changes, width, &mut packed);
        if compression == Compression::Huffman {
            let bits = reader.bits_to_byte_boundary();
            let _ = reader.consume(bits);
        }
    }
    Ok(packed)
}

/// Skips the mark between rows, with the zeros that pad it.
fn skip_end_of_line(reader: &mut impl BitReader) {
    if reader.peek(11) == Some(0) {
        while reader.peek(1) == Some(0) {
            let _ = reader.consume(1);
        }
        let _ = reader.consume(1);
    }
}

/// Reads the positions at which a row changes its colour, beginning with white.
fn read_row<R: BitReader>(reader: &mut R, width: u16, changes: &mut Vec<u16>) -> Result<(), DecodeError> {
    changes.clear();
    let (mut position, mut is_white) = (0u16, true);
    while position < width {
        loop {
            let run = if is_white { white::decode(reader) } else { black::decode(reader) };
            let run = run.ok_or_else(truncated)?;
            position = position.saturating_add(run);
            // Runs of 64 and more are a multiple of 64 and a rest.
            if run < 64 {
                break;
            }
        }
        changes.push(position.min(width));
        is_white = !is_white;
    }
    Ok(())
}

fn pack(changes: &[u16], width: u16, packed: &mut Vec<u8>) {
    let mut byte = 0u8;
    for (x, color) in pels(changes, width).enumerate() {
        byte = (byte << 1) | u8::from(color == Color::Black);
        if x % 8 == 7 {
            packed.push(byte);
            byte = 0;
        }
    }
    if !width.is_multiple_of(8) {
        packed.push(byte << (8 - width % 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modified_huffman_rows_start_at_whole_bytes() {
        // White 0, black 1, white 9; then white 1, black 1, white 8 and two bits to the end of the byte.
        let coded = [0b0011_0101, 0b0101_0100, 0b0001_1101, 0b0100_1100];
        let rows = decode(&coded, Compression::Huffman, 10, 2).expect("two whole rows");
        assert_eq!(rows, [0b1000_0000, 0, 0b0100_0000, 0]);
    }

    #[test]
    fn a_fax_that_ends_early_is_truncated() {
        let cut = decode(&[0b0011_0101, 0b0101_0100], Compression::Huffman, 10, 9);
        assert_eq!(cut, Err(truncated()));
    }
}
