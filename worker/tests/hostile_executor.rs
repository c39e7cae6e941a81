//! A real worker whose executor is in the hands of an attacker (`examples/hostile_executor.rs`). What it tries is refused or ended, the
//! worker lives on, and the next task is served. Without the sandbox the same attacks succeed, which shows that they are attacks.
#![allow(clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

#[allow(dead_code, reason = "shared with the other tests of processes, which use the rest")]
mod process;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use process::{Worker, coordinator::Coordinator, photos::short_ingest, worker_command};
use sortinghat_proto::{
    ObjectRef, Tenant,
    v1::{self, SynchronizeRequest, task_outcome::Outcome},
};
use tempfile::TempDir;

/// A lease that even a starved machine renews in time.
const LEASE: Duration = Duration::from_secs(15);
/// Words that only the worker may know: its credentials, by the name of their variable.
const CANARIES: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "canary-key-id"),
    ("AWS_SECRET_ACCESS_KEY", "canary-secret-key"),
    ("SORTINGHAT_TOKEN", "canary-token"),
    ("HF_TOKEN", "canary-hub-token"),
];

struct Setup {
    folder: TempDir,
    coordinator: Coordinator,
    worker: Worker,
    tasks: u64,
}

impl Setup {
    /// A worker with these flags, whose executor is hostile.
    async fn hostile(flags: &[&str]) -> Self {
        let program = hostile_executor();
        Self::start(&[&["--executor-program", program.to_str().unwrap()], flags].concat()).await
    }

    /// A worker with secrets in its environment.
    async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut coordinator = Coordinator::start(LEASE).await;
        let mut command = worker_command(folder.path());
        command.args(["--device", "cpu", "--coordinator", &coordinator.url]).args(flags).envs(CANARIES);
        let worker = Worker::run(command);
        coordinator.hear_free_slot().await;
        Self { folder, coordinator, worker, tasks: 0 }
    }

    /// Has an attack tried by a task of the local tenant; returns how the task ended.
    async fn outcome(&mut self, attack: &str) -> Outcome {
        self.tasks += 1;
        let task = short_ingest(self.folder.path(), self.tasks);
        self.coordinator.offer(v1::Assignment { dataset_name: attack.to_owned(), ..task });
        let outcome = self.coordinator.hear_outcome().await;
        self.coordinator.hear_free_slot().await;
        outcome
    }

    /// What the attacker says of an attack that does not end its process.
    async fn attack(&mut self, attack: &str) -> String {
        match self.outcome(attack).await {
            Outcome::Succeeded(v1::TaskSucceeded { summary, .. }) => summary,
            other => panic!("{attack}: {other:?}"),
        }
    }

    async fn refused(&mut self, attack: &str) -> String {
        let said = self.attack(attack).await;
        assert!(said.starts_with("refused: "), "{attack}: {said}");
        said
    }
}

/// The example that stands beside this test's own binary.
fn hostile_executor() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(Path::parent).unwrap().join("examples/hostile_executor")
}

/// A file that the worker's user can read, and no executor.
fn secret_file(folder: &Path) -> String {
    let file = folder.join("credentials");
    fs::write(&file, "canary").unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn a_process_in_the_hands_of_an_attacker_reaches_nothing_and_its_worker_lives_on() {
    let mut setup = Setup::hostile(&[]).await;
    let secret = secret_file(setup.folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for attack in [
        "worker-environment",
        "worker-memory-file",
        "worker-memory-call",
        "ptrace",
        "kill",
        "limits",
        "send",
        "unix-socket",
        "exec",
        "replace",
        "fork",
        &format!("connect {address}"),
        &format!("read {secret}"),
        &format!("write {secret}"),
        "read /etc/passwd",
        "read /proc/1/cmdline",
        "hub owner/name",
    ] {
        setup.refused(attack).await;
    }
    for (name, number) in dangerous_calls() {
        let said = setup.refused(&format!("call {number}")).await;
        assert!(said.contains("Operation not permitted"), "{name}: {said}");
    }
    assert!(setup.refused(&format!("call {}", libc::SYS_clone3)).await.contains("not implemented"));
    assert_eq!(setup.attack("own-object").await, "done: 4 bytes of mine", "its own tenant's objects it has");
}

#[tokio::test]
async fn another_tenants_object_is_missing_even_for_who_knows_its_digest() {
    let mut setup = Setup::hostile(&["--sandbox", "off"]).await;
    let object = ObjectRef::of(b"private");
    let other: Tenant = "other".parse().unwrap();
    let place = setup.folder.path().join("objects").join(object.digest.object_key(&other));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(place, "private").unwrap();
    let said = setup.refused(&format!("object {}", serde_json::to_string(&object).unwrap())).await;
    assert!(said.contains("is not in the object store"), "{said}");
}

#[tokio::test]
async fn what_takes_too_much_or_speaks_nonsense_is_ended_and_the_next_task_is_served() {
    let mut setup = Setup::hostile(&["--scratch-bytes", "64MiB", "--stall-bound", "5s"]).await;
    for (attack, why) in [
        ("fill", "may have 64MiB"),
        ("threads", "threads; at most"),
        ("spin", "showed no progress"),
        ("garbage-request", "unreadable request"),
        ("garbage-report", "unreadable message"),
    ] {
        let outcome = setup.outcome(attack).await;
        assert!(matches!(&outcome, Outcome::Crashed(cause) if cause.contains(why)), "{attack}: {outcome:?}");
        assert_eq!(setup.attack("own-object").await, "done: 4 bytes of mine", "after {attack}");
    }
    let left = fs::read_dir(setup.folder.path().join("worker/tmp")).unwrap().count();
    assert_eq!(left, 1, "only the running executor has a folder");
}

#[tokio::test]
async fn without_the_sandbox_the_attacks_succeed_and_operators_are_told() {
    let mut setup = Setup::hostile(&["--sandbox", "off"]).await;
    let secret = secret_file(setup.folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for attack in [
        "worker-memory-file",
        "worker-memory-call",
        "kill",
        "limits",
        "send",
        "unix-socket",
        "exec",
        "fork",
        &format!("connect {address}"),
        &format!("read {secret}"),
        &format!("write {secret}"),
    ] {
        let said = setup.attack(attack).await;
        assert!(said.starts_with("done: "), "{attack}: {said}");
    }
    let stolen = setup.attack("worker-environment").await;
    assert!(stolen.contains("canary-secret-key"), "the worker has keys to steal");
}

#[tokio::test]
async fn no_credential_of_the_worker_is_in_its_executors_environment() {
    let setup = Setup::start(&[]).await;
    let executor = setup.worker.executor().await;
    let environment = fs::read(format!("/proc/{executor}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("TMPDIR="), "it can be read: {environment}");
    for (name, secret) in CANARIES {
        assert!(!environment.contains(name) && !environment.contains(secret), "{name} in {environment}");
    }
    let line = fs::read(format!("/proc/{executor}/cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    assert!(!line.contains("objects") && !line.contains("canary"), "it does not know where objects are: {line}");
}

#[tokio::test]
async fn a_worker_says_how_its_executors_are_confined() {
    for (flags, expected) in [(&[][..], "on"), (&["--sandbox", "off"], "off: photos are decoded")] {
        let folder = tempfile::tempdir().unwrap();
        let mut coordinator = Coordinator::start(LEASE).await;
        let _worker = Worker::start(folder.path(), &coordinator.url, flags);
        let about =
            |request: &SynchronizeRequest| request.description.clone().filter(|about| !about.sandbox.is_empty());
        let about = coordinator.hear("the worker to describe itself", about).await;
        assert!(about.sandbox.starts_with(expected), "{about:?}");
    }
}

/// Calls that an attacker would need next.
fn dangerous_calls() -> [(&'static str, i64); 16] {
    [
        ("socket", libc::SYS_socket),
        ("bpf", libc::SYS_bpf),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("init_module", libc::SYS_init_module),
        ("execveat", libc::SYS_execveat),
        ("chmod", libc::SYS_fchmod),
        ("process_vm_writev", libc::SYS_process_vm_writev),
    ]
}
