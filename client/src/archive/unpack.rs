//! Unpacks some files at a time, into files without a name. They are gone with this process, however it ends.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use tokio::sync::mpsc;

use super::{Entry, Visitor, refusal, visit};

/// Bytes of the files of one batch, before the last of them. At most three batches are there at a time.
const BATCH_BYTES: u64 = 64 << 20;
/// Files of one batch. Each is open, and a process may have some thousand open files.
const BATCH_FILES: usize = 128;

/// Which entries are wanted, by their numbers, and where each belongs among the files of an upload.
pub(crate) type Wanted = HashMap<u64, usize>;

/// Unpacked files. They go when this is dropped.
#[derive(Default)]
pub(crate) struct Batch {
    /// Where each file belongs among the files of an upload, and the file or why it could not be unpacked.
    pub(crate) files: Vec<(usize, Result<Unnamed, String>)>,
    bytes: u64,
}

/// A file without a name, in the folder for temporary files.
pub(crate) struct Unnamed(File);

impl Unnamed {
    /// The path by which this process opens the file, as long as this is not dropped.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Unpacks the wanted entries. Ends early if nobody receives any more.
///
/// # Errors
/// What the system says if the archive cannot be read or a file cannot be written, and whether an entry has gone.
pub(crate) fn unpack(archive: &Path, wanted: Wanted, batches: mpsc::Sender<Batch>) -> io::Result<()> {
    let mut unpacking = Unpacking { wanted, batches, batch: Batch::default() };
    visit(archive, &mut unpacking)?;
    unpacking.send()?;
    match unpacking.wanted.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other("it changed while it was uploaded")),
    }
}

struct Unpacking {
    wanted: Wanted,
    batches: mpsc::Sender<Batch>,
    batch: Batch,
}

impl Unpacking {
    fn send(&mut self) -> io::Result<()> {
        let full = std::mem::take(&mut self.batch);
        self.batches.blocking_send(full).map_err(|_| io::Error::from(io::ErrorKind::Interrupted))
    }
}

impl Visitor for Unpacking {
    fn begin(&mut self, entry: &Entry) -> io::Result<Option<File>> {
        let Some(slot) = self.wanted.remove(&entry.number) else { return Ok(None) };
        if self.batch.bytes >= BATCH_BYTES || self.batch.files.len() >= BATCH_FILES {
            self.send()?;
        }
        if let Some(why) = refusal(entry) {
            self.batch.files.push((slot, Err(why)));
            return Ok(None);
        }
        let file = tempfile::tempfile()?;
        self.batch.bytes += entry.size_bytes;
        self.batch.files.push((slot, Ok(Unnamed(file.try_clone()?))));
        Ok(Some(file))
    }

    fn end(&mut self, written: Result<(), String>) -> io::Result<()> {
        if let (Err(why), Some((_, last))) = (written, self.batch.files.last_mut()) {
            *last = Err(why);
        }
        Ok(())
    }
}
