//! The durable store of one machine: a small log-structured store whose sorted tables are a [redb] file.
//!
//! ```text
//!   apply(batches)                     read, range, counters
//!        |                                       |
//!     Commits     one commit for the calls     View        a snapshot after the last commit;
//!        |        that queue up together         |         reads never wait for the writer
//!        v                                       v
//!   write-ahead log -----------------------> memtable (active)         imbl maps, in memory
//!   FILE.log0, .log1: append, one sync           |
//!        |                                    memtable (frozen)        while a checkpoint runs
//!        | at 2 MiB: checkpoint, on              |
//!        | another thread                        |
//!        +-------------------------------->   tables                   redb file: B-trees on disk
//! ```
//!
//! - **Commit** (`writer`, `changes`). The batches of many callers are checked one after the other against the snapshot and the changes so
//!   far. Their changes together are one entry of the log: one write, one sync, one acknowledgement for all. See [`Store::apply`].
//! - **Write-ahead log** (`log`). A file of entries with checksums. Two logs take turns: while the contents of one are checkpointed, the
//!   other grows. Each turn is a generation, and a generation's number is part of its checksums.
//! - **Memtable** (`memtable`). The changes of one generation in persistent maps, so that a snapshot is a copy of a few pointers. Removed
//!   entries and deleted records stay in it as tombstones, which hide what the tables still hold.
//! - **Checkpoint** (`files`, `tables`). A log that has grown to 2 MiB is frozen and written into the tables in one transaction of redb, beside
//!   everything else. By then most of what a job does to indexes has cancelled out, and a page of a B-tree is rewritten once for thousands
//!   of changes. Commits wait for a checkpoint only if the other log has grown to four times its length.
//! - **Read** (`view`). A key is looked up in the active memtable, then in the frozen one, then in the tables. A range merges all three.
//!   A queue is emptied from its front, so scans would meet ever more tombstones there; a low-water mark (`low_marks`) lets them begin behind.
//! - **Recovery** (`open`, `files`). A start replays the entries of both logs that the tables do not have yet, up to the first incomplete one,
//!   which was never acknowledged. There is no other recovery and no record of how the store was closed. After an error of the disk the
//!   store does the same to itself: it closes its files, opens them again and replays (`writer`).
//! - **Waiting for the disk** (`blocking`). A commit on a thread of the async runtime waits right there while the disk is quick.
//!
//! redb provides the B-trees, their transactions, their cache and the file's lock. The log and the memtables are written by hand, since each
//! durable commit of redb rewrites a path of pages in every table, where an entry of the log is one write. Imports go from right to left:
//! `log`, `memtable`, `low_marks` <- `tables` <- `view` <- `changes` <- `files` <- `open`, `writer`.
//!
//! [redb]: https://docs.rs/redb

mod blocking;
mod changes;
mod files;
mod log;
mod low_marks;
mod memtable;
mod open;
mod tables;
mod time;
mod view;
mod writer;

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use redb::StorageBackend;
use sortinghat_proto::time::UnixMs;
use tokio::sync::watch;

use super::{Batch, Clock, Hints, Range, Record, Store, StoreError, Verdict};
use time::MonotoneTime;
use view::View;
use writer::{Commits, Open, State, Writer};

/// A read of at most this many records, or entries of one index, runs on the caller's thread.
const LITTLE: usize = 256;

/// A store in a redb file and two logs beside it. Dropping it finishes the commits that were queued.
pub struct EmbeddedStore {
    state: watch::Receiver<State>,
    time: Arc<MonotoneTime>,
    hints: Arc<Hints>,
    commits: Commits,
}

impl EmbeddedStore {
    /// Opens the file and its logs, or creates them, and starts the writer. This blocks. It is an error if another process has the file
    /// open.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let named = |source: redb::Error| StoreError::Unavailable {
            action: "open its file",
            reason: format!("{}: {source}", path.display()),
        };
        if !path.exists() {
            open::create(path).map_err(named)?;
        }
        let file = path.to_owned();
        Self::start(Box::new(move || open::open(&file)), named, clock)
    }

    /// Opens the same store over other storages than files, such as memory, or a storage that loses power. They are empty or were written
    /// by this. `storages` returns one for the tables and two for the logs, and is called again after a write has failed. A log is
    /// checkpointed once it has `log_bytes`.
    pub fn over<P: StorageBackend>(
        storages: impl Fn() -> [P; 3] + Send + 'static,
        log_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let open = move || open::open_over(storages(), log_bytes);
        Self::start(Box::new(open), unavailable("open its storage"), clock)
    }

    fn start(
        open: Open,
        failed: impl FnOnce(redb::Error) -> StoreError,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let files = open().map_err(failed)?;
        let view = files.view().clone();
        let time = Arc::new(MonotoneTime::from(view.active.time, clock));
        let hints = Arc::<Hints>::default();
        let (sender, state) = watch::channel(State::Open(Arc::new(view)));
        let files = Some(files);
        let (time_of_commits, hints_of_commits) = (time.clone(), hints.clone());
        let writer =
            Writer { open, files, state: sender, time: time_of_commits, hints: hints_of_commits, is_full: false };
        let commits = Commits::start(writer)
            .map_err(|source| StoreError::Unavailable { action: "start its writer", reason: source.to_string() })?;
        Ok(Self { state, time, hints, commits })
    }

    /// The snapshot after the last commit. Waits while the files are opened again.
    async fn view(&self) -> Result<Arc<View>, StoreError> {
        if let State::Open(view) = &*self.state.borrow() {
            return Ok(view.clone());
        }
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Opening)).await.map_err(|_| StoreError::Closed)?;
        match &*state {
            State::Open(view) => Ok(view.clone()),
            State::Opening | State::Failed => {
                self.commits.probe();
                let reason = "the disk failed, and the files could not be opened again yet".to_owned();
                Err(StoreError::Unavailable { action: "read", reason })
            }
        }
    }

    /// Runs a read. A little one runs on the caller's thread, as a queue reads what was written lately and is in memory. Any other one
    /// runs on a thread that may block.
    async fn read_view<T: Send + 'static>(
        &self,
        is_little: bool,
        read: impl FnOnce(&View) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let view = self.view().await?;
        if is_little {
            return self.outcome(read(&view));
        }
        self.outcome(tokio::task::spawn_blocking(move || read(&view)).await.map_err(|_| StoreError::Closed)?)
    }

    fn outcome<T>(&self, result: Result<T, redb::Error>) -> Result<T, StoreError> {
        if result.is_err() {
            // Callers read before they write. While reads fail, there may be no commit that would find the disk working again.
            self.commits.probe();
        }
        result.map_err(unavailable("read"))
    }
}

fn unavailable(action: &'static str) -> impl FnOnce(redb::Error) -> StoreError {
    move |source| StoreError::Unavailable { action, reason: source.to_string() }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("time", &self.time).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError> {
        let (is_little, keys) = (keys.len() <= LITTLE, keys.to_vec());
        self.read_view(is_little, move |view| keys.iter().map(|key| view.record(key)).collect()).await
    }

    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError> {
        let keys = keys.to_vec();
        self.read_view(true, move |view| keys.iter().map(|key| view.counter(key)).collect()).await
    }

    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError> {
        Ok(self.ranges(vec![range]).await?.pop().unwrap_or_default())
    }

    async fn ranges(&self, ranges: Vec<Range>) -> Result<Vec<Vec<String>>, StoreError> {
        // Most indexes are short, whatever the limit is, so a little read is tried first.
        let clipped = |range: &Range| Range { limit: range.limit.min(LITTLE), ..range.clone() };
        let first: Vec<Range> = ranges.iter().map(clipped).collect();
        let entries: Vec<Vec<String>> =
            self.read_view(true, move |view| first.iter().map(|range| view.range(range)).collect()).await?;
        let has_more = |(entries, range): (&Vec<String>, &Range)| entries.len() == LITTLE && range.limit > LITTLE;
        if !entries.iter().zip(&ranges).any(has_more) {
            return Ok(entries);
        }
        self.read_view(false, move |view| ranges.iter().map(|range| view.range(range)).collect()).await
    }

    async fn now(&self) -> Result<UnixMs, StoreError> {
        Ok(self.time.now())
    }

    async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        batches.iter().try_for_each(Batch::validate)?;
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        self.commits.commit(batches).await
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }
}
