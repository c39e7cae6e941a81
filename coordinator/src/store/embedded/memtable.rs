//! A memtable: what was committed since the last checkpoint, in memory. Its maps are persistent, so that a copy costs nothing and is
//! a snapshot.

use std::{ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};

use crate::store::{Order, Range, Record};

/// The changes of all commits in one generation of the log, each key once.
#[derive(Debug, Clone, Default)]
pub(super) struct Memtable {
    /// The records that were written; `None` for those that were deleted.
    pub(super) records: OrdMap<Arc<str>, Option<Record>>,
    /// The [keys](entry_key) of entries that were inserted into an index.
    pub(super) inserted: OrdSet<Arc<str>>,
    /// The keys of entries that were removed from an index: their tombstones.
    pub(super) removed: OrdSet<Arc<str>>,
    /// The counters that were incremented, after their increments.
    pub(super) counters: OrdMap<Arc<str>, i64>,
    /// The last version that was given to a record.
    pub(super) last_version: u64,
    /// The greatest time that was reported, in milliseconds since 1970 UTC.
    pub(super) time: u64,
}

/// An index and one of its entries in one text. These texts sort as the pairs do, since no index has the character 0 in its name.
pub(super) fn entry_key(index: &str, entry: &str) -> String {
    [index, "\0", entry].concat()
}

impl Memtable {
    /// The memtable of the next generation, in which nothing has changed yet.
    pub(super) fn next(&self) -> Self {
        Self { last_version: self.last_version, time: self.time, ..Self::default() }
    }

    /// The entries of `range` that were inserted. The search begins at `from` instead of at the beginning of the range.
    pub(super) fn entries(&self, range: &Range, from: &str) -> impl Iterator<Item = String> + use<'_> {
        let until = match &range.until {
            Some(until) => entry_key(&range.index, until),
            // The first text after all that begin with the index's name and the character 0.
            None => [&range.index, "\u{1}"].concat(),
        };
        let from = entry_key(&range.index, from).min(until.clone());
        let bounds = (Bound::Included(from.as_str()), Bound::Excluded(until.as_str()));
        let (mut keys, order) = (self.inserted.range::<_, str>(bounds), range.order);
        let index_bytes = range.index.len() + 1;
        let next = move || match order {
            Order::Ascending => keys.next(),
            Order::Descending => keys.next_back(),
        };
        std::iter::from_fn(next).map(move |key| key[index_bytes..].to_owned())
    }

    /// Whether the entry with this key was inserted or removed.
    pub(super) fn knows(&self, entry_key: &str) -> bool {
        self.inserted.contains(entry_key) || self.removed.contains(entry_key)
    }
}
