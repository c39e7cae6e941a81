//! Reads the tags of the first page, from classic TIFF and BigTIFF in either byte order.

use std::collections::BTreeMap;

use super::{corrupt, truncated};
use crate::error::DecodeError;

/// More tags than any real page has.
const MAX_TAGS: u64 = 4096;

/// The tags of a page, whose values are read from the file when they are asked for.
pub(super) struct Directory<'a> {
    file: &'a [u8],
    order: ByteOrder,
    entries: BTreeMap<u16, Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

struct Entry {
    kind: u16,
    count: u64,
    /// Where the values start in the file.
    at: u64,
}

impl<'a> Directory<'a> {
    /// Reads the first directory of a file.
    pub(super) fn first(file: &'a [u8]) -> Result<Self, DecodeError> {
        let order = if file.starts_with(b"II") { ByteOrder::Little } else { ByteOrder::Big };
        let is_big_tiff = file.get(2..4).ok_or_else(truncated)?.contains(&43);
        // Widths in bytes of an offset, of the number of entries, and of an entry.
        let (offset, number, size) = if is_big_tiff { (8, 8, 20) } else { (4, 2, 12) };
        let mut directory = Self { file, order, entries: BTreeMap::new() };
        let start = directory.number(if is_big_tiff { 8 } else { 4 }, offset)?;
        let entries = directory.number(start, number)?;
        if entries > MAX_TAGS {
            return Err(corrupt(format!("{entries} tags in a page")));
        }
        for index in 0..entries {
            let at = start.saturating_add(number + index * size);
            let tag = directory.number(at, 2)? as u16;
            let kind = directory.number(at + 2, 2)? as u16;
            let count = directory.number(at + 4, offset)?;
            let inline = at + 4 + offset;
            let fits = width_of(kind).saturating_mul(count) <= offset;
            let at = if fits { inline } else { directory.number(inline, offset)? };
            directory.entries.entry(tag).or_insert(Entry { kind, count, at });
        }
        Ok(directory)
    }

    pub(super) fn order(&self) -> ByteOrder {
        self.order
    }

    /// The bytes of the file in a range that a tag names.
    pub(super) fn bytes(&self, at: u64, length: u64) -> Result<&'a [u8], DecodeError> {
        let (start, end) = (usize::try_from(at), usize::try_from(at.saturating_add(length)));
        let range = start.ok().zip(end.ok()).ok_or_else(truncated)?;
        self.file.get(range.0..range.1).ok_or_else(truncated)
    }

    /// The bytes from `at` on, at most `length` of them and none beyond the end of the file: some writers overstate the length of
    /// their last strip.
    pub(super) fn up_to(&self, at: u64, length: u64) -> Result<&'a [u8], DecodeError> {
        let rest = usize::try_from(at).ok().and_then(|at| self.file.get(at..)).ok_or_else(truncated)?;
        Ok(&rest[..usize::try_from(length).unwrap_or(usize::MAX).min(rest.len())])
    }

    /// All values of a tag with whole numbers; empty if there is no such tag.
    pub(super) fn numbers(&self, tag: u16) -> Result<Vec<u64>, DecodeError> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let width = width_of(entry.kind);
        let values = self.bytes(entry.at, entry.count.saturating_mul(width))?;
        Ok(values.chunks_exact(width as usize).map(|value| self.order.number(value)).collect())
    }

    /// The first value of a tag with whole numbers.
    pub(super) fn first_number(&self, tag: u16) -> Result<Option<u64>, DecodeError> {
        Ok(self.numbers(tag)?.first().copied())
    }

    /// The bytes of a tag; `None` if there is no such tag.
    pub(super) fn blob(&self, tag: u16) -> Result<Option<&'a [u8]>, DecodeError> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(None) };
        self.bytes(entry.at, entry.count.saturating_mul(width_of(entry.kind))).map(Some)
    }

    fn number(&self, at: u64, width: u64) -> Result<u64, DecodeError> {
        Ok(self.order.number(self.bytes(at, width)?))
    }
}

impl ByteOrder {
    /// The unsigned number in up to eight bytes.
    pub(super) fn number(self, bytes: &[u8]) -> u64 {
        let shift_in = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
        match self {
            Self::Little => bytes.iter().rev().fold(0, shift_in),
            Self::Big => bytes.iter().fold(0, shift_in),
        }
    }
}

/// Bytes of one value of a field type; an unknown type counts as bytes.
fn width_of(kind: u16) -> u64 {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 1,
    }
}
