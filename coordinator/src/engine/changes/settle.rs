//! Settling: it carries the results of shards over to their divided job. The events of shards get a sequence in the job's history, counters
//! become the state of the job, shards are created and stopped, and the job goes on to its finish once the last shard has ended.
//!
//! Any coordinator may settle any job at any time. Settling takes small steps. Each step is one batch, which applies only if no other step
//! came between. A step that its cause did not take at once is taken by a sweep.

use std::{ops::Range, sync::Arc, time::Duration};

use sortinghat_proto::{
    JobId, TaskId,
    limits::{MAX_SHOWN_ATTEMPTS, MAX_TEXT_BYTES},
    time::UnixMs,
    v1,
};

use super::{adoption::Adopted, change::Change, ledger::Ledger, loaded::TaskStore, place::open_queue, shards};
use crate::{
    engine::{
        context::Context,
        error::EngineError,
        records::{
            self, EventRecord, Failures, JobRecord, Records, ShardStage, ShardTally, ShardsRecord, TaskRecord,
            Versioned, keys,
        },
    },
    queue::{Event, Phase, Task},
    store::{self, Batch, Expectation, Listener, MAX_BATCH_BYTES},
};

/// How many jobs one round settles.
const JOBS_PER_ROUND: usize = 256;
/// How many steps a job may take in one round.
const STEPS_PER_JOB: usize = 64;
/// How many events one step appends to the history.
const EVENTS_PER_STEP: usize = 16;
/// The size of the longest event or attempt: a message, a field and a host, each byte of which is stored in less than two.
const MAX_EVENT_BYTES: usize = 3 * 2 * MAX_TEXT_BYTES;
// The batch of a step fits into the limit of the store, with the attempts that the job shows and some room for the rest.
const _: () = assert!((EVENTS_PER_STEP + MAX_SHOWN_ATTEMPTS) * MAX_EVENT_BYTES <= MAX_BATCH_BYTES / 16 * 15);
/// How many shards one step creates or tells to stop.
const SHARDS_PER_STEP: u32 = 256;

/// Settles divided jobs.
pub(crate) struct Settling {
    pub(super) context: Arc<Context>,
    pub(super) records: Records,
    pub(super) tasks: Arc<TaskStore>,
}

/// What a divided job is like at the beginning of a step.
struct Unsettled {
    job: Versioned<JobRecord>,
    shards_record: Versioned<ShardsRecord>,
    tally: ShardTally,
    /// The unsettled entry of the job itself exists: shards must be created or stopped.
    is_marked: bool,
    /// The next events to append, with their entries in the index of unsettled changes.
    events: Vec<(String, Versioned<EventRecord>)>,
    /// There are no other events.
    are_all: bool,
}

impl Settling {
    /// Settles the unsettled jobs, each for a bounded number of steps. Returns how many steps were taken.
    pub(crate) async fn settle_all(&self) -> Result<usize, EngineError> {
        let (mut steps, mut from, mut failures) = (0, String::new(), Failures::default());
        for _ in 0..JOBS_PER_ROUND {
            let next = self.records.store.range(store::Range::first(keys::UNSETTLED, 1).from(from)).await?;
            let Some(job) = next.first().and_then(|entry| keys::job_of_unsettled(entry)) else { break };
            steps += failures.pass(self.settle(&job).await)?;
            from = keys::after_unsettled(&job);
        }
        failures.or(steps)
    }

    /// Settles jobs whenever there is a hint of something new, and returns when settling fails. The future may be dropped at any moment.
    pub(crate) async fn settle_when_hinted(&self, hints: &mut Listener) {
        loop {
            hints.heard().await;
            if self.settle_all().await.is_err() {
                // The next sweep fails too, and logs the error.
                return;
            }
        }
    }

    /// Settles a job for a short while only, since the caller waits for another answer. A sweep does the rest.
    pub(super) async fn settle_briefly(&self, job: &JobId) {
        let moment = Duration::from_millis(self.context.rules.lease_ttl_ms / 10);
        if let Ok(Err(error)) = tokio::time::timeout(moment, self.settle(job)).await {
            tracing::warn!(%job, %error, "a job cannot be settled now; a sweep will settle it");
        }
    }

    /// Settles a job until nothing is left to do, or another coordinator is settling it. Returns how many steps were taken.
    pub(super) async fn settle(&self, job: &JobId) -> Result<usize, EngineError> {
        for steps in 0..STEPS_PER_JOB {
            let Some(unsettled) = self.unsettled(job).await? else { return Ok(steps) };
            if !self.settle_step(&unsettled).await? {
                return Ok(steps);
            }
        }
        Ok(STEPS_PER_JOB)
    }

    /// Orders the shards of a job to stop, after which the job ends. `false` if another change came between.
    pub(crate) async fn stop_shards(
        &self,
        job: &Versioned<JobRecord>,
        stop: records::Stop,
    ) -> Result<bool, EngineError> {
        let id = &job.value.id;
        let Some(shards_record) = self.records.read::<ShardsRecord>(keys::shards(id)).await? else { return Ok(false) };
        let now = self.records.store.now().await?;
        let mut ledger = Ledger::new(job, now);
        ledger.job.progress.cancel_requested = true;
        let mut batch = Batch::default();
        if shards_record.value.stop.is_none() {
            shards::stop(&mut batch, id, &shards_record, stop);
        }
        if ledger.is_unchanged() && batch.writes.is_empty() {
            return Ok(true);
        }
        ledger.write_to(&mut batch);
        let applied = self.records.apply_one(batch).await?;
        if applied {
            self.settle_briefly(id).await;
        }
        Ok(applied)
    }

    /// Reads a divided job for one step. `None` if the job does not exist, is not divided, or its shards have all ended.
    async fn unsettled(&self, id: &JobId) -> Result<Option<Unsettled>, EngineError> {
        let Some(job) = self.records.read::<JobRecord>(keys::job(id)).await? else { return Ok(None) };
        let Some(shards_record) = self.records.read::<ShardsRecord>(keys::shards(id)).await? else { return Ok(None) };
        if job.value.open_shards().is_none() {
            return Ok(None);
        }
        // The counters must be read before the events: then the event of every counted shard is among the events.
        let tally = self.tally(id).await?;
        let entries = store::Range::first(keys::UNSETTLED, EVENTS_PER_STEP + 1);
        let entries = entries.from(keys::unsettled(id)).until(keys::after_unsettled(id));
        let mut entries = self.records.store.range(entries).await?;
        let is_marked = entries.first().is_some_and(|first| *first == keys::unsettled(id));
        let are_all = entries.len() <= EVENTS_PER_STEP;
        entries.drain(..usize::from(is_marked));
        let event_keys: Vec<String> = entries.iter().map(|entry| keys::waiting_event(entry)).collect();
        let records = self.records.read_all::<EventRecord>(&event_keys).await?;
        // If an event is gone, another step has appended it meanwhile. Then the batch of this step does not apply.
        let events = entries.into_iter().zip(records).filter_map(|(entry, record)| Some((entry, record?))).collect();
        Ok(Some(Unsettled { job, shards_record, tally, is_marked, events, are_all }))
    }

    async fn tally(&self, job: &JobId) -> Result<ShardTally, EngineError> {
        let phases = [Phase::Leased, Phase::Succeeded, Phase::Failed, Phase::Cancelled];
        let mut keys: Vec<String> = phases.iter().map(|phase| keys::shards_in(job, *phase)).collect();
        keys.push(keys::items_done(job));
        let counts = self.records.store.counters(&keys).await?;
        let shards = |place: usize| u32::try_from(counts[place]).unwrap_or_default();
        Ok(ShardTally {
            running: shards(0),
            succeeded: shards(1),
            failed: shards(2),
            cancelled: shards(3),
            items: u64::try_from(counts[4]).unwrap_or_default(),
        })
    }

    /// Takes one step. `false` if there was nothing to do, or another change came between.
    async fn settle_step(&self, unsettled: &Unsettled) -> Result<bool, EngineError> {
        let now = self.records.store.now().await?;
        let mut batch = Batch::default();
        let mut ledger = Ledger::new(&unsettled.job, now);
        unsettled.enter_events(&mut ledger, &mut batch);
        let was = ledger.job.state();
        let told = self.tell_next(unsettled, now).await?;
        let adopted = self.adoptable(&unsettled.job.value, unsettled.next_shards()).await?;
        if let Some(adopted) = &adopted {
            batch.checks.push(adopted.check.clone());
            ledger.record(adopted.notice());
        }
        unsettled.advance(&mut ledger.job, &mut batch, told, &adopted);
        ledger.enter_state(was);
        if ledger.is_unchanged() {
            return Ok(false);
        }
        let key = keys::shards(&unsettled.job.value.id);
        batch.checks.push((key, Expectation::Version(unsettled.shards_record.version)));
        let counters = ledger.write_to(&mut batch).counters;
        let applied = self.records.apply_one(batch).await?;
        if applied {
            counters.iter().for_each(|counter| counter.increment(1));
        }
        Ok(applied)
    }

    /// Tells the next shards of a job to stop, if the job is being stopped. Returns how many shards were told.
    async fn tell_next(&self, unsettled: &Unsettled, now: UnixMs) -> Result<u32, EngineError> {
        let Some(stage) = unsettled.stage().filter(|_| unsettled.shards_record.value.stop.is_some()) else {
            return Ok(0);
        };
        let next = stage.told..stage.created.min(stage.told + SHARDS_PER_STEP);
        let ids: Vec<TaskId> = next.clone().map(|shard| unsettled.task(stage.division.shard_index(shard))).collect();
        let mut changes = Vec::with_capacity(ids.len());
        for loaded in &self.tasks.load(&ids).await? {
            let mut change = Change::new(loaded, now);
            // The rules accept this event in every state.
            change.happen(&Event::Cancel, &self.context.rules)?;
            changes.extend(change.prepare()?);
        }
        let (applied, _) = self.tasks.apply_all(changes).await?;
        // If a shard has changed meanwhile, all shards of this step are told again. That does not change those that were told already.
        Ok(if applied.iter().any(Option::is_none) { 0 } else { next.end - next.start })
    }
}

impl Unsettled {
    fn stage(&self) -> Option<&ShardStage> {
        self.job.value.open_shards()
    }

    /// The shards that this step creates, by their number.
    fn next_shards(&self) -> Range<u32> {
        let Some(stage) = self.stage().filter(|_| self.shards_record.value.stop.is_none()) else { return 0..0 };
        stage.created..stage.division.shards().min(stage.created + SHARDS_PER_STEP)
    }

    fn task(&self, index: u32) -> TaskId {
        TaskId::new(self.job.value.id.clone(), index)
    }

    /// Appends the shards' events to the job's history.
    fn enter_events(&self, ledger: &mut Ledger<'_>, batch: &mut Batch) {
        for (entry, event) in &self.events {
            let key = keys::waiting_event(entry);
            batch.checks.push((key.clone(), Expectation::Version(event.version)));
            batch.deletes.push(key);
            batch.removals.push((keys::UNSETTLED.to_owned(), entry.clone()));
            let v1::JobEvent { time_unix_ms, event, .. } = event.value.0.clone();
            if let Some(event) = event {
                ledger.record_at(time_unix_ms, event);
            }
        }
    }

    /// Does what follows from the counts: it creates more shards, or the finish, or ends the job.
    fn advance(&self, job: &mut JobRecord, batch: &mut Batch, told: u32, adopted: &Option<Adopted>) {
        let id = job.id.clone();
        let Some(stage) = &mut job.progress.shards else { return };
        stage.tally = self.tally;
        stage.told += told;
        let shards = stage.division.shards();
        let is_stopping = self.shards_record.value.stop.is_some();
        let has_ended = self.are_all && self.tally.ended() >= stage.created;
        let (next, mut ended) = (self.next_shards(), self.tally.ended());
        if !next.is_empty() {
            stage.created = next.end;
            let task = |shard| Adopted::task(adopted, shard, self.task(stage.division.shard_index(shard)));
            let tasks: Vec<Task> = next.map(task).collect();
            let (done, ready): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(|task| task.state.is_terminal());
            ended += done.len() as u32;
            shards::count_adopted(batch, job, &done);
            if !ready.is_empty() {
                make_ready(batch, job, &ready);
            }
            for shard in done.into_iter().chain(ready) {
                let key = keys::shard(&shard.id);
                batch.checks.push((key.clone(), Expectation::Absent));
                batch.writes.push((key, records::encode(&TaskRecord::new(shard))));
            }
        } else if has_ended {
            stage.over = true;
            match &self.shards_record.value.stop {
                Some(stop) => {
                    job.progress.failure = Some(stop.0.clone());
                    job.progress.counts = job.progress.counts.and_one(stop.phase());
                }
                None => {
                    let finish = Task::new(self.task(stage.division.finish_index()), false);
                    job.progress.counts = job.progress.counts.and_one(Phase::Ready);
                    make_ready(batch, job, std::slice::from_ref(&finish));
                    job.progress.task = TaskRecord::new(finish);
                }
            }
        }
        // If every shard was taken over, no end of a shard will settle the job.
        let is_waiting = |stage: &ShardStage| !is_stopping && stage.created == shards && ended < shards;
        let is_done = job.progress.shards.as_ref().is_none_or(|stage| stage.over || is_waiting(stage));
        if self.is_marked && is_done {
            batch.removals.push((keys::UNSETTLED.to_owned(), keys::unsettled(&id)));
        }
    }
}

/// Puts new tasks of a divided job into their ready queue.
fn make_ready(batch: &mut Batch, job: &JobRecord, tasks: &[Task]) {
    let rank = job.rank();
    batch.increments.push((keys::tasks_in(Phase::Ready), tasks.len() as i64));
    open_queue(batch, &rank.queue);
    batch.insertions.extend(tasks.iter().flat_map(|task| keys::placement(task, &rank)));
}
