//! The one thread that writes: it takes what has queued up meanwhile, applies it in one transaction, syncs, and answers all.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
};

use redb::{Durability, ReadableTable as _, Table, WriteTransaction};
use tokio::sync::oneshot;

use super::{COUNTERS, INDEXES, META, MonotoneTime, RECORDS, TIME, disk::Disk, tables::VERSION};
use crate::store::{Batch, Expectation, Hints, Verdict};

/// Batches of one commit; more would only make the first ones wait.
const MAX_GROUP_BATCHES: usize = 4096;

/// Batches of one call, and where their verdicts go.
pub(super) struct Request {
    pub(super) batches: Vec<Batch>,
    pub(super) reply: oneshot::Sender<Vec<Verdict>>,
}

/// The writer's own things.
pub(super) struct Writer {
    pub(super) disk: Arc<Disk>,
    pub(super) time: Arc<MonotoneTime>,
    pub(super) hints: Arc<Hints>,
}

impl Writer {
    /// Works until every sender is gone and the queue is empty.
    pub(super) fn run(&self, queue: &mpsc::Receiver<Request>) {
        while let Ok(first) = queue.recv() {
            let mut size = first.batches.len();
            let mut group = vec![first];
            while size < MAX_GROUP_BATCHES
                && let Ok(request) = queue.try_recv()
            {
                size += request.batches.len();
                group.push(request);
            }
            metrics::histogram!("sortinghat_store_group_batches").record(size as f64);
            self.commit(group);
        }
    }

    fn commit(&self, group: Vec<Request>) {
        let verdicts = match self.write(&group) {
            Ok(verdicts) => verdicts,
            Err(error) => {
                metrics::counter!("sortinghat_store_commit_failures_total").increment(1);
                self.recover(&error);
                group.iter().map(|request| vec![Verdict::Unknown; request.batches.len()]).collect()
            }
        };
        for (request, verdicts) in group.into_iter().zip(verdicts) {
            self.hint(&request.batches, &verdicts);
            // A caller that has gone away reads what became of its batch when it comes back.
            let _ = request.reply.send(verdicts);
        }
    }

    /// Opens the file again before anybody hears of the failure, so that a read tells for good what became of their batches.
    fn recover(&self, error: &redb::Error) {
        tracing::error!(%error, "the queue's store failed to commit: opening its file again");
        if let Err(error) = self.disk.reopen() {
            tracing::error!(%error, "the queue's file cannot be opened again yet: the next call tries it");
        }
    }

    fn hint(&self, batches: &[Batch], verdicts: &[Verdict]) {
        let applied = batches.iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Applied(_)));
        applied.flat_map(|(batch, _)| &batch.topics).for_each(|topic| self.hints.tell(topic));
    }

    fn write(&self, group: &[Request]) -> Result<Vec<Vec<Verdict>>, redb::Error> {
        self.disk.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let verdicts = self.apply_all(&transaction, group)?;
            transaction.commit()?;
            Ok(verdicts)
        })
    }

    fn apply_all(&self, transaction: &WriteTransaction, group: &[Request]) -> Result<Vec<Vec<Verdict>>, redb::Error> {
        let mut meta = transaction.open_table(META)?;
        let last_version = meta.get(VERSION)?.map_or(0, |guard| guard.value());
        let mut changes = Changes::over(transaction, last_version)?;
        let mut verdicts = Vec::with_capacity(group.len());
        for request in group {
            let of_request: Result<Vec<_>, _> = request.batches.iter().map(|batch| changes.apply(batch)).collect();
            verdicts.push(of_request?);
        }
        meta.insert(VERSION, changes.write()?)?;
        meta.insert(TIME, self.time.now().0)?;
        Ok(verdicts)
    }
}

/// What the batches of one commit change, in the order of the tables. What several of them change is written once.
struct Changes<'t, 'b> {
    tables: Tables<'t>,
    /// `None` for records to delete.
    records: BTreeMap<&'b str, Option<(u64, &'b [u8])>>,
    /// Whether an index shall hold an entry.
    entries: BTreeMap<(&'b str, &'b str), bool>,
    counters: BTreeMap<&'b str, i64>,
    last_version: u64,
}

struct Tables<'t> {
    records: Table<'t, &'static str, (u64, &'static [u8])>,
    indexes: Table<'t, (&'static str, &'static str), ()>,
    counters: Table<'t, &'static str, i64>,
}

impl<'t, 'b> Changes<'t, 'b> {
    fn over(transaction: &'t WriteTransaction, last_version: u64) -> Result<Self, redb::Error> {
        let tables = Tables {
            records: transaction.open_table(RECORDS)?,
            indexes: transaction.open_table(INDEXES)?,
            counters: transaction.open_table(COUNTERS)?,
        };
        let (records, entries, counters) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { tables, records, entries, counters, last_version })
    }

    fn holds(&self, key: &str, expected: Expectation) -> Result<bool, redb::Error> {
        let found = match self.records.get(key) {
            Some(changed) => changed.map(|(version, _)| version),
            None => self.tables.records.get(key)?.map(|guard| guard.value().0),
        };
        Ok(match expected {
            Expectation::Absent => found.is_none(),
            Expectation::Version(version) => found == Some(version),
        })
    }

    fn apply(&mut self, batch: &'b Batch) -> Result<Verdict, redb::Error> {
        for (key, expected) in &batch.checks {
            if !self.holds(key, *expected)? {
                return Ok(Verdict::Conflict);
            }
        }
        for (key, value) in &batch.writes {
            self.last_version += 1;
            self.records.insert(key, Some((self.last_version, value)));
        }
        self.records.extend(batch.deletes.iter().map(|key| (key.as_str(), None)));
        let moves = |moved: &'b [(String, String)], holds| {
            moved.iter().map(move |(index, entry)| ((index.as_str(), entry.as_str()), holds))
        };
        self.entries.extend(moves(&batch.removals, false));
        self.entries.extend(moves(&batch.insertions, true));
        batch
            .increments
            .iter()
            .map(|(key, amount)| self.increment(key, *amount))
            .collect::<Result<_, _>>()
            .map(Verdict::Applied)
    }

    /// The counter after its increment.
    fn increment(&mut self, key: &'b str, amount: i64) -> Result<i64, redb::Error> {
        let before = match self.counters.get(key) {
            Some(before) => *before,
            None => self.tables.counters.get(key)?.map_or(0, |guard| guard.value()),
        };
        let after = before.saturating_add(amount);
        self.counters.insert(key, after);
        Ok(after)
    }

    /// Writes all of it; returns the last version that was given.
    fn write(self) -> Result<u64, redb::Error> {
        let Tables { mut records, mut indexes, mut counters } = self.tables;
        for (key, record) in self.records {
            match record {
                Some(record) => drop(records.insert(key, record)?),
                None => drop(records.remove(key)?),
            }
        }
        for (entry, holds) in self.entries {
            if holds {
                indexes.insert(entry, ())?
            } else {
                indexes.remove(entry)?
            };
        }
        for (key, count) in self.counters {
            if count == 0 {
                counters.remove(key)?
            } else {
                counters.insert(key, count)?
            };
        }
        Ok(self.last_version)
    }
}
