//! What every store does: the conformance suite, the same answers from all, and what a durable one keeps.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use sortinghat_coordinator::store::{
    Batch, EmbeddedStore, Expectation, ManualClock, MemoryStore, Range, Store, SystemClock, Verdict, conformance,
};
use sortinghat_proto::time::UnixMs;

fn embedded(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, Arc::new(SystemClock::new())).expect("a new file opens")
}

fn create(key: &str) -> Batch {
    Batch {
        checks: vec![(key.to_owned(), Expectation::Absent)],
        writes: vec![(key.to_owned(), Bytes::from(key.to_owned()))],
        ..Batch::default()
    }
}

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    conformance::check(Arc::new(MemoryStore::new(Arc::new(SystemClock::new())))).await;
}

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    conformance::check(Arc::new(embedded(&folder.path().join("queue.redb")))).await;
}

/// A random batch over few keys, so that they meet. `guess` stands for versions: the right one, or none.
#[derive(Debug, Clone)]
struct RandomBatch {
    checks: Vec<(u8, bool)>,
    writes: Vec<(u8, u8)>,
    deletes: Vec<u8>,
    removals: Vec<(u8, u8)>,
    insertions: Vec<(u8, u8)>,
    increments: Vec<(u8, i8)>,
}

fn random_batch() -> impl Strategy<Value = RandomBatch> {
    let key = 0..6_u8;
    let pair = || prop::collection::vec((0..3_u8, 0..8_u8), 0..3);
    (
        prop::collection::vec((key.clone(), prop::bool::weighted(0.9)), 1..4),
        prop::collection::vec((key.clone(), any::<u8>()), 0..3),
        prop::collection::vec(key, 0..2),
        pair(),
        pair(),
        prop::collection::vec((0..3_u8, any::<i8>()), 0..3),
    )
        .prop_map(|(checks, writes, deletes, removals, insertions, increments)| RandomBatch {
            checks,
            writes,
            deletes,
            removals,
            insertions,
            increments,
        })
}

impl RandomBatch {
    /// The batch for a store: expectations are taken from what the store holds, or deliberately wrong.
    async fn of(&self, store: &dyn Store) -> Batch {
        let key = |number: &u8| format!("key{number}");
        let mut checks = Vec::new();
        for (number, is_right) in &self.checks {
            let found = store.read(&[key(number)]).await.expect("the store answers")[0].clone();
            let right = found.map_or(Expectation::Absent, |record| Expectation::Version(record.version));
            checks.push((key(number), if *is_right { right } else { Expectation::Version(u64::MAX) }));
        }
        let entry = |(index, entry): &(u8, u8)| (format!("index{index}"), format!("entry{entry}"));
        Batch {
            checks,
            writes: self.writes.iter().map(|(number, value)| (key(number), Bytes::from(vec![*value]))).collect(),
            deletes: self.deletes.iter().map(key).collect(),
            removals: self.removals.iter().map(entry).collect(),
            insertions: self.insertions.iter().map(entry).collect(),
            increments: self.increments.iter().map(|(n, by)| (format!("counter{n}"), i64::from(*by))).collect(),
            topics: Vec::new(),
        }
    }
}

/// Everything that random batches can have changed, versions included.
async fn contents(store: &dyn Store) -> String {
    let keys: Vec<String> = (0..6).map(|number| format!("key{number}")).collect();
    let counters: Vec<String> = (0..3).map(|number| format!("counter{number}")).collect();
    let mut text = format!("{:?} {:?}", store.read(&keys).await, store.counters(&counters).await);
    for index in 0..3 {
        let range = Range::first(format!("index{index}"), 5);
        let both = (store.range(range.clone()).await, store.range(range.descending().until("entry6")).await);
        text.push_str(&format!("{both:?}"));
    }
    text
}

#[tokio::test]
async fn twenty_thousand_random_batches_leave_the_embedded_store_as_the_model() {
    const CALLS: usize = 2_500;
    const BATCHES_PER_CALL: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let model = MemoryStore::new(Arc::new(SystemClock::new()));
    let store = embedded(&folder.path().join("queue.redb"));
    let mut runner = TestRunner::deterministic();
    let mut applied = 0;
    for call in 0..CALLS {
        let mut batches = Vec::new();
        for _ in 0..BATCHES_PER_CALL {
            let random = random_batch().new_tree(&mut runner).expect("the strategy rejects nothing").current();
            batches.push(random.of(&model).await);
        }
        // Malformed ones are refused by both; the rest must be treated alike.
        batches.retain(|batch| batch.validate().is_ok());
        let expected = model.apply(batches.clone()).await.expect("well formed");
        let got = store.apply(batches).await.expect("well formed");
        assert_eq!(got, expected, "call {call}");
        applied += expected.iter().filter(|verdict| matches!(verdict, Verdict::Applied(_))).count();
        if call % 50 == 0 {
            assert_eq!(contents(&store).await, contents(&model).await, "after call {call}");
        }
    }
    assert!(applied > 1_000, "only {applied} batches were applied: the comparison says little");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_store_was_opened_again() {
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
    assert!(next > version, "versions go on where they stopped");
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
    assert_eq!(store.now().await.expect("the store answers"), UnixMs(5_000), "within a process");
    drop(store);
    let store = EmbeddedStore::open(&path, clock).expect("opens again");
    assert_eq!(store.now().await.expect("the store answers"), UnixMs(5_000), "and after it");
}

#[tokio::test]
async fn a_file_that_another_store_has_open_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let _first = embedded(&path);
    let second = EmbeddedStore::open(&path, Arc::new(SystemClock::new()));
    assert!(second.expect_err("one process at a time").to_string().contains("queue.redb"));
}

/// Set for the child process of the test below: the file that it shall write until it is killed.
const VICTIM: &str = "SORTINGHAT_STORE_TEST_VICTIM";

/// Writes from many tasks at once, and prints each key once its write was acknowledged. Never returns.
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
            .args(["--exact", "every_acknowledged_write_survives_a_kill", "--nocapture"])
            .env(VICTIM, folder.path().join(format!("{kill}.redb")))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test starts again");
        let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let key = |line: String| line.split_once("acknowledged ").map(|(_, key)| key.trim().to_owned());
        // Killed in the middle of writing; what it had printed by then was acknowledged.
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
        // The last line of each writer may have been cut by the kill into a shorter number, which exists as well.
        assert_eq!(lost, 0, "of {} acknowledged writes", keys.len());
    }
}
