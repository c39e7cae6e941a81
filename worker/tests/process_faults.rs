//! A worker and its executor as real processes, hit in the middle of a task.
#![allow(clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

mod process;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use process::{
    Worker,
    coordinator::Coordinator,
    is_alive,
    photos::{dataset, long_finetune, long_ingest, manifest, short_ingest},
    run_to_end, wait_until, worker_command,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use sortinghat_proto::v1::{Assignment, SynchronizeRequest, attempt_event::Event, task_outcome::Outcome};
use tempfile::TempDir;
use tokio::time::Instant;

/// A lease that even a starved machine renews in time.
const LEASE: Duration = Duration::from_secs(15);

struct Setup {
    folder: TempDir,
    coordinator: Coordinator,
    worker: Worker,
}

async fn setup(lease: Duration) -> Setup {
    setup_with(lease, &[]).await
}

/// The worker has further flags.
async fn setup_with(lease: Duration, flags: &[&str]) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::start(lease).await;
    let worker = Worker::start(folder.path(), &coordinator.url, flags);
    coordinator.hear_free_slot().await;
    Setup { folder, coordinator, worker }
}

/// A worker in the middle of an ingest.
async fn busy(lease: Duration) -> Setup {
    busy_with(lease, &[]).await
}

/// The worker has further flags.
async fn busy_with(lease: Duration, flags: &[&str]) -> Setup {
    let mut setup = setup_with(lease, flags).await;
    setup.coordinator.offer(long_ingest(setup.folder.path(), 1));
    setup.coordinator.hear_progress().await;
    setup
}

/// A worker in the middle of a training that keeps no checkpoint unless it is asked to; and the training, to be offered again.
async fn training() -> (Setup, Assignment) {
    let mut setup = setup_with(LEASE, &["--checkpoint-interval", "1h"]).await;
    setup.coordinator.offer(short_ingest(setup.folder.path(), 1));
    let Outcome::Succeeded(ingested) = setup.coordinator.hear_outcome().await else { panic!("the ingest failed") };
    setup.coordinator.hear_free_slot().await;
    let training = long_finetune(&manifest(&ingested), 2);
    setup.coordinator.offer(training.clone());
    let finished = |event: &Event| matches!(event, Event::EpochFinished(_)).then_some(());
    setup.coordinator.hear_event("an epoch", finished).await;
    (setup, training)
}

#[tokio::test]
async fn a_task_runs_and_its_outcome_is_repeated_until_it_is_acknowledged() {
    let Setup { folder, mut coordinator, worker: _worker } = setup(LEASE).await;
    coordinator.acknowledge(false);
    coordinator.offer(short_ingest(folder.path(), 1));
    let Outcome::Succeeded(succeeded) = coordinator.hear_outcome().await else { panic!("the ingest failed") };
    assert_eq!(dataset(folder.path(), &succeeded).classes, ["cats", "dogs"]);
    assert_eq!(coordinator.hear_outcome().await, Outcome::Succeeded(succeeded));
    coordinator.acknowledge(true);
    let request = coordinator.hear_free_slot().await;
    assert_eq!(request.description.unwrap().device, "cpu");
}

#[tokio::test]
async fn a_killed_executor_is_reported_with_its_signal_and_the_next_task_runs_in_a_new_one() {
    let Setup { folder, mut coordinator, worker } = busy(LEASE).await;
    let executor = worker.executor().await;
    kill(executor, Signal::SIGKILL).unwrap();
    let Outcome::Crashed(cause) = coordinator.hear_outcome().await else { panic!("not reported as crashed") };
    assert!(cause.contains("signal 9"), "{cause}");
    coordinator.hear_free_slot().await;
    assert_ne!(worker.executor().await, executor);
    coordinator.offer(short_ingest(folder.path(), 2));
    let outcome = coordinator.hear_outcome().await;
    assert!(matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_cancelled_task_ends_and_its_executor_stays_warm() {
    let Setup { folder: _folder, mut coordinator, worker } = busy(LEASE).await;
    let executor = worker.executor().await;
    coordinator.cancel();
    let outcome = coordinator.hear_outcome().await;
    assert!(matches!(outcome, Outcome::Cancelled(_)), "{outcome:?}");
    coordinator.hear_free_slot().await;
    assert_eq!(worker.executor().await, executor);
}

#[tokio::test]
async fn a_task_whose_lease_another_worker_has_is_stopped_without_a_report() {
    let Setup { folder: _folder, mut coordinator, worker: _worker } = busy(LEASE).await;
    coordinator.take_leases_away();
    let until_free = |request: &SynchronizeRequest| {
        let reported = request.leases.iter().any(|lease| lease.outcome.is_some());
        assert!(!reported, "an outcome that nobody can use: {request:?}");
        (request.free_slots > 0).then_some(())
    };
    coordinator.hear("the slot to be free again", until_free).await;
}

#[tokio::test]
async fn an_executor_whose_lease_cannot_be_renewed_is_killed_and_its_task_given_back() {
    let Setup { folder: _folder, mut coordinator, worker } = busy(Duration::from_secs(3)).await;
    let executor = worker.executor().await;
    coordinator.be_silent(true);
    wait_until("the executor to be fenced", || (!is_alive(executor)).then_some(())).await;
    coordinator.be_silent(false);
    let outcome = coordinator.hear_outcome().await;
    assert!(matches!(&outcome, Outcome::Returned(reason) if reason.contains("lease")), "{outcome:?}");
}

#[tokio::test]
async fn a_terminated_worker_gives_its_task_back_and_exits_with_0() {
    let Setup { folder: _folder, mut coordinator, mut worker } = busy(LEASE).await;
    worker.signal(Signal::SIGTERM);
    let outcome = coordinator.hear_outcome().await;
    assert!(matches!(outcome, Outcome::Returned(_)), "{outcome:?}");
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_idle_worker_that_is_terminated_exits_within_a_second() {
    let Setup { folder: _folder, coordinator: _coordinator, mut worker } = setup(LEASE).await;
    let asked = Instant::now();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit_code().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(1), "it took {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once_whatever_its_task_does() {
    let Setup { folder: _folder, mut coordinator, mut worker } = busy(LEASE).await;
    kill(worker.executor().await, Signal::SIGSTOP).unwrap();
    worker.signal(Signal::SIGTERM);
    coordinator.hear("the worker to drain", |request| request.draining.then_some(())).await;
    let asked = Instant::now();
    worker.signal(Signal::SIGINT);
    assert_eq!(worker.exit_code().await, Some(130));
    assert!(asked.elapsed() < Duration::from_secs(1), "it took {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_preempted_training_keeps_a_checkpoint_makes_way_and_goes_on_from_it_later() {
    let (Setup { folder, mut coordinator, worker }, training) = training().await;
    let executor = worker.executor().await;
    coordinator.preempt(true);
    let (checkpoint, outcome) = coordinator.hear_checkpoint_and_outcome().await;
    coordinator.preempt(false);
    assert!(matches!(&outcome, Outcome::Returned(reason) if reason.contains("more urgent")), "{outcome:?}");
    coordinator.hear_free_slot().await;
    assert_eq!(worker.executor().await, executor, "the executor stays warm");
    coordinator.offer(short_ingest(folder.path(), 3));
    assert!(matches!(coordinator.hear_outcome().await, Outcome::Succeeded(_)), "the urgent task has the slot");
    coordinator.hear_free_slot().await;
    assert!(checkpoint.is_some(), "kept before it made way");
    coordinator.offer(Assignment { epoch: 4, attempt: 2, checkpoint, ..training });
    let resumed = |event: &Event| match event {
        Event::Notice(notice) if notice.message.starts_with("resumed from epoch ") => Some(()),
        _ => None,
    };
    coordinator.hear_event("the training to go on", resumed).await;
}

#[tokio::test]
async fn a_terminated_worker_keeps_a_checkpoint_of_its_training_before_it_gives_it_back() {
    let (Setup { folder: _folder, mut coordinator, mut worker }, _) = training().await;
    worker.signal(Signal::SIGTERM);
    // A service manager signals every process of the service.
    kill(worker.executor().await, Signal::SIGTERM).unwrap();
    let (checkpoint, outcome) = coordinator.hear_checkpoint_and_outcome().await;
    assert!(matches!(&outcome, Outcome::Returned(reason) if reason.contains("shutting down")), "{outcome:?}");
    assert!(checkpoint.is_some(), "kept before it was given back");
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_executor_that_stands_still_is_killed_within_the_stall_bound_and_replaced() {
    let Setup { folder, mut coordinator, worker } = busy_with(LEASE, &["--stall-bound", "3s"]).await;
    let executor = worker.executor().await;
    kill(executor, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    let Outcome::Crashed(cause) = coordinator.hear_outcome().await else { panic!("not reported as crashed") };
    assert!(cause.contains("showed no progress for 3 s"), "{cause}");
    assert!(stopped.elapsed() < Duration::from_secs(6), "it took {:?}", stopped.elapsed());
    assert!(!is_alive(executor));
    coordinator.hear_free_slot().await;
    coordinator.offer(short_ingest(folder.path(), 2));
    assert!(matches!(coordinator.hear_outcome().await, Outcome::Succeeded(_)));
}

#[tokio::test]
async fn a_task_that_does_not_stop_when_it_is_cancelled_is_killed_after_ten_seconds() {
    let Setup { folder: _folder, mut coordinator, worker } = busy(LEASE).await;
    let executor = worker.executor().await;
    kill(executor, Signal::SIGSTOP).unwrap();
    let asked = Instant::now();
    coordinator.cancel();
    let outcome = coordinator.hear_outcome().await;
    assert!(matches!(outcome, Outcome::Cancelled(_)), "{outcome:?}");
    assert!(asked.elapsed() < Duration::from_secs(13), "it took {:?}", asked.elapsed());
    assert!(!is_alive(executor));
}

#[tokio::test]
async fn a_cancelled_training_ends_within_ten_seconds_and_its_executor_stays_warm() {
    let (Setup { folder: _folder, mut coordinator, worker }, _) = training().await;
    let executor = worker.executor().await;
    let asked = Instant::now();
    coordinator.cancel();
    let outcome = coordinator.hear_outcome().await;
    assert!(matches!(outcome, Outcome::Cancelled(_)), "{outcome:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    coordinator.hear_free_slot().await;
    assert_eq!(worker.executor().await, executor);
}

#[tokio::test]
async fn an_executor_does_not_outlive_its_worker() {
    let Setup { folder: _folder, coordinator: _coordinator, worker } = busy(LEASE).await;
    let executor = worker.executor().await;
    worker.signal(Signal::SIGKILL);
    wait_until("the executor to end", || (!is_alive(executor)).then_some(())).await;
}

#[test]
fn a_device_that_cannot_be_used_ends_the_worker_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = worker_command(folder.path());
    command.args(["--device", "cuda:99"]);
    let output = run_to_end(command);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("no cuda:99"), "{message}");
}

/// Starts a process where the kernel lets nobody filter system calls, as in a container whose profile forbids that: what a thread may not
/// do, a process that it starts may not do either.
fn where_filters_are_denied<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    let forbidden = || {
        let filters = u64::from(libc::PR_SET_SECCOMP.unsigned_abs());
        let sets_filter = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, filters).unwrap();
        let by_prctl = SeccompRule::new(vec![sets_filter]).unwrap();
        let rules = [(libc::SYS_seccomp, vec![]), (libc::SYS_prctl, vec![by_prctl])].into();
        let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        start()
    };
    std::thread::spawn(forbidden).join().unwrap()
}

#[tokio::test]
async fn a_worker_without_the_least_of_its_sandbox_does_not_start_unless_it_is_told_to_do_without() {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::start(LEASE).await;
    let mut command = worker_command(folder.path());
    command.args(["--device", "cpu", "--coordinator", &coordinator.url]);
    let output = where_filters_are_denied(|| run_to_end(command));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("the sandbox cannot be set up: failed to filter system calls"), "{message}");
    assert!(message.contains("--sandbox off"), "{message}");

    let mut command = worker_command(folder.path());
    command.args(["--device", "cpu", "--sandbox", "off", "--coordinator", &coordinator.url]);
    let _worker = where_filters_are_denied(|| Worker::run(command));
    let request = coordinator.hear_free_slot().await;
    assert!(request.description.unwrap().sandbox.starts_with("off"), "it says so");
}

#[tokio::test]
async fn a_worker_whose_executor_cannot_start_says_why_within_seconds_and_recovers_by_itself() {
    let Setup { folder, mut coordinator, worker } = setup(LEASE).await;
    // A file where the folder for temporary files should be keeps an executor from starting.
    let temporary = folder.path().join("worker/tmp");
    let executor = worker.executor().await;
    std::fs::rename(&temporary, folder.path().join("worker/elsewhere")).unwrap();
    std::fs::write(&temporary, "").unwrap();
    let killed = Instant::now();
    kill(executor, Signal::SIGKILL).unwrap();
    let unable = |request: &SynchronizeRequest| {
        let health = request.health.clone()?;
        (!health.is_able && health.detail.contains("temporary files")).then_some((health, request.free_slots))
    };
    let (health, free_slots) = coordinator.hear("the worker to say what is wrong", unable).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "it took {:?}", killed.elapsed());
    assert!(free_slots == 0 && health.detail.contains("failed to start"), "{health:?}");
    assert_eq!(health.reason, "its executor does not start");
    std::fs::remove_file(&temporary).unwrap();
    let request = coordinator.hear_free_slot().await;
    assert!(request.health.unwrap().is_able);
}

#[tokio::test]
async fn a_worker_that_cannot_write_into_its_store_says_so_and_asks_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::start(LEASE).await;
    // An object cannot be written where a folder is, not even by root.
    std::fs::create_dir(folder.path().join("objects")).unwrap();
    std::fs::create_dir(folder.path().join("objects/probe-worker")).unwrap();
    std::fs::write(folder.path().join("objects/probe-worker/occupied"), "").unwrap();
    let _worker = Worker::start(folder.path(), &coordinator.url, &[]);
    let unable = |request: &SynchronizeRequest| {
        let health = request.health.clone()?;
        (!health.is_able && !health.detail.is_empty()).then_some((health, request.free_slots))
    };
    let (health, free_slots) = coordinator.hear("the worker to say what is wrong", unable).await;
    assert!(free_slots == 0 && health.detail.contains("Is a directory"), "{health:?}");
    std::fs::remove_dir_all(folder.path().join("objects/probe-worker")).unwrap();
    coordinator.hear_free_slot().await;
}
