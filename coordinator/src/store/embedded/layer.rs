//! What was committed lately, in memory; a copy of it costs nothing and never changes.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use super::changes::Changes;
use crate::store::{Order, Range, Record};

/// All that the commits of one generation of the log have changed, once each.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    /// `None` for records that were deleted.
    pub(super) records: OrdMap<Arc<str>, Option<Record>>,
    /// Entries that an index holds, as [`place`] writes them.
    pub(super) inserted: OrdSet<Arc<str>>,
    /// Entries that an index does not hold.
    pub(super) removed: OrdSet<Arc<str>>,
    pub(super) counters: OrdMap<Arc<str>, i64>,
    /// The last version that was given to a record.
    pub(super) last_version: u64,
    /// The greatest time that was told, in milliseconds since 1970 UTC.
    pub(super) time: u64,
}

/// An index and an entry in one text, which sorts as the two do: no index has the character 0 in its name.
pub(super) fn place(index: &str, entry: &str) -> String {
    [index, "\0", entry].concat()
}

impl Layer {
    /// The next one, in which nothing has changed yet.
    pub(super) fn next(&self) -> Self {
        Self { last_version: self.last_version, time: self.time, ..Self::default() }
    }

    /// Makes these changes.
    pub(super) fn absorb(&mut self, changes: &Changes<'_>) {
        for (key, record) in &changes.records {
            let record =
                record.map(|written| Record { version: written.version, value: Bytes::copy_from_slice(written.value) });
            self.records.insert((*key).into(), record);
        }
        for ((index, entry), holds) in &changes.entries {
            let place: Arc<str> = place(index, entry).into();
            let (to, from) = match holds {
                true => (&mut self.inserted, &mut self.removed),
                false => (&mut self.removed, &mut self.inserted),
            };
            from.remove(&place);
            to.insert(place);
        }
        for (key, count) in &changes.counters {
            self.counters.insert((*key).into(), *count);
        }
        self.last_version = changes.last_version;
        self.time = changes.time;
    }

    /// What of a part of an index was inserted, from another entry on than the range's.
    pub(super) fn entries(&self, range: &Range, from: &str) -> impl Iterator<Item = String> + use<'_> {
        let until = match &range.until {
            Some(until) => place(&range.index, until),
            // The first text after all that begin with the index's name and the character 0.
            None => [&range.index, "\u{1}"].concat(),
        };
        let from = place(&range.index, from).min(until.clone());
        let bounds = (Bound::Included(from.as_str()), Bound::Excluded(until.as_str()));
        let (mut places, order) = (self.inserted.range::<_, str>(bounds), range.order);
        let index_bytes = range.index.len() + 1;
        let next = move || match order {
            Order::Ascending => places.next(),
            Order::Descending => places.next_back(),
        };
        std::iter::from_fn(next).map(move |place| place[index_bytes..].to_owned())
    }

    /// Whether an entry was inserted or removed.
    pub(super) fn knows(&self, place: &str) -> bool {
        self.inserted.contains(place) || self.removed.contains(place)
    }
}
