//! One change of a task and its job: it collects what the rules answer, and turns it into one batch.

use metrics::Counter;
use sortinghat_proto::{
    VersionedName,
    time::UnixMs,
    v1::{self, job_event},
};

use super::{
    commit::{Holding, Prepared},
    history,
    ledger::{Ledger, Written},
    loaded::{Loaded, LoadedShard},
    place::place,
    shards,
};
use crate::{
    engine::{
        error::EngineError,
        records::{self, ArtifactRecord, AttemptEvents, JobRecord, LastVersionRecord, TaskRecord, keys},
    },
    queue::{Division, Event, Output, Phase, Rejection, Rules, State, Task, check_step, transition},
    store::{Batch, Expectation},
};

/// The next free version of a name, for the artifact that an attempt may commit.
#[derive(Debug, Clone)]
pub(crate) struct Reservation {
    pub(crate) name: VersionedName,
    /// The check on the record of the newest version.
    pub(crate) expected: Expectation,
}

/// A task and its job with events that are not committed yet.
pub(crate) struct Change<'a> {
    before: &'a Loaded,
    now: UnixMs,
    ledger: Ledger<'a>,
    /// Present if the task is a shard. Any other task changes with its job's record.
    shard: Option<ChangedShard<'a>>,
    /// To be set before the end of an attempt that may commit an artifact.
    pub(crate) reservation: Option<Reservation>,
    /// To be set before the end of an attempt that has counted the items of a large job.
    pub(crate) division: Option<Division>,
    batch: Batch,
    counters: Vec<Counter>,
}

/// A changed shard, and its events, which settling will append to the job's history.
struct ChangedShard<'a> {
    before: &'a LoadedShard,
    task: Box<TaskRecord>,
    waiting: Vec<job_event::Event>,
}

impl<'a> Change<'a> {
    /// Begins with the task and the job as they were read.
    pub(crate) fn new(before: &'a Loaded, now: UnixMs) -> Self {
        let shard = before.shard.as_ref();
        let shard = shard.map(|before| ChangedShard { before, task: before.task.value.clone(), waiting: Vec::new() });
        Self {
            before,
            now,
            ledger: Ledger::new(&before.job, now),
            shard,
            reservation: None,
            division: None,
            batch: Batch::default(),
            counters: Vec::new(),
        }
    }

    /// The time of all events of this change.
    pub(crate) fn now(&self) -> UnixMs {
        self.now
    }

    /// The job after the change.
    pub(crate) fn job(&self) -> &JobRecord {
        &self.ledger.job
    }

    /// The task after the change.
    pub(crate) fn task(&self) -> &TaskRecord {
        self.shard.as_ref().map_or(&self.ledger.job.progress.task, |shard| &shard.task)
    }

    /// Mutable access to the task after the change.
    pub(crate) fn task_mut(&mut self) -> &mut TaskRecord {
        self.shard.as_mut().map_or(&mut self.ledger.job.progress.task, |shard| &mut shard.task)
    }

    /// Applies an event to the task by the rules.
    pub(crate) fn happen(&mut self, event: &Event, rules: &Rules) -> Result<(), Rejection> {
        let (after, effects) = transition(&self.task().task, event, self.now, rules)?;
        let record = self.task_mut();
        let before = std::mem::replace(&mut record.task, after);
        if before.last_epoch != record.task.last_epoch {
            record.events = AttemptEvents::default();
        }
        for effect in effects {
            let record = self.task();
            let entry = history::event(effect, &record.task.id, &record.host, self.now);
            self.count(&entry);
            self.record(entry);
        }
        self.discard_checkpoint(&before);
        if self.shard.is_some() { Ok(()) } else { self.move_job(&before) }
    }

    /// Enters the former checkpoint into the index of those to remove, if no attempt goes on from it any more: a newer one has replaced it,
    /// or the task has succeeded.
    fn discard_checkpoint(&mut self, before: &Task) {
        let task = &self.task().task;
        let Some(former) = &before.checkpoint else { return };
        let has_succeeded = matches!(task.state, State::Succeeded { .. }) && !before.state.is_terminal();
        if has_succeeded || task.checkpoint.as_ref() != Some(former) {
            let job = self.job();
            let entry = keys::discarded(&job.tenant, &job.id, &former.digest);
            self.batch.insertions.push((keys::DISCARDED.to_owned(), entry));
            self.batch.topics.push(keys::DISCARDED.into());
        }
    }

    /// Appends an event to the job's history. The event of a shard waits until settling appends it.
    pub(crate) fn record(&mut self, event: job_event::Event) {
        match &mut self.shard {
            Some(shard) => shard.waiting.push(event),
            None => self.ledger.record(event),
        }
    }

    /// Replaces the inputs of the job that wait for `parent` by the output of `parent`.
    pub(crate) fn take_over(&mut self, parent: &JobRecord) {
        let job = &mut self.ledger.job;
        records::hand_over([&mut job.request.dataset, &mut job.request.model], parent);
    }

    /// Adds a check to the batch: the change applies only if this record, which it only reads, is as expected.
    pub(crate) fn require(&mut self, key: String, expected: Expectation) {
        self.batch.checks.push((key, expected));
    }

    /// Adds the removal of an index entry to the batch.
    pub(crate) fn remove(&mut self, index: String, entry: String) {
        self.batch.removals.push((index, entry));
    }

    fn count(&mut self, event: &job_event::Event) {
        let kind = self.job().kind.as_str();
        match event {
            job_event::Event::AttemptStarted(_) => {
                self.counters.push(metrics::counter!("sortinghat_attempts_started_total", "kind" => kind));
            }
            job_event::Event::AttemptEnded(attempt) => {
                let outcome = attempt.outcome().as_str_name();
                let counter =
                    metrics::counter!("sortinghat_attempts_ended_total", "kind" => kind, "outcome" => outcome);
                self.counters.push(counter);
            }
            job_event::Event::StateChanged(_)
            | job_event::Event::EpochFinished(_)
            | job_event::Event::Notice(_)
            | job_event::Event::Log(_) => {}
        }
    }

    /// Derives the state of the job from its task. Not for shards, whose job is changed by settling.
    fn move_job(&mut self, task_before: &Task) -> Result<(), Rejection> {
        let job = &mut self.ledger.job;
        let (was, task) = (job.state(), &job.progress.task.task);
        job.progress.cancel_requested |= task.cancel_requested;
        job.progress.counts = job.progress.counts.moved(Phase::from(&task_before.state), Phase::from(&task.state));
        if !task_before.state.is_terminal() && task.state.is_terminal() {
            self.take_result()?;
        }
        self.ledger.enter_state(was);
        Ok(())
    }

    fn take_result(&mut self) -> Result<(), Rejection> {
        let job = &mut self.ledger.job;
        match job.progress.task.task.state.clone() {
            State::Succeeded { output: Output::Made { manifest, summary }, .. } => {
                let reserved = self.reservation.take();
                job.progress.output = Some(v1::JobOutput {
                    name: reserved.as_ref().map(|reserved| reserved.name.to_string()).unwrap_or_default(),
                    manifest: Some(manifest.clone().into()),
                    summary: summary.clone(),
                });
                if let Some(Reservation { name, expected }) = reserved {
                    let artifact = ArtifactRecord { name, manifest, job: job.id.clone(), created: self.now, summary };
                    self.commit_artifact(&artifact, expected);
                }
            }
            State::Succeeded { output: Output::Counted { .. }, .. } => {
                // The caller must set the division before it ends an attempt that has counted.
                let division = self.division.take().ok_or(Rejection::WrongState)?;
                shards::begin(&mut self.batch, job, division);
            }
            State::Failed { failure } | State::Cancelled { failure } => job.progress.failure = Some(failure),
            State::Blocked | State::Ready { .. } | State::Leased(_) => {}
        }
        Ok(())
    }

    /// Commits the artifact and its name in the batch that ends the task.
    fn commit_artifact(&mut self, artifact: &ArtifactRecord, expected: Expectation) {
        let (tenant, name) = (&self.before.job.value.tenant, &artifact.name);
        let last_version = keys::last_version(tenant, name.kind, &name.name);
        self.batch.checks.push((last_version.clone(), expected));
        self.batch.writes.push((last_version, records::encode(&LastVersionRecord { version: name.version })));
        let key = keys::artifact(tenant, name);
        self.batch.checks.push((key.clone(), Expectation::Absent));
        self.batch.writes.push((key, records::encode(artifact)));
        self.batch.insertions.push((keys::artifacts(tenant, name.kind), keys::artifact_entry(name)));
    }

    /// Turns the change into a batch, or into `None` if nothing has changed. A step that breaks an invariant is counted and refused, since
    /// a defect must not become durable.
    pub(crate) fn prepare(mut self) -> Result<Option<Prepared>, EngineError> {
        let before = self.before;
        let is_shard_unchanged = self.shard.as_ref().is_none_or(|shard| shard.task == shard.before.task.value);
        if self.ledger.is_unchanged() && is_shard_unchanged && self.batch.removals.is_empty() {
            return Ok(None);
        }
        let mut batch = std::mem::take(&mut self.batch);
        let (was, is) = (&before.task().task, &self.task().task);
        if let Err(violation) = check_step(was, is, self.now) {
            metrics::counter!("sortinghat_invariant_violations_total").increment(1);
            tracing::error!(task = %is.id, %violation, "refused a step that breaks an invariant");
            return Err(EngineError::Defect(violation.to_string()));
        }
        place(&mut batch, &before.job.value, was, is, self.now);
        let (mut counters, mut written, mut last_shard) = (self.counters, None, None);
        let after = match self.shard {
            Some(ChangedShard { before: shard, task, waiting }) => {
                last_shard = shards::move_shard(&mut batch, &before.job.value, shard, &task.task);
                let task = shards::write(&mut batch, shard, task, waiting, self.now);
                Holding { job: self.ledger.job, shard: Some(task) }
            }
            None => {
                let Written { job, bytes, counters: counted } = self.ledger.write_to(&mut batch);
                counters.extend(counted);
                written = Some(bytes);
                Holding { job, shard: None }
            }
        };
        Ok(Some(Prepared { batch, after, written, counters, last_shard }))
    }
}
