//! The Redis store while Redis or the connection to it fails.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use sortinghat_coordinator::store::{Batch, Expectation, Record, RedisServer, RedisStore, Store, StoreError, Verdict};
use tokio::time::Instant;

use crate::{connect, create, options, proxy::Proxy};

/// How long a store may take to report that it cannot be reached.
const BOUND: Duration = Duration::from_secs(10);

fn signal(server: &RedisServer, signal: Signal) {
    let pid = i32::try_from(server.pid()).expect("process ids fit in 32 bits");
    kill(Pid::from_raw(pid), signal).expect("the server is ours");
}

async fn record(store: &RedisStore, key: &str) -> Option<Record> {
    store.read(&[key.to_owned()]).await.expect("it answers")[0].clone()
}

/// Waits until the store answers a read.
async fn answers(store: &RedisStore) {
    let start = Instant::now();
    while let Err(error) = store.read(&["probe".to_owned()]).await {
        assert!(start.elapsed() < Duration::from_secs(30), "it never comes back: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_redis_that_has_ended_is_reported_in_seconds_and_used_again_after_its_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    store.apply(vec![create("a")]).await.expect("applied");
    let mut hints = store.hints().listen(["again"]);
    server.kill();
    let start = Instant::now();
    let mut verdicts = Ok(vec![Verdict::Unknown]);
    // The first call may use a connection whose failure has not been noticed yet.
    while let Ok(unknown) = &verdicts {
        assert_eq!(*unknown, [Verdict::Unknown]);
        verdicts = store.apply(vec![create("b")]).await;
    }
    assert!(matches!(verdicts, Err(StoreError::Unavailable { .. })), "{verdicts:?}");
    assert!(matches!(store.now().await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.read(&["a".into()]).await, Err(StoreError::Unavailable { .. })));
    assert!(start.elapsed() < 2 * BOUND, "after {:?}", start.elapsed());

    server.restart();
    let restarted = Instant::now();
    answers(&store).await;
    assert!(restarted.elapsed() < Duration::from_secs(3), "after {:?}", restarted.elapsed());
    assert!(record(&store, "a").await.is_some(), "what was acknowledged is there");
    tokio::time::timeout(BOUND, hints.heard()).await.expect("listeners are woken, since hints were lost");
    let batch = Batch { topics: vec!["again".into()], ..create("c") };
    store.apply(vec![batch]).await.expect("applied");
    tokio::time::timeout(BOUND, hints.heard()).await.expect("hints arrive again");
}

#[tokio::test]
async fn a_call_during_a_short_restart_only_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = RedisServer::start(folder.path());
    let store = Arc::new(connect(&server).await.expect("safe settings"));
    server.kill();
    // The failure is noticed here, so that the call below begins after it.
    while store.read(&["a".into()]).await.is_ok() {}
    let waiting = store.clone();
    let read = tokio::spawn(async move { waiting.read(&["a".into()]).await });
    let restarted = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let _server = restarted.await.expect("it starts again");
    assert_eq!(read.await.expect("no panic").expect("the call waited for the new connection"), [None]);
}

#[tokio::test]
async fn a_lost_reply_makes_the_verdict_unknown_and_the_batch_is_applied_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let proxy = Proxy::to(server.port()).await;
    let store = RedisStore::open(options(&proxy.url())).await.expect("safe settings");
    proxy.lose_replies(true);
    let batch = Batch { increments: vec![("counter".into(), 1)], ..create("lost") };
    assert_eq!(store.apply(vec![batch.clone()]).await.expect("it was sent"), [Verdict::Unknown]);
    proxy.lose_replies(false);
    answers(&store).await;
    assert!(record(&store, "lost").await.is_some(), "the batch had reached Redis");
    assert_eq!(store.apply(vec![batch]).await.expect("applied"), [Verdict::Conflict], "a resend does not apply twice");
    assert_eq!(store.counters(&["counter".into()]).await.expect("it answers"), [1]);
}

#[tokio::test]
async fn a_redis_that_hangs_is_reported_in_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    signal(&server, Signal::SIGSTOP);
    let start = Instant::now();
    assert_eq!(store.apply(vec![create("a")]).await.expect("it was sent"), [Verdict::Unknown]);
    assert!(start.elapsed() < BOUND, "after {:?}", start.elapsed());
    assert!(matches!(store.now().await, Err(StoreError::Unavailable { .. })));
    signal(&server, Signal::SIGCONT);
    answers(&store).await;
}

#[tokio::test]
async fn a_full_memory_refuses_whole_batches_until_there_is_room_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    store.apply(vec![create("a")]).await.expect("applied");
    let version = record(&store, "a").await.expect("written").version;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("it answers");
    let change = Batch {
        checks: vec![("a".into(), Expectation::Version(version)), ("b".into(), Expectation::Absent)],
        deletes: vec!["a".into()],
        writes: vec![("b".into(), bytes::Bytes::new())],
        ..Batch::default()
    };
    let error = store.apply(vec![change.clone()]).await.expect_err("there is no memory").to_string();
    assert!(error.contains("OOM") || error.contains("maxmemory"), "{error}");
    assert!(
        record(&store, "a").await.is_some() && record(&store, "b").await.is_none(),
        "nothing of the batch was applied"
    );
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("it answers");
    assert_eq!(store.apply(vec![change]).await.expect("applied"), [Verdict::Applied(vec![])]);
}

#[tokio::test]
async fn a_redis_that_lost_its_data_is_refused_until_the_data_are_back() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let mut server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    store.apply(vec![create("a"), create("b")]).await.expect("applied");
    server.kill();
    let (kept, moved) = (folder.path().join("appendonlydir"), elsewhere.path().join("appendonlydir"));
    std::fs::rename(&kept, &moved).expect("the same file system");
    server.restart();
    let start = Instant::now();
    let error = loop {
        match store.apply(vec![create("c")]).await {
            Err(error @ StoreError::Unsafe { .. }) => break error.to_string(),
            Ok(verdicts) => {
                assert_eq!(verdicts, [Verdict::Unknown], "no batch is applied to a store that lost its data")
            }
            Err(_) => {}
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the loss is never noticed");
    };
    assert!(error.contains("has lost acknowledged writes"), "{error}");
    assert!(store.read(&["a".into()]).await.is_err(), "reads are refused as well");
    server.kill();
    std::fs::remove_dir_all(&kept).expect("the folder of the empty server");
    std::fs::rename(&moved, &kept).expect("the same file system");
    server.restart();
    answers(&store).await;
    assert!(record(&store, "a").await.is_some());
}

#[tokio::test]
async fn time_goes_on_although_the_clock_of_redis_went_back() {
    const HOUR_MS: u64 = 3_600_000;
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    let before = store.now().await.expect("it answers");
    let ahead = before.plus_ms(HOUR_MS);
    // As if a commit had stored this time, and the clock had been set back by an hour afterwards.
    server.command(&["SET", "{sortinghat}:time", &ahead.0.to_string()]).expect("it answers");
    let first = store.now().await.expect("it answers");
    assert!(first >= ahead, "{first:?} was told after {ahead:?}");
    let moving = async { while store.now().await.expect("it answers") == first {} };
    tokio::time::timeout(BOUND, moving).await.expect("the time goes on before the clock has caught up");
    let later = store.now().await.expect("it answers");
    assert!(later < ahead.plus_ms(HOUR_MS), "{later:?} is ahead by more than the clock went back");
}

#[tokio::test]
async fn a_redis_that_somebody_else_has_flushed_takes_no_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    store.apply(vec![create("a")]).await.expect("applied");
    server.command(&["FLUSHALL"]).expect("it answers");
    let refused = store.apply(vec![create("b")]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. } | StoreError::Unsafe { .. })), "{refused:?}");
    let refused = store.apply(vec![create("b")]).await;
    assert!(matches!(refused, Err(StoreError::Unsafe { .. })), "{refused:?}");
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_to_kills_of_redis() {
    const KILLS: usize = 5;
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = RedisServer::start(folder.path());
    let store = Arc::new(connect(&server).await.expect("safe settings"));
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        writers.spawn(async move {
            for number in 0_u64.. {
                let key = format!("w{writer}-{number}");
                if store.apply(vec![create(&key)]).await.is_ok_and(|verdicts| verdicts == [Verdict::Applied(vec![])]) {
                    acknowledged.lock().insert(key);
                }
            }
        });
    }
    for kill in 1..=KILLS {
        let start = Instant::now();
        while acknowledged.lock().len() < 500 * kill {
            assert!(start.elapsed() < Duration::from_secs(60), "the writers make no progress");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
        server = tokio::task::spawn_blocking(move || {
            server.restart();
            server
        })
        .await
        .expect("it starts again");
    }
    writers.shutdown().await;
    answers(&store).await;
    let keys: Vec<String> = acknowledged.lock().iter().cloned().collect();
    let mut lost = 0;
    for keys in keys.chunks(1_000) {
        lost += store.read(keys).await.expect("it answers").iter().filter(|record| record.is_none()).count();
    }
    assert_eq!(lost, 0, "of {} acknowledged writes", keys.len());
}
