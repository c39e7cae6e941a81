//! Low-water marks of indexes. A queue is emptied from its front, so that every scan would pass over thousands of tombstones until the next
//! checkpoint; it begins at the mark instead.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::store::Range;

/// The low-water marks of one source of entries, by index: a newer memtable has changed every entry of the source below the mark.
#[derive(Debug, Default)]
pub(super) struct LowMarks(Mutex<HashMap<String, LowMark>>);

#[derive(Debug)]
struct LowMark {
    entry: String,
    /// The mark holds for views of this commit and of later ones.
    commit: u64,
}

impl LowMarks {
    /// The entry at which a scan of the range may begin, in a view of this commit.
    pub(super) fn start(&self, range: &Range, commit: u64) -> String {
        let marks = self.0.lock();
        let known = marks.get(&range.index).filter(|mark| mark.commit <= commit && mark.entry > range.from);
        known.map_or(&range.from, |mark| &mark.entry).clone()
    }

    /// Raises the index's mark to `entry`, after a scan has found every entry between the beginning of the range and `entry` changed.
    /// Nothing happens if the scan began behind the mark, as the entries in between are unknown.
    pub(super) fn raise(&self, range: &Range, entry: &str, commit: u64) {
        let mut marks = self.0.lock();
        let is_further = match marks.get(&range.index) {
            Some(mark) => range.from <= mark.entry && mark.entry.as_str() < entry,
            None => range.from.is_empty(),
        };
        if is_further {
            marks.insert(range.index.clone(), LowMark { entry: entry.to_owned(), commit });
        }
    }
}
