//! The Redis store when nothing fails.

use std::sync::Arc;

use sortinghat_coordinator::store::{Batch, Range, RedisServer, RedisStore, Store, Verdict, conformance};

use crate::{connect, create, options};

#[tokio::test]
async fn the_redis_store_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    conformance::check(Arc::new(connect(&server).await.expect("safe settings"))).await;
}

#[tokio::test]
async fn a_cluster_can_host_the_store_in_one_slot() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start_with(folder.path(), &["--cluster-enabled", "yes"]);
    let added = server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).expect("it answers");
    assert!(added.starts_with("+OK"), "{added}");
    conformance::check(Arc::new(connect(&server).await.expect("the cluster is served by this node"))).await;
}

#[tokio::test]
async fn two_deployments_in_one_redis_do_not_see_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let ours = connect(&server).await.expect("safe settings");
    let mut other = options(&server.url());
    other.deployment = "other".parse().expect("a name");
    let theirs = RedisStore::open(other).await.expect("safe settings");
    for store in [&ours, &theirs] {
        assert_eq!(store.apply(vec![create("a")]).await.expect("applied"), [Verdict::Applied(vec![])]);
    }
}

#[tokio::test]
async fn what_one_process_applies_another_reads_and_receives_hints_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let (ours, theirs) = (connect(&server).await.expect("safe"), connect(&server).await.expect("safe"));
    let (mut news, mut more) = (theirs.hints().listen(["news"]), theirs.hints().listen(["more"]));
    let batch = Batch { topics: vec!["news".into(), "more".into()], ..create("shared") };
    ours.apply(vec![batch]).await.expect("applied");
    assert!(theirs.read(&["shared".into()]).await.expect("it answers")[0].is_some());
    news.heard().await;
    more.heard().await;
}

#[tokio::test]
async fn versions_that_no_lua_number_holds_stay_exact() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let before: u64 = 1_999_999_999_999_999_998;
    server.command(&["SET", "{sortinghat}:version", &before.to_string()]).expect("it answers");
    let store = connect(&server).await.expect("safe settings");
    store.apply(vec![create("a"), create("b"), create("c")]).await.expect("applied");
    let keys = ["a", "b", "c"].map(ToOwned::to_owned);
    let records = store.read(&keys).await.expect("it answers");
    let versions: Vec<u64> = records.into_iter().map(|record| record.expect("written").version).collect();
    assert_eq!(versions, [before + 1, before + 2, before + 3]);
}

#[tokio::test]
async fn time_does_not_go_back_when_the_servers_clock_does_or_another_process_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    let now = store.now().await.expect("it answers");
    store.apply(vec![create("a")]).await.expect("applied");
    // As if the clock had been an hour ahead at that commit and was set right afterwards.
    let ahead = now.plus_ms(3_600_000);
    server.command(&["SET", "{sortinghat}:time", &ahead.0.to_string()]).expect("it answers");
    assert_eq!(store.now().await.expect("it answers"), ahead);
    store.apply(vec![create("b")]).await.expect("applied");
    let other = connect(&server).await.expect("safe settings");
    assert_eq!(other.now().await.expect("it answers"), ahead);
}

#[tokio::test]
async fn many_callers_share_calls_of_the_script() {
    const CALLERS: usize = 2_000;
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = Arc::new(connect(&server).await.expect("safe settings"));
    let writers = (0..CALLERS).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.apply(vec![create(&format!("k{number}"))]).await.expect("applied") })
    });
    let all = futures::future::join_all(writers.collect::<Vec<_>>()).await;
    assert!(all.into_iter().all(|verdicts| verdicts.expect("no panic") == [Verdict::Applied(vec![])]));
    let stats = server.command(&["INFO", "commandstats"]).expect("it answers");
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).expect("it was called");
    let calls: usize = calls.split(',').next().expect("a number").parse().expect("a number");
    assert!(calls < CALLERS / 10, "{calls} calls of the script for {CALLERS} callers");
}

#[tokio::test]
async fn the_script_is_loaded_again_after_the_server_forgot_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    server.command(&["SCRIPT", "FLUSH"]).expect("it answers");
    assert_eq!(store.apply(vec![create("a")]).await.expect("applied"), [Verdict::Applied(vec![])]);
}

#[tokio::test]
async fn a_key_that_is_not_an_index_fails_only_the_batch_that_needs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    server.command(&["SET", "{sortinghat}:i:foreign", "text"]).expect("it answers");
    let broken = Batch { insertions: vec![("foreign".into(), "entry".into())], ..create("b") };
    let verdicts = store.apply(vec![create("a"), broken, create("c")]).await.expect("applied");
    assert_eq!(verdicts, [Verdict::Applied(vec![]), Verdict::Unknown, Verdict::Applied(vec![])]);
    let keys = ["a", "b", "c"].map(ToOwned::to_owned);
    let exist: Vec<bool> = store.read(&keys).await.expect("it answers").iter().map(Option::is_some).collect();
    assert_eq!(exist, [true, false, true], "a batch is applied as a whole or not at all");
    assert!(store.range(Range::first("foreign", 9)).await.is_err());
}

#[tokio::test]
async fn a_counter_that_is_0_again_takes_no_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    let store = connect(&server).await.expect("safe settings");
    let add = |amount, record| Batch { increments: vec![("count".to_owned(), amount)], ..create(record) };
    store.apply(vec![add(3, "a")]).await.expect("applied");
    let keys = server.command(&["DBSIZE"]).expect("it answers");
    assert_eq!(store.apply(vec![add(-3, "b")]).await.expect("applied"), [Verdict::Applied(vec![0])]);
    assert_eq!(
        server.command(&["DBSIZE"]).expect("it answers"),
        keys,
        "one record was added, and one counter was removed"
    );
}
