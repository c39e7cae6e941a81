//! The database on its disk, which is opened again after the disk failed under it.

use std::{
    fmt, io,
    sync::{PoisonError, RwLock, TryLockError},
};

use redb::Database;

/// Opens the database; called again after a failure.
type Open = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// An open database. After a failure of the disk it refuses everything until it is opened again, which finds the last commit
/// that is whole: a failed one may turn out to be it.
pub(super) struct Disk {
    open: Open,
    /// `None` after it could not be opened again; the next call tries once more.
    database: RwLock<Option<Database>>,
}

impl Disk {
    /// Opens the database.
    pub(super) fn open(
        open: impl Fn() -> Result<Database, redb::Error> + Send + Sync + 'static,
    ) -> Result<Self, redb::Error> {
        let database = RwLock::new(Some(open()?));
        Ok(Self { open: Box::new(open), database })
    }

    /// Lets `work` use the database. Others may meanwhile, too.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match &*database {
            Some(database) => work(database),
            None => {
                Err(redb::Error::Io(io::Error::other("the disk failed, and the file could not be opened again yet")))
            }
        }
    }

    /// The same, unless it would have to wait until the database is open again.
    pub(super) fn try_with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Option<Result<T, redb::Error>> {
        let database = match self.database.try_read() {
            Ok(database) => database,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        database.as_ref().map(work)
    }

    /// Opens the database again once nobody reads it. Nobody reads it meanwhile: the failed commit could appear after somebody
    /// was told that it did not happen.
    pub(super) fn reopen(&self) -> Result<(), redb::Error> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file is locked while it is open.
        *database = None;
        *database = Some((self.open)()?);
        Ok(())
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}
