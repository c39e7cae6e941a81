//! The durable store of one machine: tables in a redb file, and logs beside it, in which one commit holds the batches of many callers.
//!
//! A batch is acknowledged after a log that holds it was synced. Until the tables have it, memory has it too: a layer of all that one log
//! has changed. A log that has grown enough is written into the tables beside everything else, while the other log grows. Reads
//! take a snapshot of the last commit and never wait for the writer.

mod blocking;
mod changes;
mod files;
mod layer;
mod log;
mod tables;
mod view;
mod writer;

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use redb::{Database, StorageBackend, backends::FileBackend};
use sortinghat_proto::time::UnixMs;
use tokio::sync::watch;

use super::{Batch, Clock, Hints, Range, Record, Store, StoreError, Verdict, clock::QueueTime};
use files::Files;
use view::View;
use writer::{Commits, Writer};

/// The length from which a log is written into the tables. What many commits have changed is then written once; memory has it meanwhile.
const LOG_BYTES: u64 = 2 << 20;
/// Of the file, kept in memory. What is read often was written lately, and the system keeps the rest as long as there is room.
const CACHE_BYTES: usize = 128 << 20;
/// Records, or entries of one index, that are read where the caller is.
const LITTLE: usize = 256;

/// Opens the files as they were left; called again after a failure.
type Open = Box<dyn Fn() -> Result<Files, redb::Error> + Send>;

/// What readers go by.
enum State {
    /// The last commit.
    Open(Arc<View>),
    /// A failed commit may turn out to be the last one.
    Opening,
    /// The files could not be opened again yet.
    Failed,
}

/// A store in a file and its logs. Dropping it finishes what was queued.
pub struct EmbeddedStore {
    state: watch::Receiver<State>,
    time: Arc<MonotoneTime>,
    hints: Arc<Hints>,
    commits: Commits,
}

/// The greatest time that was told, so that it never goes back. Each commit stores it: a time that no commit followed has had
/// no lasting effect.
#[derive(Debug)]
struct MonotoneTime {
    clock: Arc<dyn Clock>,
    time: Mutex<QueueTime>,
}

impl MonotoneTime {
    fn from(greatest: u64, clock: Arc<dyn Clock>) -> Self {
        let mut time = QueueTime::default();
        time.note_told(greatest);
        Self { clock, time: Mutex::new(time) }
    }

    fn now(&self) -> UnixMs {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        UnixMs(time.at(self.clock.now().0))
    }
}

impl EmbeddedStore {
    /// Opens the file and its logs beside it, or makes them, and starts the writer. Blocks; another process that has them open is an
    /// error.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let named = |source: redb::Error| StoreError::Unavailable {
            action: "open its file",
            reason: format!("{}: {source}", path.display()),
        };
        if !path.exists() {
            make(path).map_err(named)?;
        }
        let file = path.to_owned();
        Self::start(Box::new(move || open(&file)), named, clock)
    }

    /// The same over other places than files, which are empty or were made by this: memory, or storage that loses its power.
    /// `places`, one for the tables and two for logs, is called again after a write failed; a log is written into the tables once
    /// it has `log_bytes`.
    pub fn over<P: StorageBackend>(
        places: impl Fn() -> [P; 3] + Send + 'static,
        log_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let open = move || {
            let [tables, even, odd] = places();
            Files::open(builder().create_with_backend(tables)?, [even, odd], log_bytes)
        };
        Self::start(Box::new(open), unavailable("open its storage"), clock)
    }

    fn start(
        open: Open,
        failed: impl FnOnce(redb::Error) -> StoreError,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let files = open().map_err(failed)?;
        let view = files.view().clone();
        let time = Arc::new(MonotoneTime::from(view.recent.time, clock));
        let hints = Arc::<Hints>::default();
        let (sender, state) = watch::channel(State::Open(Arc::new(view)));
        let files = Some(files);
        let writer = Writer { open, files, state: sender, time: time.clone(), hints: hints.clone() };
        let commits = Commits::start(writer)
            .map_err(|source| StoreError::Unavailable { action: "start its writer", reason: source.to_string() })?;
        Ok(Self { state, time, hints, commits })
    }

    /// The store after the last commit; waits while the files are opened again.
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

    /// Runs a read: of little at once and where the caller is, since what a queue reads is what was written lately and lies in memory;
    /// of much off the async threads.
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
            // Callers read before they write: while reads fail, no other commit may ever come that would find the disk working again.
            self.commits.probe();
        }
        result.map_err(unavailable("read"))
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The logs beside a file.
fn logs_of(path: &Path) -> [PathBuf; 2] {
    ["log0", "log1"].map(|extension| path.with_added_extension(extension))
}

/// Makes a file under another name first, so that none which lost its power half made is ever opened, and makes its name last.
fn make(path: &Path) -> Result<(), redb::Error> {
    let unfinished = path.with_added_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    tables::prepare(&Database::create(&unfinished)?)?;
    logs_of(path).iter().try_for_each(|log| File::create(log)?.sync_all())?;
    fs::rename(&unfinished, path)?;
    sync_folder_of(path)
}

/// Opens the files. A file of the time before there were logs gets them.
fn open(path: &Path) -> Result<Files, redb::Error> {
    let database = builder().open(path)?;
    let is_new = !tables::has_logs(&database)?;
    let open = |log: PathBuf| {
        let opened = OpenOptions::new().read(true).write(true).create(is_new).open(&log);
        opened.map_err(|error| io::Error::other(format!("its log {}: {error}", log.display())))
    };
    let [even, odd] = logs_of(path).map(open);
    let logs = [FileBackend::new(even?)?, FileBackend::new(odd?)?];
    if is_new {
        sync_folder_of(path)?;
    }
    Files::open(database, logs, LOG_BYTES)
}

fn sync_folder_of(path: &Path) -> Result<(), redb::Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?)
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
        // Most indexes are short, whatever the limit is.
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
