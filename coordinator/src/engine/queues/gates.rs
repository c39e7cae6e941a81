//! The gate of a tenant's queue: whether the queue is paused, and its bulk cancellations. The gate is one record, and the batch of every
//! claim checks the record's version. So no claim that has read an older gate can succeed after a change.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sortinghat_proto::{
    Tenant,
    time::UnixMs,
    v1::{self, JobState},
};

use super::Queues;
use crate::{
    engine::{
        changes::Change,
        context::MAX_TRIES,
        error::EngineError,
        records::{self, Failures, JobFilter, JobRecord, QueueName, Versioned, expectation, keys},
    },
    store::{Batch, Expectation, Range, Record},
};

/// Every state that a job can be in.
const STATES: [JobState; 6] = [
    JobState::Blocked,
    JobState::Queued,
    JobState::Running,
    JobState::Succeeded,
    JobState::Failed,
    JobState::Cancelled,
];
/// How many jobs are read at most to find the oldest one that waits for a worker.
const MAX_LOOKED_AT: usize = 2_000;
/// How many jobs are read at a time.
const READ_AT_A_TIME: usize = 200;

/// The gate of a tenant's queue. The record is absent until the queue is paused or bulk-cancelled for the first time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueRecord {
    /// Since when the queue is paused; `None` if it is not.
    pub(crate) paused: Option<UnixMs>,
    /// The bulk cancellations that have not reached all of their jobs yet.
    pub(crate) cancellations: Vec<BulkCancellation>,
}

/// A bulk cancellation, and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BulkCancellation {
    pub(crate) filter: JobFilter,
    /// Where to read on in the index of the tenant's open jobs.
    pub(crate) cursor: String,
}

/// What a gate says about a job that a worker could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The job may start.
    Open,
    /// The job may not start now.
    Paused,
    /// The job must not start at all: a bulk cancellation matches it, but has not reached it yet.
    Cancelled,
}

impl QueueRecord {
    /// Stands for a record that cannot be read: no job of its tenant starts, and other tenants are not affected.
    fn of_unreadable() -> Self {
        Self { paused: Some(UnixMs(0)), cancellations: Vec::new() }
    }

    /// What this record says about a job.
    fn gate(&self, job: &JobRecord) -> Gate {
        match self.paused {
            _ if self.cancels(job) => Gate::Cancelled,
            Some(_) => Gate::Paused,
            None => Gate::Open,
        }
    }

    /// Notes that the first bulk cancellation has reached every open job before the entry `next`, or all jobs if there is no such entry.
    pub(crate) fn reach(&mut self, next: Option<String>) {
        match (self.cancellations.first_mut(), next) {
            (Some(first), Some(next)) => first.cursor = next,
            (Some(_), None) => drop(self.cancellations.remove(0)),
            (None, _) => {}
        }
    }

    /// Whether a bulk cancellation matches this job.
    pub(crate) fn cancels(&self, job: &JobRecord) -> bool {
        self.cancellations.iter().any(|cancellation| cancellation.filter.admits(job))
    }
}

/// The gates of some tenants, as they were read.
#[derive(Debug)]
pub(crate) struct Gates(BTreeMap<Tenant, Option<Versioned<QueueRecord>>>);

impl Gates {
    /// Whether the queue of a tenant is paused.
    pub(super) fn is_paused(&self, tenant: &Tenant) -> bool {
        self.of(tenant).is_some_and(|queue| queue.value.paused.is_some())
    }

    /// What the gate of the job's tenant says about the job.
    pub(crate) fn gate(&self, job: &JobRecord) -> Gate {
        self.of(&job.tenant).map_or(Gate::Open, |queue| queue.value.gate(job))
    }

    /// Lets a change apply only if the gate of its tenant is still as it was read.
    pub(crate) fn hold(&self, change: &mut Change<'_>) {
        let tenant = &change.job().tenant;
        let queue = self.of(tenant);
        let expected = queue.map_or(Expectation::Absent, |queue| Expectation::Version(queue.version));
        change.require(keys::queue(tenant), expected);
    }

    fn of(&self, tenant: &Tenant) -> Option<&Versioned<QueueRecord>> {
        self.0.get(tenant).and_then(Option::as_ref)
    }
}

impl Queues {
    /// The open ready queues of tenants that are not paused.
    pub(crate) async fn unpaused_queues(&self) -> Result<Vec<QueueName>, EngineError> {
        let queues = self.open_queues().await?;
        let gates = self.gates(queues.iter().map(|queue| &queue.tenant)).await?;
        Ok(queues.iter().filter(|queue| !gates.is_paused(&queue.tenant)).cloned().collect())
    }

    /// Reads the gate of a tenant's queue.
    pub(crate) async fn queue(&self, tenant: &Tenant) -> Result<QueueRecord, EngineError> {
        let queue = self.records.read::<QueueRecord>(keys::queue(tenant)).await?;
        Ok(queue.map(|queue| *queue.value).unwrap_or_default())
    }

    /// Reads the gates of these tenants. A gate that cannot be read counts as paused.
    pub(crate) async fn gates(&self, tenants: impl Iterator<Item = &Tenant>) -> Result<Gates, EngineError> {
        let tenants: BTreeSet<Tenant> = tenants.cloned().collect();
        let keys: Vec<String> = tenants.iter().map(keys::queue).collect();
        let queues = self.records.store.read(&keys).await?;
        let gates = tenants.into_iter().zip(keys).zip(queues).map(|((tenant, key), queue)| {
            let queue = queue.map(|Record { version, value }| {
                let read = records::decode(&key, &value).unwrap_or_else(|error| {
                    self.context.log_throttle.error(&error, &format!("the queue of tenant {tenant} counts as paused"));
                    QueueRecord::of_unreadable()
                });
                Versioned { version, value: Box::new(read) }
            });
            (tenant, queue)
        });
        Ok(Gates(gates.collect()))
    }

    /// Changes the gate of a tenant's queue by `alter`, which may refuse. Returns the gate after the change.
    pub(crate) async fn alter_queue(
        &self,
        tenant: &Tenant,
        alter: impl Fn(&mut QueueRecord, UnixMs) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<QueueRecord, EngineError> {
        for _ in 0..MAX_TRIES {
            let read = self.records.read::<QueueRecord>(keys::queue(tenant)).await?;
            let before = read.as_ref().map(|queue| queue.value.clone()).unwrap_or_default();
            let mut after = before.clone();
            alter(&mut after, self.records.store.now().await?)?;
            if after == before || self.records.apply_one(queue_batch(tenant, &read, &after)).await? {
                return Ok(*after);
            }
        }
        Err(EngineError::contended(format!("the queue of {tenant}")))
    }
}

/// The batch that writes the gate of a tenant's queue, and lists the tenant in the index of bulk cancellations as long as it has any. It
/// sends the hint of ready tasks only if the queue was resumed, since a cancellation gives workers nothing to claim.
pub(crate) fn queue_batch(tenant: &Tenant, read: &Option<Versioned<QueueRecord>>, queue: &QueueRecord) -> Batch {
    let key = keys::queue(tenant);
    let entry = vec![(keys::CANCELLING.to_owned(), tenant.to_string())];
    let (removals, insertions) = if queue.cancellations.is_empty() { (entry, Vec::new()) } else { (Vec::new(), entry) };
    let was_paused = read.as_ref().is_some_and(|read| read.value.paused.is_some());
    let is_resumed = was_paused && queue.paused.is_none();
    Batch {
        checks: vec![(key.clone(), expectation(read))],
        writes: vec![(key, records::encode(queue))],
        removals,
        insertions,
        topics: is_resumed.then(|| keys::READY.into()).into_iter().collect(),
        ..Batch::default()
    }
}

impl Queues {
    /// Returns the state of a tenant's queue.
    pub(crate) async fn view(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        self.view_queue(tenant, self.queue(tenant).await?).await
    }

    /// Pauses a tenant's queue: no job of the tenant starts any more, and running jobs go on.
    pub(crate) async fn pause(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        let pause = |queue: &mut QueueRecord, now| {
            queue.paused.get_or_insert(now);
            Ok(())
        };
        let queue = self.alter_queue(tenant, pause).await?;
        self.view_queue(tenant, queue).await
    }

    /// Resumes a tenant's queue: jobs of the tenant start again.
    pub(crate) async fn resume(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        let resume = |queue: &mut QueueRecord, _| {
            queue.paused = None;
            Ok(())
        };
        let queue = self.alter_queue(tenant, resume).await?;
        self.view_queue(tenant, queue).await
    }
}

impl Queues {
    async fn view_queue(&self, tenant: &Tenant, queue: QueueRecord) -> Result<v1::Queue, EngineError> {
        let keys = STATES.map(|state| keys::jobs_in(tenant, state));
        let counts = STATES.into_iter().zip(self.records.store.counters(&keys).await?);
        let counts: Vec<v1::StateCount> = counts
            .map(|(state, jobs)| v1::StateCount { state: state.into(), jobs: u64::try_from(jobs).unwrap_or_default() })
            .filter(|count| count.jobs > 0)
            .collect();
        let is_any_queued = counts.iter().any(|count| count.state() == JobState::Queued);
        let oldest = if is_any_queued { self.oldest_waiting(tenant).await? } else { None };
        Ok(v1::Queue {
            counts,
            paused_since_unix_ms: queue.paused.map_or(0, UnixMs::to_wire),
            oldest_queued_unix_ms: oldest.map_or(0, UnixMs::to_wire),
            cancellations: queue.cancellations.len() as u32,
        })
    }

    /// When the oldest job of a tenant that waits for a worker was accepted; `None` if none was found.
    async fn oldest_waiting(&self, tenant: &Tenant) -> Result<Option<UnixMs>, EngineError> {
        let now = self.records.store.now().await?;
        let open = self.records.store.range(Range::first(keys::open_jobs(tenant), MAX_LOOKED_AT)).await?;
        for ids in open.chunks(READ_AT_A_TIME) {
            let ids_of_jobs = ids.iter().filter_map(|id| id.parse().ok());
            let jobs = self.records.readable_jobs(ids_of_jobs, &mut Failures::default()).await?;
            let waits = |job: &&Versioned<JobRecord>| {
                job.value.state() == JobState::Queued && job.value.request.not_before.is_none_or(|at| at <= now)
            };
            if let Some(oldest) = jobs.iter().find(waits) {
                return Ok(Some(oldest.value.created));
            }
        }
        Ok(None)
    }
}
