//! What one commit changes: an entry of the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::view::View;
use crate::store::{Batch, Expectation, Verdict};

/// What the batches of one commit change. What several of them change is there once.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Changes<'b> {
    /// `None` for records that are deleted.
    #[serde(borrow)]
    pub(super) records: BTreeMap<&'b str, Option<Written<'b>>>,
    /// By index and entry: whether the index shall hold it.
    #[serde(borrow)]
    pub(super) entries: BTreeMap<(&'b str, &'b str), bool>,
    /// What they are afterwards.
    #[serde(borrow)]
    pub(super) counters: BTreeMap<&'b str, i64>,
    /// The last version that was given to a record.
    pub(super) last_version: u64,
    /// The greatest time that was told, in milliseconds since 1970 UTC.
    pub(super) time: u64,
}

/// A record as it is written.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Written<'b> {
    pub(super) version: u64,
    #[serde(borrow, with = "serde_bytes")]
    pub(super) value: &'b [u8],
}

impl<'b> Changes<'b> {
    /// Appends an entry of the log.
    pub(super) fn encode(&self, buffer: Vec<u8>) -> Vec<u8> {
        postcard::to_extend(self, buffer).expect("a vector takes any length")
    }

    /// Reads an entry of the log.
    pub(super) fn decode(entry: &'b [u8]) -> Result<Self, redb::Error> {
        postcard::from_bytes(entry).map_err(|error| redb::Error::Corrupted(format!("an entry of the log: {error}")))
    }

    /// Adds what a batch changes beyond what is here already, if its checks hold.
    pub(super) fn apply(&mut self, batch: &'b Batch, before: &View) -> Result<Verdict, redb::Error> {
        for (key, expected) in &batch.checks {
            if !self.holds(key, *expected, before)? {
                return Ok(Verdict::Conflict);
            }
        }
        for (key, value) in &batch.writes {
            self.last_version += 1;
            self.records.insert(key, Some(Written { version: self.last_version, value }));
        }
        self.records.extend(batch.deletes.iter().map(|key| (key.as_str(), None)));
        let moves = |moved: &'b [(String, String)], holds| {
            moved.iter().map(move |(index, entry)| ((index.as_str(), entry.as_str()), holds))
        };
        self.entries.extend(moves(&batch.removals, false));
        self.entries.extend(moves(&batch.insertions, true));
        let increments = batch.increments.iter();
        let counters: Result<Vec<i64>, _> =
            increments.map(|(key, amount)| self.increment(key, *amount, before)).collect();
        counters.map(Verdict::Applied)
    }

    fn holds(&self, key: &str, expected: Expectation, before: &View) -> Result<bool, redb::Error> {
        let found = match self.records.get(key) {
            Some(changed) => changed.map(|written| written.version),
            None => before.version(key)?,
        };
        Ok(match expected {
            Expectation::Absent => found.is_none(),
            Expectation::Version(version) => found == Some(version),
        })
    }

    /// The counter after its increment.
    fn increment(&mut self, key: &'b str, amount: i64, before: &View) -> Result<i64, redb::Error> {
        let count = match self.counters.get(key) {
            Some(count) => *count,
            None => before.counter(key)?,
        };
        let after = count.saturating_add(amount);
        self.counters.insert(key, after);
        Ok(after)
    }
}
