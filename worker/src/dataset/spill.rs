//! Keeps pictures on disk until the split is known and they can go into shards.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
};

/// A temporary file without a name; the system deletes it when the process ends.
#[derive(Debug)]
pub struct Spill {
    file: File,
    length: u64,
}

impl Spill {
    /// An empty file in `folder`, which is created if it is gone. The system's own folder may be small, in memory, or gone.
    ///
    /// # Errors
    /// Whatever the file system reports.
    pub fn new(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { file: tempfile::tempfile_in(folder)?, length: 0 })
    }

    /// Keeps `bytes`; returns where they are.
    ///
    /// # Errors
    /// Whatever the file system reports, such as a full disk.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<Range<u64>> {
        self.file.write_all(bytes)?;
        let start = self.length;
        self.length += bytes.len() as u64;
        Ok(start..self.length)
    }

    /// Reads back what was kept at `range`.
    ///
    /// # Errors
    /// Whatever the file system reports.
    pub fn read(&self, range: &Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes)
    }
}
