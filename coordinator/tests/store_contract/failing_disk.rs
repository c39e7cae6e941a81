//! The embedded store on a disk that fails and then works again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redb::StorageBackend;
use sortinghat_coordinator::store::{EmbeddedStore, Store as _, SystemClock, Verdict};

use crate::create;

/// How long the store may take to notice that its disk works again.
const PATIENCE: Duration = Duration::from_secs(20);

/// The length from which a log is checkpointed, in bytes: every commit is longer.
const LOG_BYTES: u64 = 1;

/// A storage in memory that fails on demand, or does not grow.
#[derive(Debug, Clone, Default)]
struct Fragile {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_failing: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
}

impl Fragile {
    fn fail(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::SeqCst);
    }

    fn operate<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        if self.is_failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk has failed"));
        }
        Ok(work(&mut self.bytes.lock()))
    }
}

/// A store on three such storages.
fn open() -> ([Fragile; 3], EmbeddedStore) {
    let disk: [Fragile; 3] = Default::default();
    let storages = disk.clone();
    let store = EmbeddedStore::over(move || storages.clone(), LOG_BYTES, Arc::new(SystemClock::new()));
    (disk, store.expect("it opens"))
}

/// Makes all storages fail, or work again.
fn fail(disk: &[Fragile; 3], is_failing: bool) {
    disk.iter().for_each(|storage| storage.fail(is_failing));
}

impl StorageBackend for Fragile {
    fn len(&self) -> io::Result<u64> {
        self.operate(|bytes| bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        self.operate(|bytes| out.copy_from_slice(&bytes[start..start + out.len()]))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.is_full.load(Ordering::SeqCst) && len as usize > self.bytes.lock().len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.operate(|bytes| bytes.resize(len as usize, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(|_| ())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = offset as usize;
        self.operate(|bytes| bytes[start..start + data.len()].copy_from_slice(data))
    }
}

async fn write(store: &EmbeddedStore, key: &str) -> Verdict {
    store.apply(vec![create(key)]).await.expect("the writer answers").remove(0)
}

#[tokio::test]
async fn a_store_goes_on_when_its_failed_disk_works_again() {
    let (disk, store) = open();
    assert_eq!(write(&store, "before").await, Verdict::Applied(Vec::new()));

    fail(&disk, true);
    assert_eq!(write(&store, "meanwhile").await, Verdict::Unknown);
    assert_eq!(write(&store, "meanwhile").await, Verdict::Unknown, "the writer goes on");
    store.read(&["before".to_owned()]).await.expect_err("it is not known which batches were applied");

    fail(&disk, false);
    // The next commit finds the disk working, or opens the files for the commit after it.
    while write(&store, "after").await == Verdict::Unknown {}
    let keys = ["before", "after"].map(str::to_owned);
    let records = store.read(&keys).await.expect("it reads again");
    assert!(records.iter().all(Option::is_some), "what was acknowledged is there: {records:?}");
}

#[tokio::test]
async fn reads_without_a_write_notice_that_the_disk_works_again() {
    let (disk, store) = open();
    assert_eq!(write(&store, "before").await, Verdict::Applied(Vec::new()));

    fail(&disk, true);
    assert_eq!(write(&store, "meanwhile").await, Verdict::Unknown);

    fail(&disk, false);
    let keys = ["before".to_owned()];
    let recovered = async {
        loop {
            if let Ok(records) = store.read(&keys).await {
                return records;
            }
        }
    };
    let records = tokio::time::timeout(PATIENCE, recovered).await.expect("the store recovers without a write");
    assert!(records[0].is_some(), "what was acknowledged is there");
}

#[tokio::test]
async fn a_store_on_a_full_disk_answers_reads_and_commits_again_once_there_is_room() {
    let disk: [Fragile; 3] = Default::default();
    let storages = disk.clone();
    // The log is not checkpointed, so that only its growth needs room.
    let store =
        EmbeddedStore::over(move || storages.clone(), 64 << 20, Arc::new(SystemClock::new())).expect("it opens");
    let set_full = |is_full| disk.iter().for_each(|storage| storage.is_full.store(is_full, Ordering::SeqCst));
    assert_eq!(write(&store, "before").await, Verdict::Applied(Vec::new()));

    set_full(true);
    let mut refused = None;
    for number in 0..1_000 {
        let key = format!("key{number}");
        if write(&store, &key).await == Verdict::Unknown {
            refused = Some(key);
            break;
        }
    }
    let refused = refused.expect("the log has to grow at last");
    let records = store.read(&["before".to_owned(), refused.clone()]).await.expect("reads go on");
    assert!(records[0].is_some() && records[1].is_none(), "what was refused is not there: {records:?}");

    set_full(false);
    assert_eq!(write(&store, &refused).await, Verdict::Applied(Vec::new()), "at once");
}

#[tokio::test]
async fn commits_are_kept_in_the_logs_while_the_tables_fail() {
    let (disk, store) = open();
    let [tables, ..] = &disk;
    tables.fail(true);
    let mut applied = Vec::new();
    for number in 0..50 {
        let key = format!("key{number}");
        if write(&store, &key).await == Verdict::Applied(Vec::new()) {
            applied.push(key);
        }
    }
    tables.fail(false);
    while write(&store, "after").await == Verdict::Unknown {}
    let records = store.read(&applied).await.expect("it reads again");
    assert!(!applied.is_empty() && records.iter().all(Option::is_some), "what was acknowledged is there: {records:?}");
}
