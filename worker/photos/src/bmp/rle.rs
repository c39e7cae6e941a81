//! Run-length coded bitmaps of 4 and 8 bits. Pixels that the runs skip get the palette's first colour, and rows that are longer
//! than the picture are cut, as in Pillow.

use super::{COLORS_USED, HEADER_SIZE, HEIGHT, PIXELS, WIDTH, number};
use crate::{error::DecodeError, format::ImageFormat, photo::DecodeLimits, pixels::Pixels};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Four,
    Eight,
}

/// Decodes the pixels of a bitmap whose header is the usual one.
pub(super) fn decode(bytes: &[u8], depth: Depth, limits: &DecodeLimits) -> Result<Pixels, DecodeError> {
    let truncated = || DecodeError::Truncated { format: ImageFormat::Bmp };
    let width = number(bytes, WIDTH).ok_or_else(truncated)?;
    let signed_height = number(bytes, HEIGHT).ok_or_else(truncated)? as i32;
    let height = signed_height.unsigned_abs();
    limits.check_sides(width, height)?;
    let palette = palette(bytes, depth).ok_or_else(truncated)?;
    let start = number(bytes, PIXELS).ok_or_else(truncated)? as usize;
    let data = bytes.get(start..).ok_or_else(truncated)?;

    let mut canvas = Canvas { indices: vec![0; width as usize * height as usize], width: width as usize, x: 0, y: 0 };
    canvas.draw(data, depth, height as usize).ok_or_else(truncated)?;
    let color = |index: &u8| palette.get(usize::from(*index)).copied().unwrap_or_default();
    let rows = canvas.indices.chunks_exact(width as usize);
    // Rows are stored from the bottom up, except if the height is negative.
    let rgb = if signed_height < 0 {
        rows.flatten().flat_map(color).collect()
    } else {
        rows.rev().flatten().flat_map(color).collect()
    };
    Ok(Pixels { width, height, rgb })
}

/// The colours, which are stored as blue, green, red and an unused byte.
fn palette(bytes: &[u8], depth: Depth) -> Option<Vec<[u8; 3]>> {
    let most = if depth == Depth::Four { 16 } else { 256 };
    let colors = match number(bytes, COLORS_USED)? as usize {
        0 => most,
        stated => stated.min(most),
    };
    let start = super::FILE_HEADER + number(bytes, HEADER_SIZE)? as usize;
    let entries = bytes.get(start..start + colors * 4)?;
    Some(entries.as_chunks::<4>().0.iter().map(|[blue, green, red, _]| [*red, *green, *blue]).collect())
}

/// Palette indices in the order of the file, and the position of the next one.
struct Canvas {
    indices: Vec<u8>,
    width: usize,
    x: usize,
    y: usize,
}

impl Canvas {
    /// Follows the codes to the end mark or the last row; `None` if the data ends before.
    fn draw(&mut self, data: &[u8], depth: Depth, height: usize) -> Option<()> {
        let mut at = 0;
        while self.y < height {
            let (first, second) = (*data.get(at)?, *data.get(at + 1)?);
            at += 2;
            match (first, second) {
                (0, 0) => (self.x, self.y) = (0, self.y + 1),
                (0, 1) => return Some(()),
                (0, 2) => {
                    self.x += usize::from(*data.get(at)?);
                    self.y += usize::from(*data.get(at + 1)?);
                    at += 2;
                }
                (0, count) => {
                    let count = usize::from(count);
                    let length = if depth == Depth::Four { count.div_ceil(2) } else { count };
                    let literals = data.get(at..at + length)?;
                    (0..count).for_each(|index| self.put(index_at(literals, index, depth)));
                    at += length.next_multiple_of(2);
                }
                (count, value) => {
                    (0..usize::from(count)).for_each(|index| self.put(index_at(&[value; 2], index % 2, depth)));
                }
            }
        }
        Some(())
    }

    /// Sets one pixel, if it lies inside.
    fn put(&mut self, index: u8) {
        if self.x < self.width
            && let Some(pixel) = self.indices.get_mut(self.y * self.width + self.x)
        {
            *pixel = index;
        }
        self.x += 1;
    }
}

/// The `index`-th palette index; of two in a byte the upper one comes first.
fn index_at(bytes: &[u8], index: usize, depth: Depth) -> u8 {
    match depth {
        Depth::Eight => bytes[index],
        Depth::Four if index.is_multiple_of(2) => bytes[index / 2] >> 4,
        Depth::Four => bytes[index / 2] & 0x0f,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(data: &[u8], depth: Depth, height: usize) -> Option<Vec<u8>> {
        let mut canvas = Canvas { indices: vec![0; 4 * height], width: 4, x: 0, y: 0 };
        canvas.draw(data, depth, height).map(|()| canvas.indices)
    }

    #[test]
    fn runs_literals_and_jumps_draw_the_rows_of_the_file() {
        let data = [3, 7, 0, 0, 0, 2, 1, 0, 0, 3, 1, 2, 3, 0, 0, 1];
        assert_eq!(drawn(&data, Depth::Eight, 2), Some(vec![7, 7, 7, 0, 0, 1, 2, 3]));
        assert_eq!(drawn(&[3, 0x12, 0, 1], Depth::Four, 1), Some(vec![1, 2, 1, 0]));
    }

    #[test]
    fn runs_beyond_the_row_are_cut_and_data_that_ends_early_is_refused() {
        assert_eq!(drawn(&[9, 5, 0, 1], Depth::Eight, 1), Some(vec![5; 4]));
        assert_eq!(drawn(&[4, 5], Depth::Eight, 2), None);
    }
}
