//! What the embedded store keeps: over restarts, kills and clocks that go back.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

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
async fn time_goes_on_over_a_restart_although_the_clock_goes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let clock = Arc::new(ManualClock::new(UnixMs(5_000)));
    let store = EmbeddedStore::open(&path, clock.clone()).expect("opens");
    assert_eq!(store.now().await.expect("the store answers"), UnixMs(5_000));
    store.apply(vec![create("a")]).await.expect("the store answers");
    clock.set(UnixMs(1_000));
    assert_eq!(store.now().await.expect("the store answers"), UnixMs(5_000), "within a process");
    drop(store);
    let store = EmbeddedStore::open(&path, clock.clone()).expect("opens again");
    assert_eq!(store.now().await.expect("the store answers"), UnixMs(5_000), "and after it");
    clock.advance_ms(1);
    assert_eq!(
        store.now().await.expect("the store answers"),
        UnixMs(5_001),
        "without a wait for the clock to catch up"
    );
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
            .args(["--exact", "embedded::every_acknowledged_write_survives_a_kill", "--nocapture"])
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
