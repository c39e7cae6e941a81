//! The folder of one executor: the only place into which it may write.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// What the names of these folders begin with.
const PREFIX: &str = "executor-";

/// A folder that is removed when this is dropped, and by the next worker if this one was killed.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: TempDir,
    /// Holds a lock for as long as the folder is used.
    _lock: File,
}

impl Scratch {
    /// Makes a folder in `temporary_dir`, which only this user may enter.
    pub(super) fn new(temporary_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(temporary_dir)?;
        let folder = TempDir::with_prefix_in(PREFIX, temporary_dir)?;
        let lock = File::open(folder.path())?;
        lock.lock()?;
        Ok(Self { folder, _lock: lock })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what workers that were killed have left in `temporary_dir`.
pub(crate) fn remove_abandoned(temporary_dir: &Path) {
    let entries = fs::read_dir(temporary_dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for folder in folders.map(|entry| entry.path()).filter(is_abandoned) {
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(path = %folder.display(), %error, "an abandoned folder cannot be removed");
        }
    }
}

/// Whether no process holds the lock of a folder.
fn is_abandoned(folder: &PathBuf) -> bool {
    File::open(folder).is_ok_and(|folder| folder.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_executor_and_what_a_killed_worker_left_goes_with_the_next_one() {
        let temporary = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(temporary.path()).unwrap();
        let left = temporary.path().join("executor-left");
        fs::create_dir_all(left.join("deep")).unwrap();
        fs::write(temporary.path().join("another-file"), "").unwrap();
        remove_abandoned(temporary.path());
        assert!(scratch.path().exists() && !left.exists() && temporary.path().join("another-file").exists());
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
