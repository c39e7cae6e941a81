//! The embedded store over restarts, kills and clocks that go back.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use redb::backends::InMemoryBackend;
use sortinghat_coordinator::store::{
    Batch, EmbeddedStore, ManualClock, Range, Store, SystemClock, Verdict, conformance,
};
use sortinghat_proto::time::UnixMs;

use crate::{create, embedded};

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    conformance::check(Arc::new(embedded(&folder.path().join("queue.redb")))).await;
}

#[tokio::test]
async fn acknowledged_batches_are_there_after_the_store_was_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let store = embedded(&path);
    let batch = Batch {
        insertions: vec![("index".into(), "entry".into())],
        increments: vec![("counter".into(), 3)],
        ..create("kept")
    };
    store.apply(vec![batch]).await.expect("the store answers");
    let version = store.read(&["kept".into()]).await.expect("the store answers")[0].clone().expect("kept").version;
    drop(store);
    let store = embedded(&path);
    let record = store.read(&["kept".into()]).await.expect("the store answers")[0].clone().expect("kept");
    assert_eq!((record.version, record.value.as_ref()), (version, b"kept".as_slice()));
    assert_eq!(store.range(Range::first("index", 9)).await.expect("the store answers"), ["entry"]);
    assert_eq!(store.counters(&["counter".into()]).await.expect("the store answers"), [3]);
    store.apply(vec![create("next")]).await.expect("the store answers");
    let next = store.read(&["next".into()]).await.expect("the store answers")[0].clone().expect("written").version;
    assert!(next > version, "versions go on after the last one");
}

#[tokio::test]
async fn time_does_not_go_back_over_a_restart_although_the_clock_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let clock = Arc::new(ManualClock::new(UnixMs(5_000)));
    let store = EmbeddedStore::open(&path, clock.clone()).expect("opens");
    assert_eq!(store.now().await.expect("the store answers"), UnixMs(5_000));
    store.apply(vec![create("a")]).await.expect("the store answers");
    clock.set(UnixMs(1_000));
    assert_eq!(
        store.now().await.expect("the store answers"),
        UnixMs(5_000),
        "the time does not go back within a process"
    );
    drop(store);
    let store = EmbeddedStore::open(&path, clock.clone()).expect("opens again");
    assert_eq!(
        store.now().await.expect("the store answers"),
        UnixMs(5_000),
        "the time does not go back over a restart"
    );
    clock.advance_ms(1);
    assert_eq!(
        store.now().await.expect("the store answers"),
        UnixMs(5_001),
        "the time goes on although the clock is behind it"
    );
}

#[tokio::test]
async fn a_file_that_another_store_has_open_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let _first = embedded(&path);
    let second = EmbeddedStore::open(&path, Arc::new(SystemClock::new()));
    assert!(second.expect_err("only one process at a time may open the file").to_string().contains("queue.redb"));
}

#[tokio::test]
async fn a_file_without_its_logs_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    drop(embedded(&path));
    std::fs::remove_file(folder.path().join("queue.redb.log1")).expect("it is there");
    let opened = EmbeddedStore::open(&path, Arc::new(SystemClock::new()));
    assert!(opened.expect_err("the last acknowledged batches may be lost").to_string().contains("queue.redb.log1"));
}

#[tokio::test]
async fn a_file_of_the_format_without_logs_opens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let database = redb::Database::create(&path).expect("a new file");
    let transaction = database.begin_write().expect("it is writable");
    {
        let numbers = redb::TableDefinition::<&str, u64>::new("meta");
        let mut numbers = transaction.open_table(numbers).expect("a table");
        [("format", 1), ("version", 7), ("time", 5_000)].iter().for_each(|(name, number)| {
            numbers.insert(name, number).expect("it is writable");
        });
        let records = redb::TableDefinition::<&str, (u64, &[u8])>::new("records");
        transaction.open_table(records).expect("a table").insert("old", (7, &b"old"[..])).expect("it is writable");
    }
    transaction.commit().expect("it is writable");
    drop(database);
    let store = EmbeddedStore::open(&path, Arc::new(ManualClock::new(UnixMs(1_000)))).expect("it opens");
    assert_eq!(store.now().await.expect("the store answers"), UnixMs(5_000));
    store.apply(vec![create("new")]).await.expect("the store answers");
    let records = store.read(&["old".into(), "new".into()]).await.expect("the store answers");
    let versions: Vec<u64> = records.iter().flatten().map(|record| record.version).collect();
    assert_eq!(versions, [7, 8]);
}

/// The length from which a log is checkpointed, in bytes: every commit is longer.
const SHORT_LOG: u64 = 1;

#[tokio::test]
async fn a_queue_that_is_emptied_from_its_front_lists_the_entries_that_are_left() {
    let storages = || std::array::from_fn(|_| InMemoryBackend::new());
    let store = EmbeddedStore::over(storages, SHORT_LOG, Arc::new(SystemClock::new())).expect("it is empty");
    let entry = |number: usize| ("queue".to_owned(), format!("{number:04}"));
    let mut left: BTreeSet<String> = (0..1_000).map(|number| entry(number).1).collect();
    store
        .apply(vec![Batch { insertions: (0..1_000).map(entry).collect(), ..create("filled") }])
        .await
        .expect("applied");
    for number in 0..1_000 {
        let mut batch = Batch { removals: vec![entry(number)], ..create(&number.to_string()) };
        left.remove(&entry(number).1);
        // Sometimes an entry is inserted at the very front.
        if number % 100 == 99 {
            batch.insertions.push(entry(number / 2));
            left.insert(entry(number / 2).1);
        }
        store.apply(vec![batch]).await.expect("applied");
        for from in ["", "0300", "0700"] {
            let found = store.range(Range::first("queue", 12).from(from)).await.expect("the store answers");
            let expected: Vec<&String> = left.range(from.to_owned()..).take(12).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "from {from:?} after {number}");
        }
        let found = store.range(Range::first("queue", 12).descending()).await.expect("the store answers");
        assert_eq!(found.iter().collect::<Vec<_>>(), left.iter().rev().take(12).collect::<Vec<_>>());
    }
}

/// The variable that names the file which the child process of the test below writes until it is killed.
const VICTIM: &str = "SORTINGHAT_STORE_TEST_VICTIM";

/// Writes from many tasks at once, and prints each key after its write was acknowledged. Never returns.
async fn write_until_killed(path: &Path) {
    let store: Arc<dyn Store> = Arc::new(embedded(path));
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let key = format!("w{writer}-{number}");
                let verdicts = store.apply(vec![create(&key)]).await.expect("the store answers");
                assert_eq!(verdicts, [Verdict::Applied(vec![])]);
                println!("acknowledged {key}");
            }
        })
    });
    futures::future::join_all(writers.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return write_until_killed(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    for kill in 1..=3_usize {
        let mut victim = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "embedded::every_acknowledged_write_survives_a_kill", "--nocapture"])
            .env(VICTIM, folder.path().join(format!("{kill}.redb")))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test starts again");
        let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let key = |line: String| line.split_once("acknowledged ").map(|(_, key)| key.trim().to_owned());
        // The process is killed in the middle of writing. Every key that it has printed by then was acknowledged.
        let mut acknowledged: BTreeSet<String> =
            lines.by_ref().map_while(Result::ok).filter_map(key).take(200 * kill).collect();
        victim.kill().expect("it runs");
        victim.wait().expect("it ended");
        acknowledged.extend(lines.map_while(Result::ok).filter_map(key).filter(|key| key.ends_with(char::is_numeric)));
        let store = embedded(&path.with_file_name(format!("{kill}.redb")));
        let keys: Vec<String> = acknowledged.into_iter().collect();
        let records = store.read(&keys).await.expect("the store answers");
        let lost = keys.iter().zip(&records).filter(|(_, record)| record.is_none()).count();
        assert!(keys.len() >= 200 * kill);
        // The kill may have cut the last line of a writer to a shorter number, which is the key of an earlier record.
        assert_eq!(lost, 0, "of {} acknowledged writes", keys.len());
    }
}
