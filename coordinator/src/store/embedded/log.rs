//! A log of what was acknowledged and is not in the tables yet.
//!
//! A commit of the tables rewrites a path of pages in each of them; an entry of the log is one write and one sync. Each entry begins a
//! block of its own, so that nothing is ever written over what was acknowledged.

use std::{fmt, io};

use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a disk writes as a whole, or more.
const BLOCK_BYTES: usize = 4096;
/// The log grows by this at a time, of zeros: a write into blocks that the file has already is synced at once, without its inode.
const GROWTH_BYTES: u64 = 256 << 10;
/// Before an entry: its length and its checksum, of 8 bytes each.
const HEADER_BYTES: usize = 16;
/// Of the buffer, kept between entries.
const KEPT_BYTES: usize = 1 << 20;

/// An open log of one generation. What another generation or another store left in the place has the checksum of another seed.
pub(super) struct Log {
    place: Box<dyn StorageBackend>,
    seed: u64,
    /// Where the next entry begins.
    end: u64,
    /// Of the place.
    length: u64,
    /// Room for an entry and its header.
    buffer: Vec<u8>,
}

impl Log {
    /// The log in this place; [`begin`](Self::begin) or [`resume`](Self::resume) comes next.
    pub(super) fn over(place: impl StorageBackend) -> io::Result<Self> {
        let length = place.len()?;
        Ok(Self { place: Box::new(place), seed: 0, end: 0, length, buffer: Vec::new() })
    }

    /// Begins anew: what is in the place already is of no use.
    pub(super) fn begin(&mut self, seed: u64) {
        self.seed = seed;
        self.end = 0;
    }

    /// Goes on after the entries of this seed, and returns them. The first one that is not whole was never acknowledged.
    ///
    /// They are written once more: what a sync has failed to write, the system may still show, and takes for written.
    pub(super) fn resume(&mut self, seed: u64) -> io::Result<Vec<Vec<u8>>> {
        self.begin(seed);
        let mut entries = Vec::new();
        while let Some(entry) = self.read_next()? {
            self.write_next(|mut buffer| {
                buffer.extend_from_slice(&entry);
                buffer
            })?;
            entries.push(entry);
        }
        if !entries.is_empty() {
            self.place.sync_data()?;
        }
        Ok(entries)
    }

    /// Appends what `write` appends to a buffer, which is not nothing, and syncs it. After an error only a new [`resume`](Self::resume)
    /// tells whether it is there.
    pub(super) fn append(&mut self, write: impl FnOnce(Vec<u8>) -> Vec<u8>) -> io::Result<()> {
        self.write_next(write)?;
        self.place.sync_data()
    }

    /// Bytes of its entries.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// The next entry, if it is there as a whole.
    fn read_next(&self) -> io::Result<Option<Vec<u8>>> {
        let start = self.end + HEADER_BYTES as u64;
        if start > self.length {
            return Ok(None);
        }
        let mut header = [[0; 8]; 2];
        self.place.read(self.end, header.as_flattened_mut())?;
        let [length, checksum] = header.map(u64::from_le_bytes);
        if length == 0 || length > self.length - start {
            return Ok(None);
        }
        let mut entry = vec![0; length as usize];
        self.place.read(start, &mut entry)?;
        Ok((checksum == self.checksum(&entry)).then_some(entry))
    }

    fn write_next(&mut self, write: impl FnOnce(Vec<u8>) -> Vec<u8>) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(HEADER_BYTES, 0);
        let mut buffer = write(buffer);
        let entry = &buffer[HEADER_BYTES..];
        let header = [entry.len() as u64, self.checksum(entry)].map(u64::to_le_bytes);
        buffer[..HEADER_BYTES].copy_from_slice(header.as_flattened());
        buffer.resize(buffer.len().next_multiple_of(BLOCK_BYTES), 0);

        let end = self.end + buffer.len() as u64;
        self.grow_to(end)?;
        self.place.write(self.end, &buffer)?;
        self.end = end;
        buffer.clear();
        buffer.shrink_to(KEPT_BYTES);
        self.buffer = buffer;
        Ok(())
    }

    fn grow_to(&mut self, end: u64) -> io::Result<()> {
        if end > self.length {
            let length = end.next_multiple_of(GROWTH_BYTES);
            self.place.set_len(length)?;
            self.place.write(self.length, &vec![0; (length - self.length) as usize])?;
            self.length = length;
        }
        Ok(())
    }

    fn checksum(&self, entry: &[u8]) -> u64 {
        xxh3_64_with_seed(entry, self.seed)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("end", &self.end).finish_non_exhaustive()
    }
}
