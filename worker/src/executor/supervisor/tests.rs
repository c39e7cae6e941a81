//! Tests with real processes: shell scripts that behave as an executor may at its worst. `tests/process_faults.rs` drives the real
//! executor.

use std::{fs, sync::Arc};

use super::*;
use crate::{
    broker::{Broker, BrokerOptions},
    executor::frames,
};
use sortinghat_proto::executor::v1::ExecutorReport;
use tokio::task::JoinHandle;

struct Slot {
    commands: Option<mpsc::UnboundedSender<SlotCommand>>,
    reports: mpsc::Receiver<(usize, SlotReport)>,
    supervisor: JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Slot {
    /// A slot whose executor is `sh` with this script. Standard input is the socket; `$0/ready` holds the message that it is ready.
    fn with(script: &str) -> Self {
        Self::of_version(script, env!("CARGO_PKG_VERSION"))
    }

    fn of_version(script: &str, version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = Ready { version: version.into(), device: "cpu".into(), ..Ready::default() };
        let mut frame = Vec::new();
        frames::write(&mut frame, &ExecutorReport { report: Some(Report::Ready(ready)) }).unwrap();
        fs::write(folder.path().join("ready"), frame).unwrap();
        let arguments = vec!["-c".into(), script.into(), folder.path().into()];
        let temporary_dir = folder.path().join("tmp");
        let broker = Broker::open(&BrokerOptions {
            object_store: sortinghat_objects::ObjectStoreUrl::of_folder(&folder.path().join("objects")).unwrap(),
            tenant_profiles: Vec::new(),
            cache_dir: folder.path().join("cache"),
            cache_bytes: 1 << 20,
            weights_dir: folder.path().join("weights"),
            shows_hub_token: false,
            web: crate::broker::WebOptions::default(),
        });
        let (broker, scratch_bytes) = (Arc::new(broker.unwrap()), 32 << 20);
        let program = ExecutorProgram { path: "/bin/sh".into(), arguments, temporary_dir, scratch_bytes, broker };
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, reports) = mpsc::channel(16);
        let supervisor = tokio::spawn(Supervisor::new(3, program, receiver, sender).run());
        Self { commands: Some(commands), reports, supervisor, folder }
    }

    async fn next(&mut self) -> SlotReport {
        loop {
            let (slot, report) = self.reports.recv().await.expect("the supervisor runs");
            assert_eq!(slot, 3);
            if !matches!(report, SlotReport::Event(Event::Log(_))) {
                return report;
            }
        }
    }

    async fn ready(&mut self) {
        let report = self.next().await;
        assert!(matches!(report, SlotReport::Ready(_)), "{report:?}");
    }

    fn start(&self, lease: Duration) {
        self.start_for("", lease);
    }

    fn start_for(&self, tenant: &str, lease: Duration) {
        let lease_end = Instant::now() + lease;
        let assignment = v1::Assignment { tenant: tenant.to_owned(), ..v1::Assignment::default() };
        let command = SlotCommand::Start { assignment: Box::new(assignment), lease_end };
        self.commands.as_ref().unwrap().send(command).unwrap();
    }

    async fn ended(&mut self) -> (Outcome, bool) {
        match self.next().await {
            SlotReport::Ended { outcome, executor_kept } => (outcome, executor_kept),
            other => panic!("expected the end of the task, got {other:?}"),
        }
    }

    async fn cannot_start(&mut self) -> String {
        match self.next().await {
            SlotReport::CannotStart(reason) => reason,
            other => panic!("expected that it cannot start, got {other:?}"),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_executor_of_another_version_is_refused_with_both_versions() {
    let mut slot = Slot::of_version("cat $0/ready >&0; exec sleep 1000", "0.0.1-other");
    let reason = slot.cannot_start().await;
    assert!(reason.contains("0.0.1-other") && reason.contains(env!("CARGO_PKG_VERSION")), "{reason}");
}

#[tokio::test]
async fn the_last_lines_of_an_executor_that_cannot_start_are_quoted() {
    let mut slot = Slot::with("echo 'no cuda:7: CUDA sees 1 GPUs' >&2; exit 1");
    let reason = slot.cannot_start().await;
    assert!(reason.contains("exited with code 1") && reason.contains("no cuda:7"), "{reason}");
}

#[tokio::test]
async fn an_executor_starts_with_the_settings_of_libtorchs_libraries() {
    let mut slot = Slot::with("echo \"sums $MKL_CBWR, spins $GOMP_SPINCOUNT\" >&2; exit 1");
    let reason = slot.cannot_start().await;
    assert!(reason.contains("sums AUTO, spins 1000"), "{reason}");
}

#[tokio::test]
async fn an_executor_starts_in_the_root_folder_with_temporary_files_in_the_data_folder() {
    let mut slot = Slot::with("echo \"works in $PWD with $TMPDIR\" >&2; exit 1");
    let reason = slot.cannot_start().await;
    let expected = format!("works in / with {}/executor-", slot.folder.path().join("tmp").display());
    assert!(reason.contains(&expected), "{reason}");
    let left = fs::read_dir(slot.folder.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "its folder goes with it");
}

/// A script that is ready and then succeeds in every task: it has the outcome ready, as it says nothing but `Finished`.
const SUCCEEDS: &str = "echo $$ >> $0/pids; cat $0/ready >&0; while head -c 4 > /dev/null; do \
                        dd bs=4096 count=1 2> /dev/null > /dev/null; cat $0/finished >&0; done";

#[tokio::test]
async fn a_task_of_another_tenant_runs_in_a_new_process_and_one_of_the_same_in_the_warm_one() {
    let mut slot = Slot::with(SUCCEEDS);
    let succeeded = v1::TaskOutcome { outcome: Some(Outcome::Succeeded(v1::TaskSucceeded::default())) };
    let mut frame = Vec::new();
    frames::write(&mut frame, &ExecutorReport { report: Some(Report::Finished(succeeded)) }).unwrap();
    fs::write(slot.folder.path().join("finished"), frame).unwrap();
    slot.ready().await;
    for (tenant, processes) in [("lab", 1), ("lab", 1), ("museum", 2), ("museum", 2), ("lab", 3)] {
        let before = fs::read_to_string(slot.folder.path().join("pids")).unwrap().lines().count();
        slot.start_for(tenant, HOUR);
        if before < processes {
            slot.ready().await;
            let report = slot.next().await;
            assert!(matches!(report, SlotReport::Switched(_)), "{report:?}");
        }
        let (outcome, kept) = slot.ended().await;
        assert!(kept && matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
        let pids = fs::read_to_string(slot.folder.path().join("pids")).unwrap();
        assert_eq!(pids.lines().count(), processes, "{tenant}");
    }
}

#[tokio::test]
async fn a_lease_that_was_renewed_while_the_process_was_replaced_lasts() {
    let mut slot = Slot::with("mkdir $0/first || sleep 0.5; cat $0/ready >&0; head -c 4 > /dev/null; kill -9 $$");
    slot.ready().await;
    slot.start_for("lab", HOUR);
    slot.ended().await;
    slot.ready().await;
    // The script dies in each task; a process that has served nobody yet is not replaced.
    slot.start_for("museum", Duration::from_millis(200));
    let renewal = SlotCommand::Renew { lease_end: Instant::now() + HOUR };
    slot.commands.as_ref().unwrap().send(renewal).unwrap();
    let (outcome, _) = slot.ended().await;
    assert!(matches!(outcome, Outcome::Crashed(_)), "{outcome:?}");
}

#[tokio::test]
async fn an_executor_that_fills_the_disk_is_killed_within_seconds() {
    let fill = "i=0; while head -c 1048576 /dev/zero > $TMPDIR/$i; do i=$((i+1)); sleep 0.02; done";
    let mut slot = Slot::with(&format!("cat $0/ready >&0; head -c 4 > /dev/null; {fill}"));
    slot.ready().await;
    slot.start(HOUR);
    let (outcome, kept) = slot.ended().await;
    assert!(matches!(&outcome, Outcome::Crashed(cause) if cause.contains("may have 32MiB")), "{outcome:?}");
    assert!(!kept);
    slot.ready().await;
}

#[tokio::test]
async fn no_key_or_token_of_the_worker_is_in_an_executors_environment() {
    // The tests' own environment has some variable that is not allowed; a real worker's is looked at in `tests/hostile_executor.rs`.
    let mut slot = Slot::with("env >&2; exit 1");
    let reason = slot.cannot_start().await;
    for forbidden in ["CARGO_MANIFEST_DIR", "HOME="] {
        assert!(std::env::var_os(forbidden.trim_end_matches('=')).is_none() || !reason.contains(forbidden), "{reason}");
    }
}

#[tokio::test]
async fn a_task_that_no_executor_can_take_is_given_back_and_the_operator_is_told_why() {
    let mut slot = Slot::with("echo 'no cuda:7: CUDA sees 1 GPUs' >&2; exit 1");
    // Sent before anything has failed.
    slot.start(HOUR);
    let (outcome, kept) = slot.ended().await;
    assert!(matches!(&outcome, Outcome::Returned(reason) if reason.starts_with("no executor starts")), "{outcome:?}");
    assert!(!kept);
    let told = slot.cannot_start().await;
    assert!(told.contains("no cuda:7"), "{told}");
}

#[tokio::test]
async fn bytes_that_are_no_message_end_the_executor() {
    let mut slot = Slot::with("printf 'libtorch says hello' >&0; exec sleep 1000");
    let reason = slot.cannot_start().await;
    assert!(reason.contains("unreadable"), "{reason}");
}

#[tokio::test]
async fn a_task_whose_lease_is_not_renewed_is_killed_before_its_end_and_the_executor_replaced() {
    let mut slot = Slot::with("cat $0/ready >&0; echo $$ >> $0/pids; exec sleep 1000");
    slot.ready().await;
    slot.start(Duration::from_millis(50));
    let (outcome, kept) = slot.ended().await;
    assert!(matches!(&outcome, Outcome::Returned(reason) if reason.contains("lease")), "{outcome:?}");
    assert!(!kept);
    let pids = fs::read_to_string(slot.folder.path().join("pids")).unwrap();
    let process = format!("/proc/{}", pids.lines().next().unwrap());
    assert!(!fs::exists(process).unwrap(), "the outcome is reported after the process is gone");
    slot.ready().await;
}

#[tokio::test]
async fn a_renewed_lease_lets_the_task_live_on() {
    let mut slot = Slot::with("cat $0/ready >&0; head -c 4 > /dev/null; sleep 0.6; kill -9 $$");
    slot.ready().await;
    slot.start(Duration::from_millis(300));
    let renewal = SlotCommand::Renew { lease_end: Instant::now() + HOUR };
    slot.commands.as_ref().unwrap().send(renewal).unwrap();
    let (outcome, _) = slot.ended().await;
    assert!(matches!(outcome, Outcome::Crashed(_)), "it outlived its first lease: {outcome:?}");
}

#[tokio::test]
async fn an_executor_that_is_killed_is_reported_with_the_signal_and_its_last_lines_and_replaced() {
    let mut slot = Slot::with("cat $0/ready >&0; head -c 4 > /dev/null; echo 'terminate called' >&2; kill -9 $$");
    slot.ready().await;
    slot.start(HOUR);
    let (outcome, kept) = slot.ended().await;
    let Outcome::Crashed(cause) = outcome else { panic!("{outcome:?}") };
    assert!(cause.contains("signal 9") && cause.contains("terminate called"), "{cause}");
    assert!(!kept);
    slot.ready().await;
}

#[tokio::test]
async fn an_executor_that_aborts_because_memory_ran_out_has_not_crashed() {
    let last_word = "terminate called after throwing an instance of std::bad_alloc";
    let script = format!("cat $0/ready >&0; head -c 4 > /dev/null; echo '{last_word}' >&2; kill -ABRT $$");
    let mut slot = Slot::with(&script);
    slot.ready().await;
    slot.start(HOUR);
    let (outcome, _) = slot.ended().await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.failure_class(), v1::FailureClass::OutOfMemory);
    assert!(failure.message.contains("SIGABRT") && failure.message.contains(last_word), "{}", failure.message);
}

#[tokio::test]
async fn the_last_lines_of_a_process_are_part_of_its_tasks_log() {
    let mut slot = Slot::with("cat $0/ready >&0; head -c 4 > /dev/null; echo 'one' >&2; echo 'two' >&2; kill -9 $$");
    slot.ready().await;
    slot.start(HOUR);
    let mut lines = Vec::new();
    loop {
        match slot.reports.recv().await.expect("the supervisor runs").1 {
            SlotReport::Event(Event::Log(line)) => lines.push(line.text),
            SlotReport::Ended { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lines, ["one", "two"]);
}

#[tokio::test]
async fn a_slot_whose_idle_executor_dies_is_not_offered_until_the_next_one_is_ready() {
    let mut slot = Slot::with("cat $0/ready >&0; if mkdir $0/first; then exit 3; fi; exec sleep 1000");
    slot.ready().await;
    assert!(matches!(slot.next().await, SlotReport::Lost));
    slot.ready().await;
}

#[tokio::test]
async fn without_a_session_the_supervisor_kills_its_executor_and_ends() {
    let mut slot = Slot::with("echo $$ > $0/pid; cat $0/ready >&0; exec sleep 1000");
    slot.ready().await;
    let pid = fs::read_to_string(slot.folder.path().join("pid")).unwrap();
    slot.commands = None;
    slot.reports.close();
    slot.supervisor.await.unwrap();
    assert!(!fs::exists(format!("/proc/{}", pid.trim())).unwrap());
}

#[test]
fn the_earliest_bound_ends_a_task() {
    let now = Instant::now();
    let bounds = |lease, stall, cancelled| {
        let bounds = Bounds {
            lease_end: now + Duration::from_secs(lease),
            stall: Duration::from_secs(stall),
            last_sign_of_life: now,
            cancelled_at: if cancelled { Some(now) } else { None },
            handed_back_at: None,
        };
        bounds.next().1
    };
    assert_eq!(bounds(5, 60, false), Overrun::Lease);
    assert_eq!(bounds(60, 5, false), Overrun::Stall);
    assert_eq!(bounds(60, 60, true), Overrun::Cancellation);
    assert_eq!(bounds(5, 60, true), Overrun::Lease);
}
