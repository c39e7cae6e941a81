//! What a job has at hand: its task, its objects, the device, and ways to report how it goes.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use parking_lot::Mutex;
use sortinghat_proto::{
    ObjectRef,
    executor::v1::{ExecutorReport, executor_report::Report},
    limits, v1,
};
use tokio::time::Instant;
use v1::attempt_event::Event;

use super::{
    assignment::{Artifact, Task},
    error::JobError,
    stop::StopSignal,
};
use crate::{
    device::Compute,
    objects::{Stopped, TenantObjects, Wait, Waiting},
};

/// The shortest time between two progress reports of the same phase.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// The time after which the same progress is reported again. It is far below any stall bound.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// What every task of an executor shares.
#[derive(Debug)]
pub struct Machine {
    /// The device, its precision for predictions, and the threads.
    pub compute: Compute,
    /// The objects of the tenant whose task runs, as the worker serves them.
    pub objects: TenantObjects,
    /// Where temporary files are kept.
    pub temporary_dir: PathBuf,
    /// The time between two checkpoints of a training; each epoch ends with one as well.
    pub checkpoint_interval: Duration,
}

/// What a job has at hand. The threads of the job may share it freely.
#[derive(Debug)]
pub struct JobContext {
    task: Task,
    machine: Arc<Machine>,
    objects: TenantObjects,
    pulse: Pulse,
}

/// The part of a context that threads of the job may own. It tells whether to go on, and it shows that the job is alive.
#[derive(Debug, Clone)]
pub struct Pulse {
    stop: Arc<StopSignal>,
    reports: Sender<ExecutorReport>,
    last: Arc<Mutex<Option<Last>>>,
}

/// The newest progress.
#[derive(Debug)]
struct Last {
    progress: v1::Progress,
    /// When progress was reported last.
    at: Instant,
    /// Whether this progress was not reported, because it came soon after the report before.
    is_withheld: bool,
}

impl JobContext {
    /// A context for `task`. Reports go to `reports`; that the receiver is gone is ignored, because the
    /// executor ends then anyway.
    pub fn new(task: Task, machine: Arc<Machine>, reports: Sender<ExecutorReport>, stop: Arc<StopSignal>) -> Self {
        let pulse = Pulse { stop, reports, last: Arc::default() };
        let objects = machine.objects.for_task(pulse.clone().while_waiting());
        Self { task, machine, objects, pulse }
    }

    /// What to run.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The dataset that the spec names.
    ///
    /// # Errors
    /// [`JobError::Internal`] if the assignment carries none.
    pub fn dataset(&self) -> Result<&Artifact, JobError> {
        self.task.dataset.as_ref().ok_or_else(|| JobError::Internal("the assignment names no dataset".into()))
    }

    /// The model that the spec names.
    ///
    /// # Errors
    /// [`JobError::Internal`] if the assignment carries none.
    pub fn model(&self) -> Result<&Artifact, JobError> {
        self.task.model.as_ref().ok_or_else(|| JobError::Internal("the assignment names no model".into()))
    }

    /// The tenant's objects.
    pub fn objects(&self) -> &TenantObjects {
        &self.objects
    }

    /// The device, threads, and folders of this machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Returns an error once the task should stop, because it was cancelled or is to be handed back. Call this at every step: a task
    /// that does not stop in time is killed.
    ///
    /// # Errors
    /// [`JobError::Cancelled`] or [`JobError::HandedBack`].
    pub fn check_cancelled(&self) -> Result<(), JobError> {
        self.pulse.stop.check()
    }

    /// A pulse for threads that outlive a borrow of this context.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Reports how far the job has come, which also shows that it is alive: `done` of `total` (0 when unknown) in `unit`
    /// ("photos", "batches", "bytes"), in `phase`, one word ("decode", "train", "predict"). Call it as often as is natural; most
    /// calls within 100 ms of another are dropped.
    pub fn progress(&self, phase: &'static str, done: u64, total: u64, unit: &'static str) {
        self.pulse.progress(phase, done, total, unit);
    }

    /// Records a row of the training table. The row is durable, so a watcher misses none.
    pub fn epoch_finished(&self, metrics: v1::EpochMetrics) {
        self.event(Event::EpochFinished(metrics));
    }

    /// Records something that is good to know, in one sentence.
    pub fn inform(&self, message: impl Into<String>) {
        self.notice(v1::NoticeLevel::Info, message.into());
    }

    /// Records something that is probably not what the user wanted, in one sentence.
    pub fn warn(&self, message: impl Into<String>) {
        self.notice(v1::NoticeLevel::Warning, message.into());
    }

    /// Records a checkpoint, whose object is stored already, from which a later attempt can go on.
    pub fn checkpoint(&self, object: ObjectRef) {
        self.event(Event::Checkpoint(object.into()));
    }

    fn notice(&self, level: v1::NoticeLevel, message: String) {
        self.pulse.notice(level, message);
    }

    fn event(&self, event: Event) {
        self.pulse.event(event);
    }
}

impl Pulse {
    /// Shows that the job is alive while its progress stands still, by reporting the same progress again once in a while. Call it as
    /// often as is natural.
    ///
    /// # Errors
    /// As [`JobContext::check_cancelled`].
    pub fn beat(&self) -> Result<(), JobError> {
        self.stop.check()?;
        self.tell_last(|last| last.at.elapsed() >= BEAT_INTERVAL);
        Ok(())
    }

    /// Reports the last progress if it was withheld because it came soon after another, and nothing has come since.
    fn catch_up(&self) {
        self.tell_last(|last| last.is_withheld && last.at.elapsed() >= PROGRESS_INTERVAL);
    }

    fn tell_last(&self, is_due: impl FnOnce(&Last) -> bool) {
        let mut last = self.last.lock();
        if let Some(last) = last.as_mut().filter(|last| is_due(last)) {
            (last.at, last.is_withheld) = (Instant::now(), false);
            self.report(Report::Progress(last.progress.clone()));
        }
    }

    /// What a task does while the object store does not answer. The history says once that the task waits.
    fn while_waiting(self) -> Waiting {
        let is_told = AtomicBool::new(false);
        Waiting::looking(move |wait| {
            let goes_on = match wait {
                // That no answer comes shows nothing: a worker that hangs must not keep the task alive.
                Wait::Answer => {
                    self.catch_up();
                    self.stop.check()
                }
                Wait::Store => {
                    if !is_told.swap(true, Ordering::Relaxed) {
                        let message = "the object store does not answer as it should: the job waits for it and keeps what is done";
                        self.notice(v1::NoticeLevel::Warning, message.to_owned());
                    }
                    self.beat()
                }
            };
            goes_on.map_err(|stopped| match stopped {
                JobError::HandedBack => Stopped::HandedBack,
                _ => Stopped::Cancelled,
            })
        })
    }

    fn notice(&self, level: v1::NoticeLevel, mut message: String) {
        message.truncate(message.floor_char_boundary(limits::MAX_TEXT_BYTES));
        self.event(Event::Notice(v1::Notice { level: level.into(), message }));
    }

    /// The worker numbers the events, because it adds lines of the log to the same sequence.
    fn event(&self, event: Event) {
        self.report(Report::Event(v1::AttemptEvent { sequence: 0, event: Some(event) }));
    }

    fn progress(&self, phase: &'static str, done: u64, total: u64, unit: &'static str) {
        let mut last = self.last.lock();
        let progress = v1::Progress { phase: phase.into(), done, total, unit: unit.into() };
        match last.as_mut() {
            Some(last) if done != total && last.progress.phase == phase && last.at.elapsed() < PROGRESS_INTERVAL => {
                (last.progress, last.is_withheld) = (progress, true);
            }
            _ => {
                *last = Some(Last { progress: progress.clone(), at: Instant::now(), is_withheld: false });
                self.report(Report::Progress(progress));
            }
        }
    }

    fn report(&self, report: Report) {
        // Without a receiver the executor is about to end.
        let _ = self.reports.send(ExecutorReport { report: Some(report) });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pulse() -> (Pulse, mpsc::Receiver<ExecutorReport>) {
        let (reports, told) = mpsc::channel();
        (Pulse { stop: Arc::default(), reports, last: Arc::default() }, told)
    }

    #[test]
    fn progress_that_stands_still_is_reported_again_once_in_a_while() {
        let (pulse, told) = pulse();
        pulse.beat().expect("goes on");
        assert_eq!(told.try_iter().count(), 0, "there is no progress yet");
        pulse.progress("predict", 3, 9, "photos");
        pulse.beat().expect("goes on");
        assert_eq!(told.try_iter().count(), 1, "it was reported just now");
        pulse.last.lock().as_mut().expect("progress was reported").at -= BEAT_INTERVAL;
        pulse.beat().expect("goes on");
        pulse.beat().expect("goes on");
        let again: Vec<_> = told.try_iter().filter_map(|report| report.report).collect();
        assert!(matches!(&again[..], [Report::Progress(progress)] if progress.done == 3), "{again:?}");
    }

    #[test]
    fn progress_that_came_too_soon_to_be_reported_is_reported_when_nothing_follows() {
        let (pulse, told) = pulse();
        pulse.progress("fetch", 1, 9, "photos");
        pulse.progress("fetch", 2, 9, "photos");
        pulse.catch_up();
        assert_eq!(told.try_iter().count(), 1, "the second came too soon");
        pulse.last.lock().as_mut().expect("progress was reported").at -= PROGRESS_INTERVAL;
        pulse.catch_up();
        pulse.catch_up();
        let more: Vec<_> = told.try_iter().filter_map(|report| report.report).collect();
        assert!(matches!(&more[..], [Report::Progress(progress)] if progress.done == 2), "{more:?}");
    }

    #[test]
    fn a_pulse_hears_that_the_job_should_stop() {
        let (pulse, _told) = pulse();
        pulse.stop.cancel();
        assert!(matches!(pulse.beat(), Err(JobError::Cancelled)));
    }
}
