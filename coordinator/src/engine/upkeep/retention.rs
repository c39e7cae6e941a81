//! Retention: jobs that ended long ago, or that were deleted, are forgotten. One batch removes the job itself. Its remaining records, which may be many, are
//! removed after that, some at a time.

use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use sortinghat_proto::{JobId, TaskId, time::UnixMs};

use super::Upkeep;
use crate::{
    engine::{
        error::EngineError,
        records::{self, AcceptedRecord, Failures, JobRecord, RemainsRecord, ShardsRecord, Versioned, keys},
    },
    store::{Batch, Expectation, Range, Verdict},
};

/// How many jobs one round looks at.
const JOBS_PER_ROUND: usize = 64;
/// For how many forgotten jobs one round removes remaining records.
const REMAINS_PER_ROUND: usize = 16;
/// How many records one batch removes.
const RECORDS_PER_BATCH: usize = 500;

/// Where the next round reads on in an index of ended jobs. Jobs that must still be kept would otherwise hide those behind them.
#[derive(Debug, Default)]
pub(crate) struct NextLook(Mutex<String>);

impl NextLook {
    fn get(&self) -> String {
        self.0.lock().clone()
    }

    fn set(&self, from: String) {
        *self.0.lock() = from;
    }
}

impl Upkeep {
    /// Forgets jobs whose retention is over, and returns how many were forgotten. A job is kept until all of its children were told of its
    /// end. Each round reads on where the round before has stopped, and after the last job begins again with the oldest.
    pub(super) async fn forget_jobs(&self, now: UnixMs) -> Result<usize, EngineError> {
        let usual = UnixMs(now.0.saturating_sub(self.context.settings.retention_ms));
        let mut due = self.next_due(keys::ENDED_JOBS, usual, &self.next_look).await?;
        due.extend(self.next_due(keys::EXPIRING_JOBS, now, &self.next_expiry).await?);
        if due.is_empty() {
            return Ok(0);
        }
        let mut failures = Failures::default();
        let jobs = self.records.readable_jobs(due.into_iter(), &mut failures).await?;
        let forgotten = self.forget_these(&jobs, now, &mut failures).await?;
        failures.or(forgotten)
    }

    /// The next jobs of an index whose time is not after `before`.
    async fn next_due(&self, index: &str, before: UnixMs, next: &NextLook) -> Result<Vec<JobId>, EngineError> {
        let due = Range::first(index, JOBS_PER_ROUND).from(next.get());
        let due = self.records.store.range(due.until(keys::after_time(before))).await?;
        let is_last = due.len() < JOBS_PER_ROUND;
        next.set(due.last().filter(|_| !is_last).map(|last| keys::after_entry(last)).unwrap_or_default());
        Ok(due.iter().filter_map(|entry| keys::job_of_entry(entry)).collect())
    }

    /// Forgets those of these jobs that are needed no longer, and returns how many were forgotten.
    pub(super) async fn forget_these(
        &self,
        jobs: &[Versioned<JobRecord>],
        now: UnixMs,
        failures: &mut Failures,
    ) -> Result<usize, EngineError> {
        let batches: Vec<_> = jobs.iter().map(|job| self.forget_batch(job, now)).collect();
        let batches: Vec<_> = stream::iter(batches).buffered(JOBS_PER_ROUND).collect().await;
        let batches = batches.into_iter().map(|batch| failures.pass(batch)).collect::<Result<Vec<_>, EngineError>>()?;
        let verdicts = self.records.store.apply(batches.into_iter().flatten().collect()).await?;
        if verdicts.iter().any(|verdict| !matches!(verdict, Verdict::Applied(_))) {
            jobs.iter().for_each(|job| self.collection.invalidate(&job.value.tenant));
        }
        let forgotten = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Applied(_))).count();
        metrics::counter!("sortinghat_jobs_forgotten_total").increment(forgotten as u64);
        Ok(forgotten)
    }

    /// The batch that forgets a job, its idempotency key and its shards record, and notes the remaining records. `None` while the job is
    /// still needed: until its children were told, and during a pass of the collection. The batch does not apply if a new job has just
    /// named this job as a parent.
    async fn forget_batch(&self, job: &Versioned<JobRecord>, now: UnixMs) -> Result<Option<Batch>, EngineError> {
        let (version, job) = (job.version, &job.value);
        let untold = Range::first(keys::children(&job.id), 1);
        if job.links.has_children && !self.records.store.range(untold).await?.is_empty() {
            return Ok(None);
        }
        let Some(fence) = self.collection.fence_forgetting(&job.tenant, now).await? else { return Ok(None) };
        let key = keys::job(&job.id);
        let mut batch = Batch {
            checks: vec![(key.clone(), Expectation::Version(version)), fence],
            deletes: vec![key],
            removals: keys::job_entries(job),
            increments: vec![(keys::jobs_in(&job.tenant, job.state()), -1)],
            ..Batch::default()
        };
        batch.removals.push((keys::jobs(&job.tenant), job.id.to_string()));
        batch.removals.extend(keys::label_entries(job));
        batch.removals.push((keys::ENDED_PARENTS.to_owned(), job.id.to_string()));
        // A job that ended before its parents is still in their lists. After this batch it cannot be told anything any more.
        batch.removals.extend(job.links.parents.iter().map(|parent| (keys::children(parent), job.id.to_string())));
        self.forget_key(job, &mut batch).await?;
        self.forget_shards(job, &mut batch).await?;
        let left = RemainsRecord::of(job);
        if !left.is_nothing() {
            let remains = keys::remains(&job.id);
            batch.checks.push((remains.clone(), Expectation::Absent));
            batch.writes.push((remains, records::encode(&left)));
            batch.insertions.push((keys::REMAINS.to_owned(), job.id.to_string()));
        }
        Ok(Some(batch))
    }

    pub(super) async fn forget_key(&self, job: &JobRecord, batch: &mut Batch) -> Result<(), EngineError> {
        if job.request.idempotency_key.is_empty() {
            return Ok(());
        }
        let key = keys::idempotency(&job.tenant, &job.request.idempotency_key);
        let accepted = self.records.read::<AcceptedRecord>(key.clone()).await?;
        if let Some(accepted) = accepted.filter(|accepted| accepted.value.job == job.id) {
            batch.checks.push((key.clone(), Expectation::Version(accepted.version)));
            batch.deletes.push(key);
        }
        Ok(())
    }

    /// Removes the shards record and resets the counters of shards. The counters do not change any more, since the job and all of its
    /// shards have ended.
    async fn forget_shards(&self, job: &JobRecord, batch: &mut Batch) -> Result<(), EngineError> {
        let key = keys::shards(&job.id);
        let Some(shards_record) = self.records.read::<ShardsRecord>(key.clone()).await? else { return Ok(()) };
        batch.checks.push((key.clone(), Expectation::Version(shards_record.version)));
        batch.deletes.push(key);
        let counters = keys::shard_counters(&job.id);
        let counts = self.records.store.counters(&counters).await?;
        batch.increments.extend(counters.into_iter().zip(counts).map(|(counter, count)| (counter, -count)));
        Ok(())
    }

    /// Removes a part of the remaining records of forgotten jobs. Returns how many records were removed.
    pub(super) async fn remove_remains(&self) -> Result<usize, EngineError> {
        let jobs = self.records.store.range(Range::first(keys::REMAINS, REMAINS_PER_ROUND)).await?;
        let mut removed = 0;
        for job in jobs.iter().filter_map(|job| job.parse().ok()) {
            removed += self.remove_next(&job).await?;
        }
        Ok(removed)
    }

    /// Removes as many remaining records of a forgotten job as one batch may remove, and notes what is left after that.
    async fn remove_next(&self, job: &JobId) -> Result<usize, EngineError> {
        let key = keys::remains(job);
        let Some(left) = self.records.read::<RemainsRecord>(key.clone()).await? else { return Ok(0) };
        let (next, rest) = left.value.split(job);
        let mut batch = Batch { checks: vec![(key.clone(), Expectation::Version(left.version))], ..Batch::default() };
        for (key, record) in next.iter().zip(self.records.store.read(&next).await?) {
            if let Some(record) = record {
                batch.checks.push((key.clone(), Expectation::Version(record.version)));
                batch.deletes.push(key.clone());
            }
        }
        let removed = batch.deletes.len();
        match rest {
            Some(rest) => batch.writes.push((key, records::encode(&rest))),
            None => {
                batch.deletes.push(key);
                batch.removals.push((keys::REMAINS.to_owned(), job.to_string()));
            }
        }
        Ok(if self.records.apply_one(batch).await? { removed } else { 0 })
    }
}

impl RemainsRecord {
    /// The records that a job may have in addition to its own.
    fn of(job: &JobRecord) -> Self {
        Self { shards: job.shard_indexes(), history: 1..job.last_paged_event() + 1 }
    }

    fn is_nothing(&self) -> bool {
        self.shards.is_empty() && self.history.is_empty()
    }

    /// The keys of the next remaining records of a job, and what remains after these; `None` if nothing does.
    fn split(&self, job: &JobId) -> (Vec<String>, Option<Self>) {
        let mut rest = self.clone();
        let shards = rest.shards.by_ref().map(|index| keys::shard(&TaskId::new(job.clone(), index)));
        let mut next: Vec<String> = shards.take(RECORDS_PER_BATCH).collect();
        let pages = rest.history.by_ref().map(|last| keys::history(job, last));
        next.extend(pages.take(RECORDS_PER_BATCH - next.len()));
        let is_all = rest.is_nothing();
        (next, (!is_all).then_some(rest))
    }
}
