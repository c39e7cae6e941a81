//! A write-ahead log: the commits that were acknowledged and are not in the tables yet.
//!
//! A commit to the tables would rewrite a path of B-tree pages in each of them; an entry of the log takes one write and one sync. Every
//! entry begins at a new block of the disk, so that no write touches a block that holds an acknowledged entry.

use std::{fmt, io};

use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The size of a block, in bytes: at least what a disk writes as a whole.
const BLOCK_BYTES: usize = 4096;
/// The log grows in steps of this many bytes, filled with zeros: a later write into allocated blocks is synced without the file's inode.
const GROWTH_BYTES: u64 = 256 << 10;
/// The header before an entry: the entry's length and checksum, 8 bytes each.
const HEADER_BYTES: usize = 16;
/// How many bytes of the buffer are kept between entries.
const KEPT_BYTES: usize = 1 << 20;

/// Why an entry was not appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The disk is full, so the log cannot grow. Nothing of the entry was written, and the log is as it was.
    NoRoom(io::Error),
    /// Only a new [`replay`](Log::replay) tells whether the log holds the entry.
    Unsure(io::Error),
}

impl From<AppendError> for io::Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NoRoom(error) | AppendError::Unsure(error) => error,
        }
    }
}

/// An open log of one generation. The generation seeds its checksums, so that entries which another generation or another store left in
/// the same storage are not taken for its own.
pub(super) struct Log {
    storage: Box<dyn StorageBackend>,
    seed: u64,
    /// The position at which the next entry begins.
    end: u64,
    /// The length of the storage, in bytes.
    length: u64,
    /// The bytes of an entry and its header, before they are written.
    buffer: Vec<u8>,
}

impl Log {
    /// The log in this storage. Call [`begin`](Self::begin) or [`replay`](Self::replay) next.
    pub(super) fn over(storage: impl StorageBackend) -> io::Result<Self> {
        let length = storage.len()?;
        Ok(Self { storage: Box::new(storage), seed: 0, end: 0, length, buffer: Vec::new() })
    }

    /// Begins an empty log over whatever the storage holds.
    pub(super) fn begin(&mut self, seed: u64) {
        self.seed = seed;
        self.end = 0;
    }

    /// Returns the entries with this seed, up to the first incomplete one, which was never acknowledged. The log goes on after them.
    ///
    /// The entries are written and synced again: after a failed sync, the system may still return data that never reached the disk.
    pub(super) fn replay(&mut self, seed: u64) -> io::Result<Vec<Vec<u8>>> {
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
            self.storage.sync_data()?;
        }
        Ok(entries)
    }

    /// Appends the entry that `write` appends to a buffer, which must not be empty, and syncs it.
    pub(super) fn append(&mut self, write: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<(), AppendError> {
        self.write_next(write)?;
        self.storage.sync_data().map_err(AppendError::Unsure)
    }

    /// The length of the entries, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Reads the next entry, if it is complete.
    fn read_next(&self) -> io::Result<Option<Vec<u8>>> {
        let start = self.end + HEADER_BYTES as u64;
        if start > self.length {
            return Ok(None);
        }
        let mut header = [[0; 8]; 2];
        self.storage.read(self.end, header.as_flattened_mut())?;
        let [length, checksum] = header.map(u64::from_le_bytes);
        if length == 0 || length > self.length - start {
            return Ok(None);
        }
        let mut entry = vec![0; length as usize];
        self.storage.read(start, &mut entry)?;
        Ok((checksum == self.checksum(&entry)).then_some(entry))
    }

    fn write_next(&mut self, write: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<(), AppendError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(HEADER_BYTES, 0);
        let mut buffer = write(buffer);
        let entry = &buffer[HEADER_BYTES..];
        let header = [entry.len() as u64, self.checksum(entry)].map(u64::to_le_bytes);
        buffer[..HEADER_BYTES].copy_from_slice(header.as_flattened());
        buffer.resize(buffer.len().next_multiple_of(BLOCK_BYTES), 0);

        let end = self.end + buffer.len() as u64;
        self.grow_to(end).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::NoRoom(error),
            _ => AppendError::Unsure(error),
        })?;
        self.storage.write(self.end, &buffer).map_err(AppendError::Unsure)?;
        self.end = end;
        buffer.clear();
        buffer.shrink_to(KEPT_BYTES);
        self.buffer = buffer;
        Ok(())
    }

    fn grow_to(&mut self, end: u64) -> io::Result<()> {
        if end > self.length {
            let length = end.next_multiple_of(GROWTH_BYTES);
            let zeros = vec![0; (length - self.length) as usize];
            let grown = self.storage.set_len(length).and_then(|()| self.storage.write(self.length, &zeros));
            if let Err(error) = grown {
                // A part without blocks of its own must not be taken for a part of the log later. If it cannot be cut off, it is written
                // over by the next try.
                let _ = self.storage.set_len(self.length);
                return Err(error);
            }
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
