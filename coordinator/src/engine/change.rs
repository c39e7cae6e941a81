//! One change of a task and its job: the rules' answer turned into one batch.

use metrics::Counter;
use sortinghat_proto::{
    Refusal, VersionedName,
    time::UnixMs,
    v1::{self, ErrorCode, job_event},
};

use super::{
    history,
    keys::{self, QueueName},
    ledger::Ledger,
    load::Loaded,
    records::{self, ArtifactRecord, AttemptEvents, JobRecord, LastVersionRecord, TaskRecord},
    shards::{self, LastShard},
};
use crate::{
    queue::{Division, Event, Output, Phase, Rejection, Rules, State, check_step, transition},
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
    ledger: Ledger<'a>,
    pub(super) task: TaskRecord,
    /// Events of a shard, which its job will enter.
    waiting: Vec<job_event::Event>,
    /// Set before an attempt that may commit is ended.
    pub(super) reservation: Option<Reservation>,
    /// Set before an attempt is ended that may find its job too large for one task.
    pub(super) division: Option<Division>,
    batch: Batch,
    counters: Vec<Counter>,
}

/// A change that can be applied, and what follows once it was.
pub(super) struct Prepared {
    pub(super) batch: Batch,
    /// What there is once it is applied.
    pub(super) after: Holding,
    counters: Vec<Counter>,
    last_shard: Option<LastShard>,
}

/// A task and its job.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    pub(super) job: JobRecord,
    pub(super) task: TaskRecord,
}

impl Prepared {
    /// The batch is known to be applied, with these counters. Returns what there is now, and the shard that was the last one of
    /// its job, if it was.
    pub(super) fn applied(self, counters: &[i64]) -> (Holding, Option<LastShard>) {
        self.counters.iter().for_each(|counter| counter.increment(1));
        (self.after, self.last_shard.filter(|last| last.is_last(counters)))
    }
}

impl<'a> Change<'a> {
    /// No change yet.
    pub(super) fn new(before: &'a Loaded, now: UnixMs) -> Self {
        Self {
            before,
            now,
            ledger: Ledger::new(&before.job, now),
            task: before.task.value.clone(),
            waiting: Vec::new(),
            reservation: None,
            division: None,
            batch: Batch::default(),
            counters: Vec::new(),
        }
    }

    /// The time at which all of it happens.
    pub(super) fn now(&self) -> UnixMs {
        self.now
    }

    /// The job as it will be.
    pub(super) fn job(&self) -> &JobRecord {
        &self.ledger.job
    }

    fn is_shard(&self) -> bool {
        self.before.shards.is_some()
    }

    /// Lets an event happen, by the rules.
    pub(super) fn happen(&mut self, event: &Event, rules: &Rules) -> Result<(), Rejection> {
        let (after, effects) = transition(&self.task.task, event, self.now, rules)?;
        let before = std::mem::replace(&mut self.task.task, after);
        if before.last_epoch != self.task.task.last_epoch {
            self.task.events = AttemptEvents::default();
        }
        for effect in effects {
            let entry = history::event(effect, &self.task.task.id, &self.task.host, self.now);
            self.count(&entry);
            self.record(entry);
        }
        if !self.is_shard() {
            let (from, to) = (Phase::from(&before.state), Phase::from(&self.task.task.state));
            let has_ended = !before.state.is_terminal() && self.task.task.state.is_terminal();
            self.move_job(from, to, has_ended)?;
        }
        Ok(())
    }

    /// Appends an event to the job's history; a shard leaves it for its job to enter.
    pub(super) fn record(&mut self, event: job_event::Event) {
        if self.is_shard() {
            self.waiting.push(event);
        } else {
            self.ledger.record(event);
        }
    }

    /// Lets the job take over what a parent has made.
    pub(super) fn take_over(&mut self, parent: &JobRecord) {
        let job = &mut self.ledger.job;
        records::hand_over([&mut job.dataset, &mut job.model], parent);
    }

    /// Lets the change be applied only if a record that is merely read is still as it was.
    pub(super) fn require(&mut self, key: String, expected: Expectation) {
        self.batch.checks.push((key, expected));
    }

    /// Removes an index entry in the same batch.
    pub(super) fn remove(&mut self, index: String, entry: String) {
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

    /// Moves the job along with the task that alone decides what becomes of it.
    fn move_job(&mut self, from: Phase, to: Phase, has_ended: bool) -> Result<(), Rejection> {
        let mut job = self.ledger.job.clone();
        job.cancel_requested |= self.task.task.cancel_requested;
        job.counts = job.counts.moved(from, to);
        if has_ended {
            self.take_result(&mut job)?;
        }
        self.ledger.become_job(job);
        Ok(())
    }

    fn take_result(&mut self, job: &mut JobRecord) -> Result<(), Rejection> {
        match self.task.task.state.clone() {
            State::Succeeded { output: Output::Made { manifest, summary }, .. } => {
                let reserved = self.reservation.take();
                job.output = Some(v1::JobOutput {
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
                // Whoever lets an attempt end that has counted says before how the job is divided.
                let division = self.division.take().ok_or(Rejection::WrongState)?;
                shards::begin(&mut self.batch, job, division);
            }
            State::Failed { failure } | State::Cancelled { failure } => job.failure = Some(failure),
            State::Blocked | State::Ready { .. } | State::Leased(_) => {}
        }
        Ok(())
    }

    /// Gives the artifact its name, in the batch that ends the task.
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

    /// What is to be applied, or `None` if nothing has changed. A step that breaks an invariant is counted and refused: a defect must not
    /// become durable.
    pub(super) fn prepare(mut self) -> Result<Option<Prepared>, Refusal> {
        let before = self.before;
        let unchanged = self.ledger.is_unchanged() && self.task == before.task.value;
        if unchanged && self.batch.removals.is_empty() {
            return Ok(None);
        }
        if let Err(violation) = check_step(&before.task.value.task, &self.task.task, self.now) {
            metrics::counter!("sortinghat_invariant_violations_total").increment(1);
            tracing::error!(task = %self.task.task.id, %violation, "refused a step that breaks an invariant");
            return Err(Refusal::new(ErrorCode::Internal, violation.to_string()));
        }
        let mut last_shard = None;
        let (mut batch, mut counters) = (self.batch, self.counters);
        let job = if let Some(go_by) = &before.shards {
            last_shard = shards::move_shard(&mut batch, before, go_by, &self.task.task);
            shards::hand_over(&mut batch, &mut self.task, self.waiting, self.now);
            self.ledger.job
        } else {
            let (job, counted) = self.ledger.write_to(&mut batch);
            counters.extend(counted);
            job
        };
        let task_key = keys::task(&self.task.task.id);
        batch.checks.push((task_key.clone(), Expectation::Version(before.task.version)));
        batch.writes.push((task_key, records::encode(&self.task)));
        place(&mut batch, before, &self.task, self.now);
        Ok(Some(Prepared { batch, after: Holding { job, task: self.task }, counters, last_shard }))
    }
}

/// Moves the task's index entries, counts it where it now is, and hints whoever waits for that.
fn place(batch: &mut Batch, before: &Loaded, task: &TaskRecord, now: UnixMs) {
    let (was, is) = (&before.task.value.task, &task.task);
    let job = &before.job.value;
    let rank = job.rank();
    let (old, new) = (keys::placement(was, &rank), keys::placement(is, &rank));
    batch.removals.extend(old.iter().filter(|entry| !new.contains(entry)).cloned());
    batch.insertions.extend(new.into_iter().filter(|entry| !old.contains(entry)));
    if !was.is_claimable() && is.is_claimable() {
        open_queue(batch, &rank.queue);
    } else if !was.waits() && is.waits() {
        reserve_queue(batch, &rank.queue);
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

/// Counts a queue among those of its tenant, in the batch that puts a task into it which cannot be claimed yet.
pub(super) fn reserve_queue(batch: &mut Batch, queue: &QueueName) {
    if queue.is_bounded() {
        batch.insertions.push((keys::OPEN_QUEUES.to_owned(), queue.to_string()));
    }
}
