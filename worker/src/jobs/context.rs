//! What a job has at hand: its task, objects, the device, and ways to tell how it goes.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

use sortinghat_proto::{
    ObjectRef,
    executor::v1::{ExecutorReport, executor_report::Report},
    limits, v1,
};
use v1::attempt_event::Event;

use super::{Artifact, JobError, StopSignal, Task};
use crate::{
    device::Compute,
    objects::{Objects, TenantObjects},
};

/// The shortest time between two progress reports of the same phase.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What every task of an executor shares.
#[derive(Debug)]
pub struct Machine {
    /// The device, its precision for predictions, and the threads.
    pub compute: Compute,
    /// The object store and the cache.
    pub objects: Objects,
    /// Where installed pretrained weights lie: `<backbone>.safetensors`.
    pub weights_dir: PathBuf,
    /// Where files from the hub are kept.
    pub hub_dir: PathBuf,
    /// The time between two checkpoints of a training; each epoch ends with one as well.
    pub checkpoint_interval: Duration,
}

/// What a job has at hand. Shared freely between threads of the job.
#[derive(Debug)]
pub struct JobContext {
    task: Task,
    machine: Arc<Machine>,
    objects: TenantObjects,
    stop: Arc<StopSignal>,
    reports: Sender<ExecutorReport>,
    last_progress: Mutex<Option<(&'static str, Instant)>>,
}

impl JobContext {
    /// A context for `task`. Reports go to `reports`; a receiver that is gone is ignored, as the executor ends then anyway.
    pub fn new(task: Task, machine: Arc<Machine>, reports: Sender<ExecutorReport>, stop: Arc<StopSignal>) -> Self {
        let objects = machine.objects.of_tenant(task.tenant.clone());
        Self { task, machine, objects, stop, reports, last_progress: Mutex::new(None) }
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

    /// Returns with an error once the task should stop, cancelled or handed back. Ask at every step: a task that does not stop
    /// in time is killed.
    ///
    /// # Errors
    /// [`JobError::Cancelled`] or [`JobError::HandedBack`].
    pub fn check_cancelled(&self) -> Result<(), JobError> {
        self.stop.check()
    }

    /// Says how far the job has come, which also shows that it is alive: `done` of `total` (0 when unknown) in `unit`
    /// ("photos", "batches", "bytes"), in `phase`, one word ("decode", "train", "predict"). Call it as often as is natural; most
    /// calls within 100 ms of another are dropped.
    pub fn progress(&self, phase: &'static str, done: u64, total: u64, unit: &'static str) {
        let now = Instant::now();
        {
            let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
            let too_soon =
                last.is_some_and(|(before, at)| before == phase && now.duration_since(at) < PROGRESS_INTERVAL);
            if too_soon && done != total {
                return;
            }
            *last = Some((phase, now));
        }
        self.report(Report::Progress(v1::Progress { phase: phase.into(), done, total, unit: unit.into() }));
    }

    /// Records a row of the training table. Durable: a watcher misses none.
    pub fn epoch_finished(&self, metrics: v1::EpochMetrics) {
        self.event(Event::EpochFinished(metrics));
    }

    /// Records something good to know, one sentence.
    pub fn inform(&self, message: impl Into<String>) {
        self.notice(v1::NoticeLevel::Info, message.into());
    }

    /// Records something that is probably not what was wanted, one sentence.
    pub fn warn(&self, message: impl Into<String>) {
        self.notice(v1::NoticeLevel::Warning, message.into());
    }

    /// Records a checkpoint, whose object is stored already, from which a later attempt can go on.
    pub fn checkpoint(&self, object: ObjectRef) {
        self.event(Event::Checkpoint(object.into()));
    }

    fn notice(&self, level: v1::NoticeLevel, mut message: String) {
        message.truncate(message.floor_char_boundary(limits::MAX_TEXT_BYTES));
        self.event(Event::Notice(v1::Notice { level: level.into(), message }));
    }

    /// The worker numbers events: it adds lines of the log to the same sequence.
    fn event(&self, event: Event) {
        self.report(Report::Event(v1::AttemptEvent { sequence: 0, event: Some(event) }));
    }

    fn report(&self, report: Report) {
        // Without a receiver the executor is about to end.
        let _ = self.reports.send(ExecutorReport { report: Some(report) });
    }
}
