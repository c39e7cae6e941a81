//! The folder in which `hat up` keeps everything.

use std::{
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// The folder in which `hat up` keeps everything: queue, objects, logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// The folder `named`, else `$XDG_DATA_HOME/sortinghat`, else `~/.local/share/sortinghat`; always an absolute path.
    pub(crate) fn find(named: Option<PathBuf>) -> Result<Self, Failure> {
        let usual = || {
            let data_home = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            Some(data_home.or_else(|| Some(env::home_dir()?.join(".local/share")))?.join("sortinghat"))
        };
        let path = named.or_else(usual).ok_or_else(|| {
            Failure::usage("there is no home folder for the data: set --data-dir or SORTINGHAT_DATA_DIR")
        })?;
        std::path::absolute(&path).map(Self).map_err(Failure::file("find", path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn coordinator(&self) -> PathBuf {
        self.0.join("coordinator")
    }

    /// Where the coordinator writes the address that it listens on.
    pub(crate) fn coordinator_address(&self) -> PathBuf {
        self.coordinator().join("coordinator.addr")
    }

    pub(crate) fn worker(&self) -> PathBuf {
        self.0.join("worker")
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("hat.json")
    }

    /// Makes the folders.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        let folders = [self.0.clone(), self.coordinator(), self.worker(), self.objects(), self.logs()];
        folders.into_iter().try_for_each(|folder| fs::create_dir_all(&folder).map_err(Failure::file("create", folder)))
    }

    /// The lock that only one `hat up` of this folder holds; `None` while another process holds it. The system releases the lock when
    /// its holder ends, in whatever way.
    pub(crate) fn try_lock(&self) -> Result<Option<File>, Failure> {
        let path = self.0.join("hat.lock");
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(Failure::file("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(Failure::file("lock", path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_the_lock_of_a_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = DataDir::find(Some(folder.path().to_owned())).expect("absolute");
        let first = data_dir.try_lock().expect("writable").expect("free");
        assert!(data_dir.try_lock().expect("writable").is_none());
        drop(first);
        assert!(data_dir.try_lock().expect("writable").is_some());
    }
}
