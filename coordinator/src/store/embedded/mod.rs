//! The durable store of one machine: a redb file, written by one thread that commits many batches at once.
//!
//! A batch is acknowledged after the commit that holds it was synced to the disk. Reads take a snapshot of the last commit and
//! never wait for the writer.

mod disk;
mod tables;
mod writer;

use std::{
    fmt,
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase as _, StorageBackend};
use sortinghat_proto::time::UnixMs;
use tokio::sync::oneshot;

use super::{Batch, Clock, Hints, Range, Record, Store, StoreError, Verdict, clock::QueueTime};
use disk::Disk;
use tables::{COUNTERS, INDEXES, META, RECORDS, TIME};

/// Of the file, kept in memory. What is read often was written lately, and the system keeps the rest as long as there is room.
const CACHE_BYTES: usize = 256 << 20;
/// Records, or entries of one index, that are read where the caller is.
const LITTLE: usize = 256;

/// A store in one file. Dropping it finishes what was queued.
pub struct EmbeddedStore {
    disk: Arc<Disk>,
    time: Arc<MonotoneTime>,
    hints: Arc<Hints>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<writer::Request>>,
    writer: Option<JoinHandle<()>>,
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
    /// Opens the file, or makes it, and starts the writer. Blocks; another process that has it open is an error.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let named = |source: redb::Error| StoreError::Unavailable {
            action: "open its file",
            reason: format!("{}: {source}", path.display()),
        };
        if !path.exists() {
            make(path).map_err(named)?;
        }
        let file = path.to_owned();
        Self::start(Disk::open(move || Ok(builder().open(&file)?)).map_err(named)?, clock)
    }

    /// The same over another place than a file, which is empty or was made by this: memory, or storage that loses its power.
    /// `place` is called again after a write to the place failed.
    pub fn over<P: StorageBackend>(
        place: impl Fn() -> P + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let disk = Disk::open(move || Ok(builder().create_with_backend(place())?));
        Self::start(disk.map_err(unavailable("open its storage"))?, clock)
    }

    fn start(disk: Disk, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let disk = Arc::new(disk);
        let greatest = disk.with(tables::prepare).map_err(unavailable("prepare its tables"))?;
        let time = Arc::new(MonotoneTime::from(greatest, clock));
        let hints = Arc::<Hints>::default();
        let (requests, queue) = mpsc::channel();
        let writer = writer::Writer { disk: disk.clone(), time: time.clone(), hints: hints.clone() };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|source| StoreError::Unavailable { action: "start its writer", reason: source.to_string() })?;
        Ok(Self { disk, time, hints, requests: Some(requests), writer: Some(writer) })
    }

    /// Runs a read of little: at once and where the caller is, since what a queue reads is what was written lately and lies in
    /// memory; off the async threads while the file is opened again.
    async fn read_little<T: Send + 'static>(
        &self,
        read: impl Fn(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.disk.try_with(&read) {
            Some(result) => self.outcome(result),
            None => self.read_much(read).await,
        }
    }

    /// Runs a read off the async threads.
    async fn read_much<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = self.disk.clone();
        self.outcome(tokio::task::spawn_blocking(move || disk.with(read)).await.map_err(|_| StoreError::Closed)?)
    }

    fn outcome<T>(&self, result: Result<T, redb::Error>) -> Result<T, StoreError> {
        if result.is_err() {
            self.probe();
        }
        result.map_err(unavailable("read"))
    }

    /// Lets the writer commit nothing, which opens the file again if the disk has failed. Callers read before they write: while
    /// reads fail, no other commit may ever come that would find the disk working again.
    fn probe(&self) {
        if let Some(requests) = &self.requests {
            // Nobody waits for the answer, and a writer that is gone opens nothing.
            let _ = requests.send(writer::Request { batches: Vec::new(), reply: oneshot::channel().0 });
        }
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes a file under another name first, so that none which lost its power half made is ever opened, and makes its name last.
fn make(path: &Path) -> Result<(), redb::Error> {
    let unfinished = path.with_added_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    tables::prepare(&Database::create(&unfinished)?)?;
    fs::rename(&unfinished, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

fn unavailable(action: &'static str) -> impl FnOnce(redb::Error) -> StoreError {
    move |source| StoreError::Unavailable { action, reason: source.to_string() }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // Closing the queue ends the writer after its last commit; the file's lock goes with it.
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to finish.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError> {
        let is_little = keys.len() <= LITTLE;
        let keys = keys.to_vec();
        let read = move |database: &Database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let read = |key: &String| Ok(records.get(key.as_str())?.map(|guard| tables::record(guard.value())));
            keys.iter().map(read).collect()
        };
        if is_little { self.read_little(read).await } else { self.read_much(read).await }
    }

    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError> {
        let keys = keys.to_vec();
        self.read_little(move |database| {
            let counters = database.begin_read()?.open_table(COUNTERS)?;
            let read = |key: &String| Ok(counters.get(key.as_str())?.map_or(0, |guard| guard.value()));
            keys.iter().map(read).collect()
        })
        .await
    }

    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError> {
        Ok(self.ranges(vec![range]).await?.pop().unwrap_or_default())
    }

    async fn ranges(&self, ranges: Vec<Range>) -> Result<Vec<Vec<String>>, StoreError> {
        let clipped = |range: Range| Range { limit: range.limit.min(LITTLE), ..range };
        let first = tables::reader(ranges.iter().cloned().map(clipped).collect());
        let entries = self.read_little(first).await?;
        let has_more = |(entries, range): (&Vec<String>, &Range)| entries.len() == LITTLE && range.limit > LITTLE;
        if !entries.iter().zip(&ranges).any(has_more) {
            return Ok(entries);
        }
        self.read_much(tables::reader(ranges)).await
    }

    async fn now(&self) -> Result<UnixMs, StoreError> {
        Ok(self.time.now())
    }

    async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        batches.iter().try_for_each(Batch::validate)?;
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, verdicts) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(writer::Request { batches, reply }).map_err(|_| StoreError::Closed)?;
        verdicts.await.map_err(|_| StoreError::Closed)
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }
}
