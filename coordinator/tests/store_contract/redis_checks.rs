//! The checks of a Redis at the start, and their messages.

use std::time::Duration;

use sortinghat_coordinator::store::{RedisServer, RedisStore, Store, StoreError, Verdict};
use tokio::time::Instant;

use crate::{connect, create, options};

/// The reason why this server is refused.
async fn refusal(server: &RedisServer) -> String {
    let error = connect(server).await.map(drop).expect_err("it must be refused");
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn settings_that_lose_jobs_are_refused_with_the_name_and_the_right_value() {
    let cases: [(&[&str], &str); 5] = [
        (&["--appendonly", "no"], "set `appendonly yes`"),
        (&["--appendfsync", "everysec"], "set `appendfsync always`"),
        (&["--no-appendfsync-on-rewrite", "yes"], "set `no-appendfsync-on-rewrite no`"),
        (&["--maxmemory-policy", "allkeys-lru"], "set `maxmemory-policy noeviction`"),
        (&["--rename-command", "CONFIG", ""], "allow this user CONFIG GET"),
    ];
    for (settings, advice) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let server = RedisServer::start_with(folder.path(), settings);
        let reason = refusal(&server).await;
        assert!(reason.contains(advice) && reason.contains("--allow-data-loss"), "{settings:?}: {reason}");
        let mut overridden = options(&server.url());
        overridden.allow_data_loss = true;
        let store = RedisStore::open(overridden).await.expect("the checks are turned off");
        assert_eq!(store.apply(vec![create("a")]).await.expect("applied"), [Verdict::Applied(vec![])]);
    }
}

#[tokio::test]
async fn a_redis_that_requires_a_password_accepts_the_configured_one_and_later_the_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    // The password is set after the start, as `RedisServer` sends its PING without one.
    let server = RedisServer::start(folder.path());
    server.command(&["CONFIG", "SET", "requirepass", "hunter2"]).expect("it answers");
    let mut with_password = options(&server.url());
    std::fs::write(&password, "hunter2\n").expect("writable");
    with_password.password_file = Some(password.clone());
    assert!(!format!("{with_password:?}").contains("hunter2"));
    let store = RedisStore::open(with_password).await.expect("the password is right");
    store.apply(vec![create("a")]).await.expect("applied");

    std::fs::write(&password, "hunter3\n").expect("writable");
    // One connection sends both commands.
    server.command(&["AUTH", "hunter2\r\nCONFIG", "SET", "requirepass", "hunter3"]).expect("it answers");
    server.command(&["AUTH", "hunter3\r\nCLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).expect("it answers");
    let begun = Instant::now();
    while store.apply(vec![create("b")]).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the new password is never used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_replica_and_a_promoted_replica_are_refused() {
    let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let primary = RedisServer::start(first.path());
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(second.path(), &["--replicaof", "127.0.0.1", &port]);
    let linked = |replica: &RedisServer| {
        replica.command(&["INFO", "replication"]).is_ok_and(|info| info.contains("master_link_status:up"))
    };
    let start = Instant::now();
    while !linked(&replica) {
        assert!(start.elapsed() < Duration::from_secs(60), "the replica never synchronises");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refusal(&replica).await.contains("is a replica"));
    replica.command(&["REPLICAOF", "NO", "ONE"]).expect("it answers");
    assert!(refusal(&replica).await.contains("was promoted"));
    let mut overridden = options(&replica.url());
    overridden.allow_data_loss = true;
    RedisStore::open(overridden).await.expect("the checks are turned off");
}

#[tokio::test]
async fn a_layout_of_another_version_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start(folder.path());
    server.command(&["SET", "{sortinghat}:format", "2"]).expect("it answers");
    assert!(refusal(&server).await.contains("layout 2"));
}
