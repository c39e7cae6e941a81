//! A snapshot of the store: the tables, and the memtables above them.

use std::{fmt, sync::Arc};

use super::{
    low_marks::LowMarks,
    memtable::{Memtable, entry_key},
    tables::Tables,
};
use crate::store::{Order, Range, Record};

/// So many tombstones at the front of an index are worth a low-water mark.
const MANY: usize = 16;

/// A snapshot of the store after one commit. A copy costs nothing.
#[derive(Clone)]
pub(super) struct View {
    /// What only the growing log holds.
    pub(super) active: Memtable,
    /// What the other log holds, while a checkpoint writes it into the tables.
    pub(super) frozen: Arc<Frozen>,
    pub(super) tables: Arc<Tables>,
    /// Counts commits.
    pub(super) commit: u64,
}

/// A memtable that does not change any more.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    memtable: Memtable,
    low_marks: LowMarks,
}

impl From<Memtable> for Frozen {
    fn from(memtable: Memtable) -> Self {
        Self { memtable, low_marks: LowMarks::default() }
    }
}

impl View {
    /// The record in the newest memtable that knows it; the inner `None` says that it was deleted.
    fn changed(&self, key: &str) -> Option<&Option<Record>> {
        self.active.records.get(key).or_else(|| self.frozen.memtable.records.get(key))
    }

    /// A record.
    pub(super) fn record(&self, key: &str) -> Result<Option<Record>, redb::Error> {
        match self.changed(key) {
            Some(record) => Ok(record.clone()),
            None => self.tables.record(key),
        }
    }

    /// The version of a record.
    pub(super) fn version(&self, key: &str) -> Result<Option<u64>, redb::Error> {
        match self.changed(key) {
            Some(record) => Ok(record.as_ref().map(|record| record.version)),
            None => self.tables.version(key),
        }
    }

    /// A counter.
    pub(super) fn counter(&self, key: &str) -> Result<i64, redb::Error> {
        match self.active.counters.get(key).or_else(|| self.frozen.memtable.counters.get(key)) {
            Some(count) => Ok(*count),
            None => self.tables.counter(key),
        }
    }

    /// A part of an index.
    pub(super) fn range(&self, range: &Range) -> Result<Vec<String>, redb::Error> {
        let is_empty = range.until.as_ref().is_some_and(|until| *until <= range.from);
        if is_empty || range.limit == 0 {
            return Ok(Vec::new());
        }
        let (active, frozen) = (&self.active, &self.frozen.memtable);
        let mut entries: Vec<String> = active.entries(range, &range.from).take(range.limit).collect();
        let of_frozen = |from: &str| Ok(frozen.entries(range, from).map(Ok));
        entries.extend(self.unchanged(range, &self.frozen.low_marks, of_frozen, |key| active.knows(key))?);
        let of_tables = |from: &str| self.tables.entries(range, from);
        let is_changed = |key: &str| active.knows(key) || frozen.knows(key);
        entries.extend(self.unchanged(range, &self.tables.low_marks, of_tables, is_changed)?);
        match range.order {
            Order::Ascending => entries.sort(),
            Order::Descending => entries.sort_by(|one, other| other.cmp(one)),
        }
        entries.truncate(range.limit);
        Ok(entries)
    }

    /// The first entries of a source that no newer memtable has changed. Raises the source's low-water mark where many have changed.
    fn unchanged<I: Iterator<Item = Result<String, redb::Error>>>(
        &self,
        range: &Range,
        low_marks: &LowMarks,
        entries_from: impl FnOnce(&str) -> Result<I, redb::Error>,
        is_changed: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, redb::Error> {
        let (mut unchanged, mut changed, mut last_changed) = (Vec::new(), 0, String::new());
        let mut key = entry_key(&range.index, "");
        let index_bytes = key.len();
        for entry in entries_from(&low_marks.start(range, self.commit))? {
            let entry = entry?;
            key.truncate(index_bytes);
            key.push_str(&entry);
            if !is_changed(&key) {
                unchanged.push(entry);
                if unchanged.len() == range.limit {
                    break;
                }
            } else if unchanged.is_empty() {
                changed += 1;
                last_changed = entry;
            }
        }
        if changed >= MANY && range.order == Order::Ascending {
            low_marks.raise(range, unchanged.first().unwrap_or(&last_changed), self.commit);
        }
        Ok(unchanged)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use redb::{Database, backends::InMemoryBackend};

    use super::{
        super::{changes::Changes, tables},
        *,
    };

    fn view_of_a_queue(database: &Database, entries: &[String]) -> View {
        tables::prepare(database).expect("memory");
        let mut memtable = Memtable::default();
        move_all(entries, true).apply_to(&mut memtable);
        tables::checkpoint(database, &memtable, 1).expect("memory");
        let tables = Arc::new(Tables::of(database).expect("memory"));
        View { active: memtable.next(), frozen: Arc::default(), tables, commit: 0 }
    }

    fn move_all(entries: &[String], holds: bool) -> Changes<'_> {
        let entries: BTreeMap<_, _> = entries.iter().map(|entry| (("queue", entry.as_str()), holds)).collect();
        Changes { entries, ..Changes::default() }
    }

    #[test]
    fn a_low_water_mark_does_not_hold_for_an_older_view() {
        let entries: Vec<String> = (0..4 * MANY).map(|number| format!("{number:02}")).collect();
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).expect("memory");
        let older = view_of_a_queue(&database, &entries);
        let mut newer = older.clone();
        move_all(&entries[..2 * MANY], false).apply_to(&mut newer.active);
        newer.commit += 1;
        let first = Range::first("queue", 1);
        assert_eq!(newer.range(&first).expect("memory"), entries[2 * MANY..=2 * MANY]);
        assert_eq!(newer.tables.low_marks.start(&first, newer.commit), entries[2 * MANY], "the next scan begins here");
        assert_eq!(older.range(&first).expect("memory"), entries[..1]);
    }
}
