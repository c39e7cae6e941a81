//! One change of a task and its job: the rules' answer turned into one batch.

use metrics::Counter;
use sortinghat_proto::{
    Refusal, VersionedName,
    time::UnixMs,
    v1::{self, ErrorCode, JobState, job_event},
};

use super::{
    history,
    keys::{self, QueueName},
    load::Loaded,
    records::{self, ArtifactRecord, AttemptEvents, EventRecord, JobRecord, LastVersionRecord, TaskRecord},
};
use crate::{
    queue::{Event, Phase, Rejection, Rules, State, check_step, transition},
    store::{Batch, Expectation},
};

/// A version of a name that nobody has yet, for the artifact that a task may make.
#[derive(Debug, Clone)]
pub(super) struct Reservation {
    pub(super) name: VersionedName,
    /// Of the record of the last version.
    pub(super) expected: Expectation,
}

/// Events that have happened to a task since it was read, not applied yet.
pub(super) struct Change<'a> {
    before: &'a Loaded,
    now: UnixMs,
    pub(super) job: JobRecord,
    pub(super) task: TaskRecord,
    history: Vec<v1::JobEvent>,
    /// Set before an attempt that may commit is ended.
    pub(super) reservation: Option<Reservation>,
    /// Set before a claim: the worker's host.
    pub(super) host: String,
    batch: Batch,
    counters: Vec<Counter>,
}

/// A change that can be applied, and what is counted once it was.
pub(super) struct Prepared {
    pub(super) batch: Batch,
    counters: Vec<Counter>,
}

impl Prepared {
    /// The batch is known to be applied.
    pub(super) fn count(&self) {
        self.counters.iter().for_each(|counter| counter.increment(1));
    }
}

impl<'a> Change<'a> {
    /// No change yet.
    pub(super) fn new(before: &'a Loaded, now: UnixMs) -> Self {
        Self {
            before,
            now,
            job: before.job.value.clone(),
            task: before.task.value.clone(),
            history: Vec::new(),
            reservation: None,
            host: String::new(),
            batch: Batch::default(),
            counters: Vec::new(),
        }
    }

    /// The time at which all of it happens.
    pub(super) fn now(&self) -> UnixMs {
        self.now
    }

    /// Lets an event happen, by the rules.
    pub(super) fn happen(&mut self, event: &Event, rules: &Rules) -> Result<(), Rejection> {
        let (after, effects) = transition(&self.task.task, event, self.now, rules)?;
        let before = std::mem::replace(&mut self.task.task, after);
        self.job.cancel_requested |= self.task.task.cancel_requested;
        for effect in effects {
            let entry = history::record(&mut self.job, effect, &self.host, self.now);
            self.count(&entry);
            self.record(entry);
        }
        if before.last_epoch != self.task.task.last_epoch {
            self.task.events = AttemptEvents::default();
        }
        let state_before = self.job.state();
        self.job.counts = self.job.counts.moved((&before.state).into(), (&self.task.task.state).into());
        if !before.state.is_terminal() && self.task.task.state.is_terminal() {
            self.take_result();
        }
        if self.job.state() != state_before {
            self.enter_state();
        }
        Ok(())
    }

    /// Appends an event to the job's history.
    pub(super) fn record(&mut self, event: job_event::Event) {
        self.job.last_event += 1;
        self.history.push(v1::JobEvent {
            sequence: self.job.last_event,
            time_unix_ms: self.now.to_wire(),
            event: Some(event),
        });
    }

    /// Removes an index entry in the same batch.
    pub(super) fn remove(&mut self, index: String, entry: String) {
        self.batch.removals.push((index, entry));
    }

    fn count(&mut self, event: &job_event::Event) {
        let kind = self.job.kind.as_str();
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

    fn take_result(&mut self) {
        match &self.task.task.state {
            State::Succeeded { output, .. } => {
                self.job.output = Some(v1::JobOutput {
                    name: self.reservation.as_ref().map(|reserved| reserved.name.to_string()).unwrap_or_default(),
                    manifest: Some(output.manifest.clone().into()),
                    summary: output.summary.clone(),
                });
                let artifact = self.reservation.take().map(|reserved| {
                    let artifact = ArtifactRecord {
                        name: reserved.name,
                        manifest: output.manifest.clone(),
                        job: self.job.id.clone(),
                        created: self.now,
                        summary: output.summary.clone(),
                    };
                    (artifact, reserved.expected)
                });
                if let Some((artifact, expected)) = artifact {
                    self.commit_artifact(&artifact, expected);
                }
            }
            State::Failed { failure } | State::Cancelled { failure } => self.job.failure = Some(failure.clone()),
            State::Blocked | State::Ready { .. } | State::Leased(_) => {}
        }
    }

    /// Gives the artifact its name, in the batch that ends the task.
    fn commit_artifact(&mut self, artifact: &ArtifactRecord, expected: Expectation) {
        let (tenant, name) = (&self.job.tenant, &artifact.name);
        let last_version = keys::last_version(tenant, name.kind, &name.name);
        self.batch.checks.push((last_version.clone(), expected));
        self.batch.writes.push((last_version, records::encode(&LastVersionRecord { version: name.version })));
        let key = keys::artifact(tenant, name);
        self.batch.checks.push((key.clone(), Expectation::Absent));
        self.batch.writes.push((key, records::encode(artifact)));
        self.batch.insertions.push((keys::artifacts(tenant, name.kind), keys::artifact_entry(name)));
    }

    fn enter_state(&mut self) {
        let state = self.job.state();
        let ended = self.job.has_ended();
        let (failure, output) = match state {
            JobState::Failed | JobState::Cancelled => (self.job.failure.clone(), None),
            JobState::Succeeded => (None, self.job.output.clone()),
            JobState::Unspecified | JobState::Blocked | JobState::Queued | JobState::Running => (None, None),
        };
        self.record(job_event::Event::StateChanged(v1::StateChanged { state: state.into(), failure, output }));
        if ended {
            self.job.finished = Some(self.now);
            if self.job.has_children {
                self.batch.insertions.push((keys::ENDED_PARENTS.to_owned(), self.job.id.to_string()));
            }
            let kind = self.job.kind.as_str();
            let counter =
                metrics::counter!("sortinghat_jobs_ended_total", "kind" => kind, "state" => state.as_str_name());
            self.counters.push(counter);
        }
    }

    /// What is to be applied, or `None` if nothing has changed. A step that breaks an invariant is counted and refused: a defect must not
    /// become durable.
    pub(super) fn prepare(self) -> Result<Option<Prepared>, Refusal> {
        let before = self.before;
        let unchanged = self.job == before.job.value && self.task == before.task.value;
        if unchanged && self.batch.removals.is_empty() {
            return Ok(None);
        }
        if let Err(violation) = check_step(&before.task.value.task, &self.task.task, self.now) {
            metrics::counter!("sortinghat_invariant_violations_total").increment(1);
            tracing::error!(task = %self.task.task.id, %violation, "refused a step that breaks an invariant");
            return Err(Refusal::new(ErrorCode::Internal, violation.to_string()));
        }
        let mut batch = self.batch;
        let (job_key, task_key) = (keys::job(&self.job.id), keys::task(&self.task.task.id));
        batch.checks.push((task_key.clone(), Expectation::Version(before.task.version)));
        batch.writes.push((task_key, records::encode(&self.task)));
        batch.checks.push((job_key.clone(), Expectation::Version(before.job.version)));
        if self.job != before.job.value {
            batch.topics.push(job_key.as_str().into());
            batch.writes.push((job_key, records::encode(&self.job)));
        }
        for event in self.history {
            let key = keys::event(&self.job.id, event.sequence);
            batch.checks.push((key.clone(), Expectation::Absent));
            batch.writes.push((key, records::encode(&EventRecord(event))));
        }
        place(&mut batch, before, &self.task, &self.job, self.now);
        Ok(Some(Prepared { batch, counters: self.counters }))
    }
}

/// Moves the task's index entries, counts it where it now is, and hints whoever waits for that.
fn place(batch: &mut Batch, before: &Loaded, task: &TaskRecord, job: &JobRecord, now: UnixMs) {
    let (was, is) = (&before.task.value.task, &task.task);
    let rank = job.rank();
    let (old, new) = (keys::placement(was, &rank), keys::placement(is, &rank));
    batch.removals.extend(old.iter().filter(|entry| !new.contains(entry)).cloned());
    batch.insertions.extend(new.into_iter().filter(|entry| !old.contains(entry)));
    if !was.is_claimable() && is.is_claimable() {
        open_queue(batch, &rank.queue);
    }
    let (from, to) = (Phase::from(&was.state), Phase::from(&is.state));
    if from != to {
        batch.increments.push((keys::tasks_in(from), -1));
        batch.increments.push((keys::tasks_in(to), 1));
        let leased = i64::from(to == Phase::Leased) - i64::from(from == Phase::Leased);
        if leased != 0 {
            batch.increments.push((keys::leased_of(&job.tenant), leased));
        }
    }
    let asked_to_stop = is.cancel_requested && !was.cancel_requested;
    let asked_to_give_way = is.lease().is_some_and(|lease| lease.preempted == Some(now));
    if let Some(lease) = was.lease()
        && (asked_to_stop || asked_to_give_way || from != to)
    {
        batch.topics.push(keys::worker_topic(&lease.token.worker).as_str().into());
    }
}

/// Makes a queue known to claims, in the batch that puts a task into it.
pub(super) fn open_queue(batch: &mut Batch, queue: &QueueName) {
    batch.insertions.push((keys::OPEN_QUEUES.to_owned(), queue.to_string()));
    batch.topics.push(keys::READY.into());
}
