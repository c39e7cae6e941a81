//! The store in memory: the model that the durable stores are compared with, and the store of simulations.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sortinghat_proto::time::UnixMs;

use super::{Batch, Clock, Expectation, Hints, Order, Range, Record, Store, StoreError, Verdict};

/// Keeps everything in this process until the process ends.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    contents: Mutex<Contents>,
    hints: Arc<Hints>,
}

#[derive(Debug, Default)]
struct Contents {
    records: BTreeMap<String, Record>,
    indexes: BTreeMap<String, BTreeSet<String>>,
    counters: BTreeMap<String, i64>,
    last_version: u64,
    last_time: UnixMs,
}

impl MemoryStore {
    /// An empty store that takes the time from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, contents: Mutex::default(), hints: Arc::<Hints>::default() }
    }
}

impl Contents {
    fn holds(&self, key: &str, expected: Expectation) -> bool {
        match (self.records.get(key), expected) {
            (None, Expectation::Absent) => true,
            (Some(record), Expectation::Version(version)) => record.version == version,
            (None, Expectation::Version(_)) | (Some(_), Expectation::Absent) => false,
        }
    }

    fn apply(&mut self, batch: Batch) -> Verdict {
        if !batch.checks.iter().all(|(key, expected)| self.holds(key, *expected)) {
            return Verdict::Conflict;
        }
        for (key, value) in batch.writes {
            self.last_version += 1;
            self.records.insert(key, Record { version: self.last_version, value });
        }
        for key in batch.deletes {
            self.records.remove(&key);
        }
        for (index, entry) in batch.removals {
            self.indexes.entry(index).or_default().remove(&entry);
        }
        for (index, entry) in batch.insertions {
            self.indexes.entry(index).or_default().insert(entry);
        }
        let counters = batch.increments.into_iter().map(|(key, amount)| {
            let before = self.counters.remove(&key).unwrap_or_default();
            let after = before.saturating_add(amount);
            if after != 0 {
                self.counters.insert(key, after);
            }
            after
        });
        Verdict::Applied(counters.collect())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError> {
        let contents = self.contents.lock();
        Ok(keys.iter().map(|key| contents.records.get(key).cloned()).collect())
    }

    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError> {
        let contents = self.contents.lock();
        Ok(keys.iter().map(|key| contents.counters.get(key).copied().unwrap_or_default()).collect())
    }

    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError> {
        let contents = self.contents.lock();
        let Some(entries) = contents.indexes.get(&range.index) else { return Ok(Vec::new()) };
        if range.until.as_ref().is_some_and(|until| *until <= range.from) {
            return Ok(Vec::new());
        }
        let until = range.until.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = entries.range((Bound::Included(range.from), until)).cloned();
        Ok(match range.order {
            Order::Ascending => entries.take(range.limit).collect(),
            Order::Descending => entries.rev().take(range.limit).collect(),
        })
    }

    async fn now(&self) -> Result<UnixMs, StoreError> {
        let mut contents = self.contents.lock();
        contents.last_time = contents.last_time.max(self.clock.now());
        Ok(contents.last_time)
    }

    async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        batches.iter().try_for_each(Batch::validate)?;
        let mut verdicts = Vec::with_capacity(batches.len());
        for mut batch in batches {
            let topics = std::mem::take(&mut batch.topics);
            let verdict = self.contents.lock().apply(batch);
            if matches!(verdict, Verdict::Applied(_)) {
                topics.iter().for_each(|topic| self.hints.tell(topic));
            }
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }
}
