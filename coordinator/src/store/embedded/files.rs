//! The files of an open store: the tables, and two write-ahead logs that take turns.

use std::{
    io, mem,
    sync::Arc,
    thread::{self, JoinHandle},
};

use redb::{Database, Durability, StorageBackend};

use super::{
    changes::Changes,
    log::{AppendError, Log},
    memtable::Memtable,
    tables::{self, Tables},
    view::View,
};

/// Why changes were not committed.
#[derive(Debug)]
pub(super) enum CommitError {
    /// There is no room. None of the changes was committed, and the files are as they were.
    NoRoom(io::Error),
    /// The files hold all of the changes or none; only opening the files again tells which.
    Unsure(redb::Error),
}

impl From<AppendError> for CommitError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NoRoom(error) => Self::NoRoom(error),
            AppendError::Unsure(error) => Self::Unsure(error.into()),
        }
    }
}

impl From<redb::Error> for CommitError {
    fn from(error: redb::Error) -> Self {
        Self::Unsure(error)
    }
}

/// A log may grow to this many times its intended length before commits wait for the checkpoint of the other log.
const MOST_LOG_LENGTHS: u64 = 4;

/// The files of an open store.
///
/// One log grows and holds the current generation of commits. The other log holds the generation before, until a checkpoint has written it
/// into the tables. The complete entries of both are the commits since the last checkpoint, so that a store is opened in the same way
/// after a crash and after a clean end.
#[derive(Debug)]
pub(super) struct Files {
    database: Arc<Database>,
    logs: [Log; 2],
    seed: u64,
    /// The generation of the log that grows.
    generation: u64,
    view: View,
    checkpoint: Option<JoinHandle<Result<Tables, redb::Error>>>,
    /// The length from which a log is checkpointed, in bytes.
    log_bytes: u64,
}

impl Files {
    /// Opens a store as it was left, and replays its logs.
    pub(super) fn open<P: StorageBackend>(
        database: Database,
        logs: [P; 2],
        log_bytes: u64,
    ) -> Result<Self, redb::Error> {
        let meta = tables::prepare(&database)?;
        let tables = Arc::new(Tables::of(&database)?);
        let [even, odd] = logs;
        let logs = [Log::over(even)?, Log::over(odd)?];
        let active = Memtable { last_version: meta.last_version, time: meta.time, ..Memtable::default() };
        let view = View { active, frozen: Arc::default(), tables, commit: 0 };
        let (database, generation) = (Arc::new(database), meta.generation + 1);
        let mut files = Self { database, logs, seed: meta.seed, generation, view, checkpoint: None, log_bytes };
        files.replay()?;
        // The log of the next generation exists from its first entry on. From then on the log before it does not grow any more.
        let next_seed = files.seed_of(generation + 1);
        let next = files.log_of(generation + 1).replay(next_seed)?;
        if !next.is_empty() {
            files.begin_checkpoint()?;
            files.replay()?;
        }
        Ok(files)
    }

    fn replay(&mut self) -> Result<(), redb::Error> {
        let seed = self.seed_of(self.generation);
        for entry in self.log_of(self.generation).replay(seed)? {
            Changes::decode(&entry)?.apply_to(&mut self.view.active);
        }
        Ok(())
    }

    fn log_of(&mut self, generation: u64) -> &mut Log {
        &mut self.logs[(generation % 2) as usize]
    }

    fn seed_of(&self, generation: u64) -> u64 {
        self.seed.wrapping_add(generation)
    }

    /// The snapshot after the last commit.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Commits changes of the last view.
    pub(super) fn commit(&mut self, changes: &Changes<'_>) -> Result<(), CommitError> {
        self.log_of(self.generation).append(|buffer| changes.encode(buffer))?;
        changes.apply_to(&mut self.view.active);
        self.view.commit += 1;
        let bytes = self.log_of(self.generation).bytes();
        if bytes >= self.log_bytes {
            self.finish_checkpoint(bytes >= MOST_LOG_LENGTHS * self.log_bytes)?;
            if self.checkpoint.is_none() {
                self.begin_checkpoint()?;
                let seed = self.seed_of(self.generation);
                self.log_of(self.generation).begin(seed);
            }
        }
        Ok(())
    }

    /// Freezes the memtable, begins to write it into the tables on another thread, and begins the next generation.
    fn begin_checkpoint(&mut self) -> Result<(), redb::Error> {
        let memtable = self.view.active.clone();
        self.view.active = memtable.next();
        self.view.frozen = Arc::new(memtable.clone().into());
        let (database, generation) = (self.database.clone(), self.generation);
        self.generation += 1;
        let write = move || {
            tables::checkpoint(&database, &memtable, generation)?;
            Tables::of(&database)
        };
        self.checkpoint = Some(thread::Builder::new().name("store-tables".to_owned()).spawn(write)?);
        Ok(())
    }

    /// Replaces the frozen memtable by the new tables, if the checkpoint is done. With `wait`, waits until it is.
    fn finish_checkpoint(&mut self, wait: bool) -> Result<(), redb::Error> {
        let Some(done) = self.checkpoint.take_if(|running| wait || running.is_finished()) else { return Ok(()) };
        let tables = done.join().map_err(|_| redb::Error::Corrupted("the checkpoint panicked".to_owned()))?;
        self.view.tables = Arc::new(tables?);
        self.view.frozen = Arc::default();
        Ok(())
    }

    /// Fails if the tables have failed.
    pub(super) fn probe(&self) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        Ok(transaction.commit()?)
    }

    /// Writes everything into the tables, so that the next start has nothing to replay.
    pub(super) fn close(mut self) -> Result<(), redb::Error> {
        self.finish_checkpoint(true)?;
        let memtable = mem::take(&mut self.view.active);
        tables::checkpoint(&self.database, &memtable, self.generation)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // The files are closed only once the checkpoint has ended, since its thread shares the database.
        if let Some(running) = self.checkpoint.take() {
            let _ = running.join();
        }
    }
}
