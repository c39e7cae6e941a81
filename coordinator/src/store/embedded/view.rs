//! The store at one moment: the tables, and what was committed since they were written.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    layer::{self, Layer},
    tables::Tables,
};
use crate::store::{Order, Range, Record};

/// Entries that are passed over at the front of an index before it is worth while to remember that.
const MANY: usize = 16;

/// The store at one moment. A copy costs nothing.
#[derive(Clone)]
pub(super) struct View {
    /// What only the newer log has.
    pub(super) recent: Layer,
    /// What the older log has, and is being written into the tables.
    pub(super) frozen: Arc<Frozen>,
    pub(super) tables: Arc<Tables>,
    /// Grows with each commit.
    pub(super) commit: u64,
}

/// A layer that changes no more.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    pub(super) layer: Layer,
    fronts: Fronts,
}

impl From<Layer> for Frozen {
    fn from(layer: Layer) -> Self {
        Self { layer, fronts: Fronts::default() }
    }
}

/// Where indexes begin, by their names: of the entries before, all have changed since. A queue is emptied from its front, and nobody
/// should pass over thousands of removed entries time and again until the tables are written.
#[derive(Debug, Default)]
pub(super) struct Fronts(Mutex<HashMap<String, Front>>);

#[derive(Debug)]
struct Front {
    entry: String,
    /// The commit after which that holds.
    commit: u64,
}

impl Fronts {
    fn fronts(&self) -> MutexGuard<'_, HashMap<String, Front>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to begin to look for entries that are not less than the range's.
    fn start(&self, range: &Range, commit: u64) -> String {
        let fronts = self.fronts();
        let known = fronts.get(&range.index).filter(|front| front.commit <= commit && front.entry > range.from);
        known.map_or(&range.from, |front| &front.entry).clone()
    }

    /// Nothing of the range before this entry is unchanged after this commit.
    fn advance(&self, range: &Range, entry: &str, commit: u64) {
        let mut fronts = self.fronts();
        let is_further = match fronts.get(&range.index) {
            Some(front) => range.from <= front.entry && front.entry.as_str() < entry,
            None => range.from.is_empty(),
        };
        if is_further {
            fronts.insert(range.index.clone(), Front { entry: entry.to_owned(), commit });
        }
    }
}

impl View {
    /// What the layers say of a record, if they do.
    fn changed(&self, key: &str) -> Option<&Option<Record>> {
        self.recent.records.get(key).or_else(|| self.frozen.layer.records.get(key))
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
        match self.recent.counters.get(key).or_else(|| self.frozen.layer.counters.get(key)) {
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
        let (recent, frozen) = (&self.recent, &self.frozen.layer);
        let mut entries: Vec<String> = recent.entries(range, &range.from).take(range.limit).collect();
        let of_frozen = |from: &str| Ok(frozen.entries(range, from).map(Ok));
        entries.extend(self.unchanged(range, &self.frozen.fronts, of_frozen, |place| recent.knows(place))?);
        let of_tables = |from: &str| self.tables.entries(range, from);
        let is_changed = |place: &str| recent.knows(place) || frozen.knows(place);
        entries.extend(self.unchanged(range, &self.tables.fronts, of_tables, is_changed)?);
        match range.order {
            Order::Ascending => entries.sort(),
            Order::Descending => entries.sort_by(|one, other| other.cmp(one)),
        }
        entries.truncate(range.limit);
        Ok(entries)
    }

    /// The first entries of a source that nothing newer has changed.
    fn unchanged<I: Iterator<Item = Result<String, redb::Error>>>(
        &self,
        range: &Range,
        fronts: &Fronts,
        entries_from: impl FnOnce(&str) -> Result<I, redb::Error>,
        is_changed: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, redb::Error> {
        let (mut unchanged, mut changed, mut last_changed) = (Vec::new(), 0, String::new());
        let mut place = layer::place(&range.index, "");
        let index_bytes = place.len();
        for entry in entries_from(&fronts.start(range, self.commit))? {
            let entry = entry?;
            place.truncate(index_bytes);
            place.push_str(&entry);
            if !is_changed(&place) {
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
            fronts.advance(range, unchanged.first().unwrap_or(&last_changed), self.commit);
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
        let mut layer = Layer::default();
        layer.absorb(&move_all(entries, true));
        tables::write(database, &layer, 1).expect("memory");
        let tables = Arc::new(Tables::of(database).expect("memory"));
        View { recent: layer.next(), frozen: Arc::default(), tables, commit: 0 }
    }

    fn move_all(entries: &[String], holds: bool) -> Changes<'_> {
        let entries: BTreeMap<_, _> = entries.iter().map(|entry| (("queue", entry.as_str()), holds)).collect();
        Changes { entries, ..Changes::default() }
    }

    #[test]
    fn an_older_view_does_not_go_by_what_has_changed_since() {
        let entries: Vec<String> = (0..4 * MANY).map(|number| format!("{number:02}")).collect();
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).expect("memory");
        let older = view_of_a_queue(&database, &entries);
        let mut newer = older.clone();
        newer.recent.absorb(&move_all(&entries[..2 * MANY], false));
        newer.commit += 1;
        let first = Range::first("queue", 1);
        assert_eq!(newer.range(&first).expect("memory"), entries[2 * MANY..=2 * MANY]);
        assert_eq!(newer.tables.fronts.start(&first, newer.commit), entries[2 * MANY], "it need not look there again");
        assert_eq!(older.range(&first).expect("memory"), entries[..1]);
    }
}
