//! Unpacks some files at a time into a temporary folder.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sortinghat_proto::limits;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{Entry, Visitor, refusal, visit};

/// Bytes of the files that lie in one temporary folder, before the last of them. At most three folders are there at a time.
const BATCH_BYTES: u64 = 64 << 20;

/// Which entries are wanted, by their numbers, and where each belongs among the files of an upload.
pub(crate) type Wanted = HashMap<u64, usize>;

/// Unpacked files. They go when this is dropped.
pub(crate) struct Batch {
    /// Where each file belongs, and where it lies or why it could not be unpacked.
    pub(crate) files: Vec<(usize, Result<PathBuf, String>)>,
    folder: TempDir,
    bytes: u64,
}

impl Batch {
    fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("hat-unpacked-").tempdir()?;
        Ok(Self { files: Vec::new(), folder, bytes: 0 })
    }
}

/// Unpacks the wanted entries. Ends early if nobody receives any more.
///
/// # Errors
/// What the system says if the archive cannot be read or a file cannot be written, and whether an entry has gone.
pub(crate) fn unpack(archive: &Path, wanted: Wanted, batches: mpsc::Sender<Batch>) -> io::Result<()> {
    let mut unpacking = Unpacking { wanted, batches, batch: Batch::new()? };
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
        let full = std::mem::replace(&mut self.batch, Batch::new()?);
        self.batches.blocking_send(full).map_err(|_| io::Error::from(io::ErrorKind::Interrupted))
    }
}

impl Visitor for Unpacking {
    fn begin(&mut self, entry: &Entry) -> io::Result<Option<File>> {
        let Some(slot) = self.wanted.remove(&entry.number) else { return Ok(None) };
        if self.batch.bytes >= BATCH_BYTES || self.batch.files.len() >= limits::MAX_DIGESTS_PER_CALL {
            self.send()?;
        }
        if let Some(why) = refusal(entry) {
            self.batch.files.push((slot, Err(why)));
            return Ok(None);
        }
        // The name is a number, whatever the archive says.
        let path = self.batch.folder.path().join(self.batch.files.len().to_string());
        let file = File::create_new(&path)?;
        self.batch.bytes += entry.size_bytes;
        self.batch.files.push((slot, Ok(path)));
        Ok(Some(file))
    }

    fn end(&mut self, written: Result<(), String>) -> io::Result<()> {
        if let (Err(why), Some((_, last))) = (written, self.batch.files.last_mut()) {
            *last = Err(why);
        }
        Ok(())
    }
}
