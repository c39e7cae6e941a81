//! The files of an open store: the tables, and two logs that take turns.

use std::{
    mem,
    sync::Arc,
    thread::{self, JoinHandle},
};

use redb::{Database, Durability, StorageBackend};

use super::{
    changes::Changes,
    layer::Layer,
    log::Log,
    tables::{self, Tables},
    view::View,
};

/// How much longer than it should be a log becomes before commits wait for the tables.
const MOST_LOG_LENGTHS: u64 = 4;

/// The files of an open store.
///
/// A log holds one generation, the other log the one before until the tables have it. Its entries up to the first one that is not
/// whole are the commits since: nothing else has to be found out when a store is opened, however it was left.
#[derive(Debug)]
pub(super) struct Files {
    database: Arc<Database>,
    logs: [Log; 2],
    seed: u64,
    /// Of the log that grows.
    generation: u64,
    view: View,
    writing: Option<JoinHandle<Result<Tables, redb::Error>>>,
    /// The length from which a log has grown enough.
    log_bytes: u64,
}

impl Files {
    /// Opens a store in these places as it was left.
    pub(super) fn open<P: StorageBackend>(
        database: Database,
        logs: [P; 2],
        log_bytes: u64,
    ) -> Result<Self, redb::Error> {
        let meta = tables::prepare(&database)?;
        let tables = Arc::new(Tables::of(&database)?);
        let [even, odd] = logs;
        let logs = [Log::over(even)?, Log::over(odd)?];
        let layer = Layer { last_version: meta.last_version, time: meta.time, ..Layer::default() };
        let view = View { recent: layer, frozen: Arc::default(), tables, commit: 0 };
        let (database, generation) = (Arc::new(database), meta.generation + 1);
        let mut files = Self { database, logs, seed: meta.seed, generation, view, writing: None, log_bytes };
        files.resume()?;
        // The log that follows exists from its first entry on, and the one before does not grow any more then.
        let next_seed = files.seed_of(generation + 1);
        let next = files.log_of(generation + 1).resume(next_seed)?;
        if !next.is_empty() {
            files.freeze()?;
            files.resume()?;
        }
        Ok(files)
    }

    fn resume(&mut self) -> Result<(), redb::Error> {
        let seed = self.seed_of(self.generation);
        for entry in self.log_of(self.generation).resume(seed)? {
            self.view.recent.absorb(&Changes::decode(&entry)?);
        }
        Ok(())
    }

    fn log_of(&mut self, generation: u64) -> &mut Log {
        &mut self.logs[(generation % 2) as usize]
    }

    fn seed_of(&self, generation: u64) -> u64 {
        self.seed.wrapping_add(generation)
    }

    /// The store after the last commit.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Commits changes of the last view. After an error they are there as a whole or not at all, which a new opening tells.
    pub(super) fn commit(&mut self, changes: &Changes<'_>) -> Result<(), redb::Error> {
        self.log_of(self.generation).append(|buffer| changes.encode(buffer))?;
        self.view.recent.absorb(changes);
        self.view.commit += 1;
        let bytes = self.log_of(self.generation).bytes();
        if bytes >= self.log_bytes {
            self.take_written(bytes >= MOST_LOG_LENGTHS * self.log_bytes)?;
            if self.writing.is_none() {
                self.freeze()?;
                let seed = self.seed_of(self.generation);
                self.log_of(self.generation).begin(seed);
            }
        }
        Ok(())
    }

    /// Begins a generation, and to write the one before into the tables, beside everything else.
    fn freeze(&mut self) -> Result<(), redb::Error> {
        let layer = self.view.recent.clone();
        self.view.recent = layer.next();
        self.view.frozen = Arc::new(layer.clone().into());
        let (database, generation) = (self.database.clone(), self.generation);
        self.generation += 1;
        let write = move || {
            tables::write(&database, &layer, generation)?;
            Tables::of(&database)
        };
        self.writing = Some(thread::Builder::new().name("store-tables".to_owned()).spawn(write)?);
        Ok(())
    }

    /// Goes on with the new tables if they are written; waits for that if so told.
    fn take_written(&mut self, wait: bool) -> Result<(), redb::Error> {
        let Some(writing) = self.writing.take_if(|writing| wait || writing.is_finished()) else { return Ok(()) };
        let written = writing.join().map_err(|_| redb::Error::Corrupted("writing the tables panicked".to_owned()))?;
        self.view.tables = Arc::new(written?);
        self.view.frozen = Arc::default();
        Ok(())
    }

    /// Fails if the tables have failed.
    pub(super) fn probe(&self) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        Ok(transaction.commit()?)
    }

    /// Writes everything into the tables, so that nothing is left to do for whoever opens them next.
    pub(super) fn close(mut self) -> Result<(), redb::Error> {
        self.take_written(true)?;
        let layer = mem::take(&mut self.view.recent);
        tables::write(&self.database, &layer, self.generation)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // The files are closed when the last one who uses them has ended.
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
    }
}
