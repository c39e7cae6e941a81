//! The changes of one commit, which are one entry of the write-ahead log.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    memtable::{Memtable, entry_key},
    view::View,
};
use crate::store::{Batch, Expectation, Record, Verdict};

/// What the batches of one commit change together. A key that several of them change is listed once.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Changes<'b> {
    /// The records that are written; `None` for those that are deleted.
    #[serde(borrow)]
    pub(super) records: BTreeMap<&'b str, Option<Written<'b>>>,
    /// By index and entry: whether the index holds the entry afterwards.
    #[serde(borrow)]
    pub(super) entries: BTreeMap<(&'b str, &'b str), bool>,
    /// The counters after their increments.
    #[serde(borrow)]
    pub(super) counters: BTreeMap<&'b str, i64>,
    /// The last version that was given to a record.
    pub(super) last_version: u64,
    /// The greatest time that was reported, in milliseconds since 1970 UTC.
    pub(super) time: u64,
}

/// A record as the log holds it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Written<'b> {
    pub(super) version: u64,
    #[serde(borrow, with = "serde_bytes")]
    pub(super) value: &'b [u8],
}

impl<'b> Changes<'b> {
    /// Appends the encoded changes to a buffer.
    pub(super) fn encode(&self, buffer: Vec<u8>) -> Vec<u8> {
        postcard::to_extend(self, buffer).expect("a vector takes any length")
    }

    /// Decodes an entry of the log.
    pub(super) fn decode(entry: &'b [u8]) -> Result<Self, redb::Error> {
        postcard::from_bytes(entry).map_err(|error| redb::Error::Corrupted(format!("an entry of the log: {error}")))
    }

    /// Adds the changes of one more batch, if its checks hold in the view before the commit with the changes so far.
    pub(super) fn add(&mut self, batch: &'b Batch, before: &View) -> Result<Verdict, redb::Error> {
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

    /// Applies these changes to a memtable.
    pub(super) fn apply_to(&self, memtable: &mut Memtable) {
        for (key, record) in &self.records {
            let record =
                record.map(|written| Record { version: written.version, value: Bytes::copy_from_slice(written.value) });
            memtable.records.insert((*key).into(), record);
        }
        for ((index, entry), holds) in &self.entries {
            let key: Arc<str> = entry_key(index, entry).into();
            let (to, from) = match holds {
                true => (&mut memtable.inserted, &mut memtable.removed),
                false => (&mut memtable.removed, &mut memtable.inserted),
            };
            from.remove(&key);
            to.insert(key);
        }
        for (key, count) in &self.counters {
            memtable.counters.insert((*key).into(), *count);
        }
        memtable.last_version = self.last_version;
        memtable.time = self.time;
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

    /// Increments a counter and returns its new value.
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
