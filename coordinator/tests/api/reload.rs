//! Tokens that change while the coordinator serves.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::StreamExt as _;
use nix::sys::signal::{Signal, raise};
use sortinghat_coordinator::config::Settings;
use sortinghat_proto::v1::{ListJobsRequest, WatchJobRequest};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::harness::{ByHand, Client, Coordinator, page, token};

/// A change is noticed within this time.
const NOTICED: Duration = Duration::from_secs(10);

/// A tokens file in a folder that is mounted like a secret: the file is a link into a folder, which is a link that is replaced at once.
struct Mounted {
    folder: TempDir,
    versions: usize,
}

impl Mounted {
    fn new(tokens: &str) -> Self {
        let mut mounted = Self { folder: tempfile::tempdir().expect("a temporary folder"), versions: 0 };
        mounted.replace(tokens);
        symlink("..data/tokens.toml", mounted.path()).expect("writable");
        mounted
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    fn replace(&mut self, tokens: &str) {
        self.versions += 1;
        let (folder, version) = (self.folder.path(), format!("version-{}", self.versions));
        fs::create_dir(folder.join(&version)).expect("writable");
        let file = folder.join(&version).join("tokens.toml");
        fs::write(&file, tokens).expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        symlink(&version, folder.join("..next")).expect("writable");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("writable");
    }
}

async fn coordinator(tokens: &Path) -> Coordinator {
    let credentials = Some(tokens.to_owned());
    let metrics_listen = "127.0.0.1:0".parse().ok();
    Coordinator::start_with(Settings { credentials, metrics_listen, ..Settings::default() }).await
}

async fn call(client: &mut Client) -> Result<(), Status> {
    client.jobs.list_jobs(ListJobsRequest::default()).await.map(drop)
}

/// Waits until a call by this client ends with this code.
async fn until(client: &mut Client, code: Code) {
    let begun = Instant::now();
    while call(client).await.map_or_else(|status| status.code(), |()| Code::Ok) != code {
        assert!(begun.elapsed() < NOTICED, "the change is never noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn user(name: &str) -> String {
    token(name, "role = 'user'\ntenant = 'a'")
}

#[tokio::test]
async fn a_swapped_folder_of_tokens_is_noticed_and_ends_what_a_removed_token_has_open() {
    let mut tokens = Mounted::new(&(user("alice") + &token("worker", "role = 'worker'\ntenants = ['a']")));
    let coordinator = coordinator(&tokens.path()).await;
    let mut alice = coordinator.client_with("alice").await;
    let mut bob = coordinator.client_with("bob").await;
    let mut worker = ByHand::new(coordinator.client_with("worker").await);
    worker.synchronize(vec![], 0, 0).await.expect("its token is valid");
    let held = tokio::spawn(async move { worker.synchronize(vec![], 0, u32::MAX).await });
    let job_id = alice.submit_ingest("stamps").await;
    let watch = alice.jobs.watch_job(WatchJobRequest { job_id, after_sequence: 0 }).await.expect("its own");
    let mut watch = watch.into_inner();
    watch.next().await.expect("the first event").expect("an event");
    assert_eq!(call(&mut bob).await.expect_err("not known yet").code(), Code::Unauthenticated);

    tokens.replace(&user("bob"));
    until(&mut bob, Code::Ok).await;
    let ended = async {
        loop {
            match watch.next().await.expect("the watch ends with a status") {
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    };
    let ended = tokio::time::timeout(NOTICED, ended).await.expect("the watch ends");
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    let held = tokio::time::timeout(NOTICED, held).await.expect("the poll ends").expect("no panic");
    assert_eq!(held.expect_err("its token is gone").code(), Code::Unauthenticated);
    assert_eq!(call(&mut alice).await.expect_err("removed").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_watch_ends_when_its_token_expires_and_goes_on_when_only_others_change() {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let expiry = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(now + 4));
    let alice = user("alice") + &format!("expires = '{expiry}'\n");
    let mut tokens = Mounted::new(&alice);
    let coordinator = coordinator(&tokens.path()).await;
    let mut client = coordinator.client_with("alice").await;
    let job_id = client.submit_ingest("stamps").await;
    let watch = client.jobs.watch_job(WatchJobRequest { job_id, after_sequence: 0 }).await.expect("its own");
    tokens.replace(&(alice + &user("bob")));
    until(&mut coordinator.client_with("bob").await, Code::Ok).await;
    assert!(
        call(&mut client).await.is_ok() || SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() >= now + 4
    );
    let updates: Vec<Result<_, Status>> =
        tokio::time::timeout(NOTICED, watch.into_inner().collect()).await.expect("the watch ends");
    let ended = updates.into_iter().find_map(Result::err).expect("with a status");
    assert!(ended.message().contains("expired"), "{ended}");
}

#[tokio::test]
async fn a_bad_file_keeps_the_tokens_of_the_last_good_one_and_raises_a_metric() {
    let mut tokens = Mounted::new(&user("alice"));
    let coordinator = coordinator(&tokens.path()).await;
    let pages = coordinator.metrics_address.expect("metrics are served");
    let mut alice = coordinator.client_with("alice").await;
    for bad in ["nonsense", "tokens = []"] {
        tokens.replace(bad);
        let begun = Instant::now();
        while !page(pages, "/metrics").await.contains(r#"sortinghat_stale_files{files="tokens"} 1"#) {
            call(&mut alice).await.expect("the last good file is in use");
            assert!(begun.elapsed() < NOTICED, "the metric is never raised");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokens.replace(&user("alice"));
        while !page(pages, "/metrics").await.contains(r#"sortinghat_stale_files{files="tokens"} 0"#) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_swaps_under_load_fail_no_call() {
    let version = |number: usize| user("alice") + &user(&format!("guest-{number}"));
    let mut tokens = Mounted::new(&version(0));
    let coordinator = coordinator(&tokens.path()).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..4 {
        let (mut alice, over) = (coordinator.client_with("alice").await, over.clone());
        callers.push(tokio::spawn(async move {
            let mut calls = 0;
            while !over.load(Ordering::Relaxed) {
                call(&mut alice).await.expect("its token is in every version");
                calls += 1;
            }
            calls
        }));
    }
    for number in 1..=100 {
        tokens.replace(&version(number));
        raise(Signal::SIGHUP).expect("a signal can be sent to ourselves");
        let mut guest = coordinator.client_with(&format!("guest-{number}")).await;
        until(&mut guest, Code::Ok).await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.expect("no call has failed") > 0);
    }
}

#[tokio::test]
async fn connections_of_a_stolen_token_leave_their_seats_to_the_new_token_of_the_same_identity() {
    let alice = |secret: &str| {
        token(secret, "role = 'user'\ntenant = 'a'").replace(&format!("id = '{secret}'"), "id = 'alice'")
    };
    let mut tokens = Mounted::new(&alice("stolen"));
    let settings =
        Settings { credentials: Some(tokens.path()), max_open_per_identity: "1".parse().ok(), ..Settings::default() };
    let coordinator = Coordinator::start_with(settings).await;
    let mut thief = coordinator.client_with("stolen").await;
    call(&mut thief).await.expect("its token is valid");
    let refused = call(&mut coordinator.client_with("stolen").await).await.expect_err("there is one connection");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    tokens.replace(&alice("new"));
    until(&mut coordinator.client_with("new").await, Code::Ok).await;
    assert_eq!(call(&mut thief).await.expect_err("it was replaced").code(), Code::Unauthenticated);
}
