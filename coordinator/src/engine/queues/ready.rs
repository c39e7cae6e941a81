//! The set of open ready queues. A queue is opened with its first task, and closed when it has been empty for a while. The number of a
//! tenant's queues with requirements is bounded, so such a queue is also opened by tasks that are not claimable yet.
//!
//! A batch that makes a task ready also adds the task's queue to the set, without reading the set, so it costs no contention. Closing must
//! therefore be careful, since a task may come in just before. After a queue was closed, it is checked once more, and opened again if it
//! holds a task. Until then it is listed in the index of closing queues, so that no task is lost if the coordinator crashes in between.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sortinghat_proto::{Tenant, limits::MAX_REQUIREMENT_CLASSES, time::UnixMs, v1::ErrorCode};

use super::Queues;
use crate::{
    engine::{
        error::EngineError,
        records::{self, QueueName, Versioned, expectation, keys},
    },
    store::{Batch, Range},
};

/// How many queues one claim or one round of closing reads at most.
const MAX_OPEN_QUEUES: usize = 10_000;
/// How many queues one batch closes or checks once more.
const QUEUES_PER_BATCH: usize = 400;

/// Changes with every batch that closes queues or checks them once more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct QueueClosingRecord {
    rounds: u64,
}

/// The queues that were open at the last look.
#[derive(Debug, Default)]
pub(super) struct LastOpen(Mutex<Arc<Vec<QueueName>>>);

impl LastOpen {
    pub(crate) fn queues(&self) -> Arc<Vec<QueueName>> {
        self.0.lock().clone()
    }
}

/// Since when queues have been empty, as this process has seen it.
#[derive(Debug, Default)]
pub(super) struct EmptyQueues(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    looked: Option<UnixMs>,
    empty_since: HashMap<String, UnixMs>,
}

impl EmptyQueues {
    /// Whether it is time to look again. There are four looks in the time for which an empty queue stays open.
    fn is_due(&self, now: UnixMs, linger_ms: u64) -> bool {
        let mut seen = self.0.lock();
        let is_due = seen.looked.is_none_or(|looked| now.ms_since(looked) >= linger_ms / 4);
        if is_due {
            seen.looked = Some(now);
        }
        is_due
    }

    /// The queues among `empty`, which are those that are empty now, that have been empty for `linger_ms`.
    fn lingered(&self, empty: &[String], now: UnixMs, linger_ms: u64) -> Vec<String> {
        let mut seen = self.0.lock();
        let still: HashSet<&String> = empty.iter().collect();
        seen.empty_since.retain(|queue, _| still.contains(queue));
        let since = |queue: &String| *seen.empty_since.entry(queue.clone()).or_insert(now);
        let since: Vec<UnixMs> = empty.iter().map(since).collect();
        let long = empty.iter().zip(since).filter(|(_, since)| now.ms_since(*since) >= linger_ms);
        long.map(|(queue, _)| queue.clone()).collect()
    }
}

impl Queues {
    /// Reads the set of open queues.
    pub(super) async fn open_queues(&self) -> Result<Arc<Vec<QueueName>>, EngineError> {
        let names = self.records.store.range(Range::first(keys::OPEN_QUEUES, MAX_OPEN_QUEUES)).await?;
        let known = |name: &String| {
            let unknown = |error: &EngineError| {
                self.context.log_throttle.error(error, &format!("the ready queue {name} is skipped"));
            };
            name.parse().map_err(EngineError::from).inspect_err(unknown).ok()
        };
        let queues: Arc<Vec<QueueName>> = Arc::new(names.iter().filter_map(known).collect());
        *self.last_open.0.lock() = queues.clone();
        Ok(queues)
    }

    /// Refuses a job if its tenant already has the most queues with requirements, and the job's queue is not one of them. The bound keeps
    /// claims cheap. Jobs that are accepted at the same moment may exceed it a little.
    pub(crate) async fn require_queue(&self, queue: &QueueName) -> Result<(), EngineError> {
        if !queue.is_bounded() {
            return Ok(());
        }
        let (from, until) = QueueName::bounds(queue.lane, &queue.tenant);
        // One more is read, for the queue without requirements. It has the first name and does not count.
        let open = Range::first(keys::OPEN_QUEUES, MAX_REQUIREMENT_CLASSES + 1).from(from.clone()).until(until);
        let mut open = self.records.store.range(open).await?;
        open.retain(|name| *name != from);
        if open.len() < MAX_REQUIREMENT_CLASSES || open.contains(&queue.to_string()) {
            return Ok(());
        }
        let message = format!(
            "your jobs wait with {MAX_REQUIREMENT_CLASSES} different requirements already: use one of these, or wait a minute"
        );
        Err(EngineError::refused(ErrorCode::ResourceExhausted, message).in_field("requirements"))
    }

    /// Closes the queues that have been empty for as long as the settings say. Returns how many were closed.
    pub(crate) async fn close_empty_queues(&self, now: UnixMs) -> Result<usize, EngineError> {
        let linger_ms = self.context.settings.queue_linger_ms;
        if !self.empty_queues.is_due(now, linger_ms) {
            return Ok(0);
        }
        self.look_at_closing_queues().await?;
        let open = self.records.store.range(Range::first(keys::OPEN_QUEUES, MAX_OPEN_QUEUES)).await?;
        metrics::gauge!("sortinghat_open_queues").set(open.len() as f64);
        let (empty, _) = self.by_emptiness(open).await?;
        let mut closing = self.empty_queues.lingered(&empty, now, linger_ms);
        closing.truncate(QUEUES_PER_BATCH);
        if closing.is_empty() {
            return Ok(0);
        }
        let listed = closing.iter().map(|queue| (keys::CLOSING_QUEUES.to_owned(), queue.clone())).collect();
        let removed = closing.iter().map(|queue| (keys::OPEN_QUEUES.to_owned(), queue.clone())).collect();
        let closed = self.closing_batch(self.closing_record().await?, removed, listed);
        if !self.records.apply_one(closed).await? {
            return Ok(0);
        }
        self.look_at_closing_queues().await?;
        Ok(closing.len())
    }

    /// Checks the closing queues once more, opens those that hold a task, and forgets the others. Any coordinator can do this for another
    /// one that has crashed.
    async fn look_at_closing_queues(&self) -> Result<(), EngineError> {
        // This record must be read before the queues. If another coordinator closes one of them after that, the batch below does not apply.
        let record = self.closing_record().await?;
        let closing = self.records.store.range(Range::first(keys::CLOSING_QUEUES, QUEUES_PER_BATCH)).await?;
        if closing.is_empty() {
            return Ok(());
        }
        let removed = closing.iter().map(|queue| (keys::CLOSING_QUEUES.to_owned(), queue.clone())).collect();
        let (_, filled) = self.by_emptiness(closing).await?;
        let opened = filled.into_iter().map(|queue| (keys::OPEN_QUEUES.to_owned(), queue)).collect();
        let batch = Batch { topics: vec![keys::READY.into()], ..self.closing_batch(record, removed, opened) };
        self.records.apply_one(batch).await.map(drop)
    }

    /// Separates the queues that hold no task, claimable or not, from the others.
    async fn by_emptiness(&self, queues: Vec<String>) -> Result<(Vec<String>, Vec<String>), EngineError> {
        let mut ranges = Vec::with_capacity(2 * queues.len());
        for name in &queues {
            let queue: QueueName = name.parse()?;
            ranges.extend([queue.index(), queue.reservations()].map(|index| Range::first(index, 1)));
        }
        let first = self.records.store.ranges(ranges).await?;
        let (mut empty, mut filled) = (Vec::new(), Vec::new());
        for (queue, first) in queues.into_iter().zip(first.chunks(2)) {
            if first.iter().all(Vec::is_empty) { &mut empty } else { &mut filled }.push(queue);
        }
        Ok((empty, filled))
    }

    async fn closing_record(&self) -> Result<Option<Versioned<QueueClosingRecord>>, EngineError> {
        self.records.read(keys::QUEUE_CLOSING.to_owned()).await
    }

    fn closing_batch(
        &self,
        record: Option<Versioned<QueueClosingRecord>>,
        removals: Vec<(String, String)>,
        insertions: Vec<(String, String)>,
    ) -> Batch {
        let key = keys::QUEUE_CLOSING.to_owned();
        let next = QueueClosingRecord { rounds: record.as_ref().map_or(0, |record| record.value.rounds) + 1 };
        Batch {
            checks: vec![(key.clone(), expectation(&record))],
            writes: vec![(key, records::encode(&next))],
            removals,
            insertions,
            ..Batch::default()
        }
    }

    /// The weight of a tenant in fair sharing.
    pub(crate) fn weight(&self, tenant: &Tenant) -> u32 {
        self.weights.read().get(tenant).copied().unwrap_or(1)
    }

    /// Replaces the weights of all tenants.
    pub(crate) fn set_weights(&self, weights: HashMap<Tenant, u32>) {
        *self.weights.write() = weights;
    }
}
