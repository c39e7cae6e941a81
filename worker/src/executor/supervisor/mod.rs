//! Keeps one executor running, gives it tasks, and ends it when it hangs, does not stop, or overstays its lease.

use std::{pin::pin, time::Duration};

use sortinghat_proto::{
    JobKind, Refusal,
    executor::v1::{CancelTask, HandBackTask, Ready, executor_command::Command, executor_report::Report},
    v1,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use v1::{LogLine, attempt_event::Event, task_outcome::Outcome};

use super::{
    child::{End, Executor, ExecutorProgram, Output},
    log::Tail,
};
use crate::{
    broker::Grant,
    meters::{self, Death, Running},
    out_of_memory,
};

/// How long an executor may take to start; it takes long to load CUDA from a slow disk.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a task may take to stop after it was cancelled, before its executor is killed.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a task that is handed back may take to stop, before its executor is killed. It may have to finish a step of a large network
/// and to upload a checkpoint. This is shorter than a shutdown may take.
const HAND_BACK_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause after an executor that never became ready; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the session tells a slot.
#[derive(Debug)]
pub(crate) enum SlotCommand {
    /// Run this task until `lease_end` at most.
    Start {
        /// The task.
        assignment: Box<v1::Assignment>,
        /// When the executor must be gone, unless the lease is renewed.
        lease_end: Instant,
    },
    /// The lease lasts longer.
    Renew {
        /// As in `Start`.
        lease_end: Instant,
    },
    /// Stop the task for good.
    Cancel,
    /// Stop the task so that another attempt can go on.
    HandBack,
}

/// What a slot tells the session.
#[derive(Debug)]
pub(crate) enum SlotReport {
    /// A new executor can take a task.
    Ready(Ready),
    /// No executor can be started now; the supervisor tries again.
    CannotStart(String),
    /// An idle executor has ended; the supervisor starts another one.
    Lost,
    /// An executor was started anew because the one before may not run the task; this took so long.
    Switched(Duration),
    /// The task is getting on.
    Progress(v1::Progress),
    /// A durable event, not numbered yet.
    Event(Event),
    /// The task ended; the slot is free again if `executor_kept`, else after the next [`Self::Ready`].
    Ended {
        /// How.
        outcome: Outcome,
        /// The executor lives on.
        executor_kept: bool,
    },
}

/// Owns one slot: the loop that keeps an executor in it.
#[derive(Debug)]
pub(crate) struct Supervisor {
    slot: usize,
    program: ExecutorProgram,
    commands: mpsc::UnboundedReceiver<SlotCommand>,
    reports: mpsc::Sender<(usize, SlotReport)>,
    /// Replaces the stall bound of the task's kind.
    stall_bound: Option<Duration>,
    tail: Tail,
    /// A task for the next executor, since the last one may not run it.
    waiting: Option<Waiting>,
}

/// A task that waits for an executor that may run it.
#[derive(Debug)]
struct Waiting {
    assignment: Box<v1::Assignment>,
    lease_end: Instant,
    since: Instant,
}

/// When a running task is ended from outside, and why.
#[derive(Debug)]
struct Bounds {
    lease_end: Instant,
    stall: Duration,
    last_sign_of_life: Instant,
    cancelled_at: Option<Instant>,
    handed_back_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overrun {
    Lease,
    Stall,
    Cancellation,
    HandBack,
}

impl Overrun {
    fn death(self) -> Death {
        match self {
            Self::Lease => Death::Lease,
            Self::Stall => Death::Stall,
            Self::Cancellation | Self::HandBack => Death::Deaf,
        }
    }
}

impl Bounds {
    /// The earliest time at which the task is ended, and why.
    fn next(&self) -> (Instant, Overrun) {
        let stall = (self.last_sign_of_life + self.stall, Overrun::Stall);
        let cancellation = self.cancelled_at.map(|at| (at + CANCEL_TIMEOUT, Overrun::Cancellation));
        let hand_back = self.handed_back_at.map(|at| (at + HAND_BACK_TIMEOUT, Overrun::HandBack));
        [Some((self.lease_end, Overrun::Lease)), Some(stall), cancellation, hand_back]
            .into_iter()
            .flatten()
            .min_by_key(|(end, _)| *end)
            .expect("the lease always has an end")
    }
}

/// Why a started task is over.
enum TaskEnd {
    Finished(Outcome),
    Overrun(Overrun),
    /// It took more of this machine than it may.
    Excess(String),
    Died(Option<String>),
    /// The session is gone.
    Abandoned,
}

impl Supervisor {
    /// The supervisor of slot number `slot`, to be run; reports carry the number.
    pub(crate) fn new(
        slot: usize,
        program: ExecutorProgram,
        commands: mpsc::UnboundedReceiver<SlotCommand>,
        reports: mpsc::Sender<(usize, SlotReport)>,
    ) -> Self {
        Self { slot, program, commands, reports, stall_bound: None, tail: Tail::default(), waiting: None }
    }

    /// The same supervisor with this bound on how long a task may show no progress, if there is one, instead of that of its kind.
    pub(crate) fn with_stall_bound(self, stall_bound: Option<Duration>) -> Self {
        Self { stall_bound, ..self }
    }

    /// Runs until the session drops its end of the channels; then the executor is killed.
    pub(crate) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.reports.is_closed() {
            match self.start().await {
                Ok(executor) => {
                    pause = FIRST_PAUSE;
                    self.serve(executor).await;
                }
                Err(reason) => {
                    tracing::error!(slot = self.slot, reason, "no executor");
                    self.refuse_waiting_tasks().await;
                    self.report(SlotReport::CannotStart(reason)).await;
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Gives back the tasks that were sent to an executor that had just died, because no other executor can run them now. Why not, only
    /// operators are told: it names folders of this machine.
    async fn refuse_waiting_tasks(&mut self) {
        let mut tasks = usize::from(self.waiting.take().is_some());
        while let Ok(command) = self.commands.try_recv() {
            tasks += usize::from(matches!(command, SlotCommand::Start { .. }));
        }
        for _ in 0..tasks {
            let outcome = Outcome::Returned("no executor starts on this worker, so the task was given back".to_owned());
            self.report(SlotReport::Ended { outcome, executor_kept: false }).await;
        }
    }

    /// Starts an executor and waits until it is ready; the error is a reason for people.
    async fn start(&mut self) -> Result<Executor, String> {
        self.tail.clear();
        let mut executor = Executor::spawn(&self.program)
            .map_err(|error| format!("failed to start {}: {error}", self.program.path.display()))?;
        let ready = timeout(START_TIMEOUT, async {
            loop {
                match executor.next().await {
                    Output::Line(line) => self.note_line(line),
                    Output::Report(Report::Ready(ready)) => return Ok(ready),
                    Output::Report(_) => return Err(Some("it spoke before it was ready".to_owned())),
                    Output::Closed(reason) => return Err(reason),
                }
            }
        });
        let reason = match ready.await {
            Ok(Ok(ready)) if ready.version == env!("CARGO_PKG_VERSION") => {
                let Ready { device, device_reason: reason, sandbox, is_fully_confined, .. } = &ready;
                tracing::info!(slot = self.slot, device, reason, sandbox, "executor ready");
                if !is_fully_confined {
                    tracing::warn!(slot = self.slot, sandbox, "the executor is not fully confined");
                }
                meters::executor_started();
                self.report(SlotReport::Ready(ready)).await;
                return Ok(executor);
            }
            Ok(Ok(Ready { version, .. })) => Some(format!(
                "it is version {version:?}, this worker is {}: restart the worker",
                env!("CARGO_PKG_VERSION")
            )),
            Ok(Err(reason)) => reason,
            Err(_) => Some(format!("it was not ready within {} s", START_TIMEOUT.as_secs())),
        };
        let cause = match reason {
            Some(reason) => {
                self.note_end(executor.kill().await);
                reason
            }
            None => self.note_end(executor.end().await),
        };
        Err(self.tail.explain(&format!("the executor did not start: {cause}")))
    }

    /// Gives the executor tasks until it cannot take another.
    async fn serve(&mut self, mut executor: Executor) {
        if let Some(Waiting { assignment, lease_end, since }) = self.waiting.take() {
            meters::executor_switched();
            self.report(SlotReport::Switched(since.elapsed())).await;
            match self.run_task(executor, assignment, lease_end).await {
                Some(kept) => executor = kept,
                None => return,
            }
        }
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(SlotCommand::Start { assignment, lease_end }) => {
                        if Grant::of(&assignment).is_ok_and(|grant| !executor.may_serve(&grant)) {
                            self.waiting = Some(Waiting { assignment, lease_end, since: Instant::now() });
                            self.note_end(executor.kill().await);
                            return;
                        }
                        match self.run_task(executor, assignment, lease_end).await {
                            Some(kept) => executor = kept,
                            None => return,
                        }
                    }
                    // The command is for a task that has ended meanwhile.
                    Some(SlotCommand::Renew { .. } | SlotCommand::Cancel | SlotCommand::HandBack) => {}
                    None => {
                        self.note_end(executor.kill().await);
                        return;
                    }
                },
                output = executor.next() => match output {
                    Output::Line(line) => self.note_line(line),
                    Output::Report(report) => tracing::warn!(slot = self.slot, ?report, "a report without a task"),
                    Output::Closed(_) => {
                        let cause = self.note_end(executor.end().await);
                        tracing::warn!(slot = self.slot, cause, "an idle executor ended and is replaced");
                        meters::executor_died(Death::Died);
                        // Nothing can start in this slot until the next executor is ready.
                        self.report(SlotReport::Lost).await;
                        return;
                    }
                },
            }
        }
    }

    /// Runs one task to its end; returns the executor if it can take another.
    async fn run_task(
        &mut self,
        mut executor: Executor,
        assignment: Box<v1::Assignment>,
        lease_end: Instant,
    ) -> Option<Executor> {
        self.tail.clear();
        let stall = self.stall_bound.unwrap_or_else(|| stall_bound(&assignment));
        let mut bounds =
            Bounds { lease_end, stall, last_sign_of_life: Instant::now(), cancelled_at: None, handed_back_at: None };
        let kernel_kills = out_of_memory::kernel_kills();
        let running = Running::begin(&assignment);
        // An assignment that cannot be read is granted nothing. The executor says what is wrong with it.
        executor.grant(Grant::of(&assignment).ok());
        let end = match executor.send(Command::Start(*assignment)).await {
            Ok(()) => self.watch(&mut executor, &mut bounds).await,
            Err(error) => TaskEnd::Died(Some(error.to_string())),
        };
        let (outcome, kept) = match end {
            TaskEnd::Finished(outcome) => {
                executor.grant(None);
                // The lines are recorded now, because the next task may begin at once and has a history of its own.
                for line in executor.printed().await {
                    self.record_line(line).await;
                }
                (outcome, Some(executor))
            }
            TaskEnd::Abandoned => {
                self.note_end(executor.kill().await);
                return None;
            }
            TaskEnd::Overrun(overrun) => {
                let end = executor.kill().await;
                self.record_end(end).await;
                meters::executor_died(overrun.death());
                (self.outcome_of_overrun(overrun, stall), None)
            }
            TaskEnd::Excess(excess) => {
                let end = executor.kill().await;
                self.record_end(end).await;
                tracing::warn!(slot = self.slot, excess, "the executor is killed and replaced");
                meters::executor_died(Death::Excess);
                (Outcome::Crashed(self.tail.explain(&format!("the executor {excess}, and was killed"))), None)
            }
            TaskEnd::Died(reason) => {
                let end = executor.end().await;
                let by_kernel = end.was_killed && out_of_memory::kernel_kills() > kernel_kills;
                let cause = self.record_end(end).await;
                let cause = reason.map_or(cause.clone(), |reason| format!("{cause}: {reason}"));
                tracing::warn!(slot = self.slot, cause, by_kernel, "the executor died and is replaced");
                let is_out_of_memory = by_kernel || self.tail.says_that_memory_ran_out();
                meters::executor_died(if is_out_of_memory { Death::OutOfMemory } else { Death::Died });
                (self.outcome_of_death(&cause, is_out_of_memory), None)
            }
        };
        running.end(&outcome);
        let executor_kept = kept.is_some();
        self.report(SlotReport::Ended { outcome, executor_kept }).await;
        kept
    }

    /// Follows a running task until it ends or has to be ended.
    async fn watch(&mut self, executor: &mut Executor, bounds: &mut Bounds) -> TaskEnd {
        // The lease may have been renewed while an executor was started for the task.
        while let Ok(command) = self.commands.try_recv() {
            obey(command, executor, bounds).await;
        }
        let mut excess = pin!(executor.excess());
        loop {
            let (end, overrun) = bounds.next();
            tokio::select! {
                biased;
                () = sleep_until(end) => return TaskEnd::Overrun(overrun),
                command = self.commands.recv() => match command {
                    Some(command) => obey(command, executor, bounds).await,
                    None => return TaskEnd::Abandoned,
                },
                excess = &mut excess => return TaskEnd::Excess(excess),
                output = executor.next() => match output {
                    Output::Line(line) => self.record_line(line).await,
                    Output::Report(Report::Progress(progress)) => {
                        bounds.last_sign_of_life = Instant::now();
                        self.report(SlotReport::Progress(progress)).await;
                    }
                    Output::Report(Report::Event(v1::AttemptEvent { event, .. })) => {
                        bounds.last_sign_of_life = Instant::now();
                        if let Some(event) = event {
                            self.report(SlotReport::Event(event)).await;
                        }
                    }
                    Output::Report(Report::Finished(v1::TaskOutcome { outcome: Some(outcome) })) => {
                        return TaskEnd::Finished(outcome);
                    }
                    Output::Report(Report::Finished(_) | Report::Ready(_)) => {
                        return TaskEnd::Died(Some("it sent a message out of turn".to_owned()));
                    }
                    Output::Closed(reason) => return TaskEnd::Died(reason),
                },
            }
        }
    }

    /// How the task of an executor that died has ended. A process that died because memory ran out did not crash.
    fn outcome_of_death(&self, cause: &str, is_out_of_memory: bool) -> Outcome {
        if !is_out_of_memory {
            return Outcome::Crashed(self.tail.explain(&format!("the executor {cause}")));
        }
        let advice = "use a smaller batch size or image size, or a machine with more memory";
        let message = self.tail.explain(&format!("out of memory: the executor {cause}; {advice}"));
        Outcome::Failed(Refusal::new(v1::ErrorCode::OutOfMemory, message).into())
    }

    fn outcome_of_overrun(&self, overrun: Overrun, stall: Duration) -> Outcome {
        tracing::warn!(slot = self.slot, ?overrun, "the executor is killed and replaced");
        match overrun {
            Overrun::Lease => Outcome::Returned(
                "the lease was about to end without having been renewed, so the task was stopped".into(),
            ),
            Overrun::Stall => {
                let cause = format!("the executor showed no progress for {} s and was killed", stall.as_secs());
                Outcome::Crashed(self.tail.explain(&cause))
            }
            Overrun::Cancellation => Outcome::Cancelled(v1::TaskCancelled {}),
            Overrun::HandBack => Outcome::Returned(format!(
                "the task did not stop within {} s of being asked to, so it was killed",
                HAND_BACK_TIMEOUT.as_secs()
            )),
        }
    }

    fn note_line(&mut self, line: String) {
        self.tail.push(self.slot, line);
    }

    /// Keeps the last lines of a process that is gone; returns how it ended.
    fn note_end(&mut self, End { cause, last_lines, .. }: End) -> String {
        last_lines.into_iter().for_each(|line| self.note_line(line));
        cause
    }

    /// As [`Self::note_line`], for a line of a task: it belongs to its history.
    async fn record_line(&mut self, line: String) {
        self.note_line(line.clone());
        self.report(SlotReport::Event(Event::Log(LogLine { text: line }))).await;
    }

    /// As [`Self::note_end`], in the middle of a task: people look for what a process says before it aborts.
    async fn record_end(&mut self, End { cause, last_lines, .. }: End) -> String {
        for line in last_lines {
            self.record_line(line).await;
        }
        cause
    }

    async fn report(&self, report: SlotReport) {
        // If the session is gone, the loop ends at its next command.
        let _ = self.reports.send((self.slot, report)).await;
    }
}

/// Carries out what the session says about the running task.
async fn obey(command: SlotCommand, executor: &mut Executor, bounds: &mut Bounds) {
    match command {
        SlotCommand::Renew { lease_end } => bounds.lease_end = lease_end,
        SlotCommand::Cancel => {
            bounds.cancelled_at.get_or_insert_with(Instant::now);
            // If the command cannot be sent, the executor is dead, and the next read finds that out.
            let _ = executor.send(Command::Cancel(CancelTask {})).await;
        }
        SlotCommand::HandBack => {
            bounds.handed_back_at.get_or_insert_with(Instant::now);
            let _ = executor.send(Command::HandBack(HandBackTask {})).await;
        }
        SlotCommand::Start { .. } => unreachable!("the session starts tasks in free slots only"),
    }
}

/// How long a task of this kind may show no progress. A task of a kind that this worker does not know fails at once in the executor.
fn stall_bound(assignment: &v1::Assignment) -> Duration {
    let kind = assignment.spec.as_ref().and_then(v1::JobSpec::job_kind).unwrap_or(JobKind::Ingest);
    Duration::from_millis(kind.stall_bound_ms())
}

#[cfg(test)]
mod tests;
