//! The data folder, which one coordinator at a time uses, and the file with that coordinator's address.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::AppError;

const LOCK_FILE: &str = "coordinator.lock";
const ADDRESS_FILE: &str = "coordinator.addr";

/// A data folder that is locked until this is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// The system releases the lock when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Creates the folder if there is none, locks it, and removes the address that a killed coordinator left behind.
    pub(super) fn lock(path: &Path) -> Result<Self, AppError> {
        let failed = |source| AppError::DataDir { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(AppError::AlreadyRunning { path: path.to_owned(), pid: read_pid(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        if let Err(error) = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())) {
            tracing::warn!(%error, "failed to write the id of this process into the data folder, where others look for it");
        }
        let data_dir = Self { path: path.to_owned(), _lock: lock };
        data_dir.unpublish_address();
        Ok(data_dir)
    }

    /// Writes the address that the coordinator listens on, for readers that let it choose a port. They see the whole address or none. A
    /// full disk does not keep the coordinator from serving those who know its address.
    pub(super) fn publish_address(&self, address: SocketAddr) {
        let path = self.path.join(ADDRESS_FILE);
        let staged = path.with_extension("addr.new");
        if let Err(error) = fs::write(&staged, format!("{address}\n")).and_then(|()| fs::rename(&staged, &path)) {
            tracing::warn!(%error, path = %path.display(), "failed to write the address of this coordinator");
        }
    }

    /// Removes the address that [`publish_address`](Self::publish_address) wrote.
    pub(super) fn unpublish_address(&self) {
        match fs::remove_file(self.path.join(ADDRESS_FILE)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, "failed to remove the file with the address of this coordinator, which no longer listens")
            }
        }
    }
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_coordinator_in_the_same_folder_is_refused_and_told_the_first_ones_process() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = DataDir::lock(folder.path()).expect("no other coordinator runs");
        let refused = DataDir::lock(folder.path()).expect_err("locked").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        DataDir::lock(folder.path()).expect("the lock is released");
    }

    #[test]
    fn the_address_of_a_killed_predecessor_does_not_mislead() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address_file = folder.path().join(ADDRESS_FILE);
        let killed = DataDir::lock(folder.path()).expect("no other coordinator runs");
        killed.publish_address("127.0.0.1:7878".parse().expect("an address"));
        assert_eq!(fs::read_to_string(&address_file).expect("published"), "127.0.0.1:7878\n");
        drop(killed);
        DataDir::lock(folder.path()).expect("the lock is released");
        assert!(!address_file.exists());
    }
}
