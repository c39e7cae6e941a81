//! Merges batches that do not depend on each other. The script then checks each record, changes each index and adds to each counter once,
//! however many batches do so, which takes much less of its time.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    layout::{self, Layout},
    packed::Packed,
};
use crate::store::{Batch, Expectation, Verdict};

/// Batches with the same result whether they are applied one after the other or, if all their checks hold, together. There is at least one.
#[derive(Default)]
pub(super) struct Merged<'b> {
    /// The batches with their places in the group.
    batches: Vec<(usize, &'b Batch)>,
    checks: Vec<Check<'b>>,
    places_of_checks: HashMap<(&'b str, Expectation), usize>,
    /// The records that are written or deleted.
    changed: HashSet<&'b str>,
    /// The moves by index and entry. If a batch names an entry twice, the last move holds.
    moves: HashMap<&'b str, HashMap<&'b str, Move>>,
    /// The sum that is added to each counter.
    sums: Vec<(&'b str, i64)>,
    places_of_sums: HashMap<&'b str, usize>,
    topics: BTreeSet<&'b Arc<str>>,
}

/// A check, and the batches that rely on it.
struct Check<'b> {
    key: &'b str,
    expectation: Expectation,
    batches: Vec<usize>,
}

/// What happens to an entry of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Remove,
    Insert,
}

/// What the script replies for merged batches.
pub(super) enum Outcome {
    /// All are applied. These were the values of the counters before, in the order of the increments.
    Applied(Vec<i64>),
    /// The checks at these places do not hold, and no batch is applied.
    Failed(Vec<usize>),
}

impl<'b> Merged<'b> {
    /// Merges successive batches as far as they allow it, at most `most` of them together.
    pub(super) fn all(batches: impl IntoIterator<Item = (usize, &'b Batch)>, most: usize) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (place, batch) in batches {
            match all.last_mut().filter(|last| last.batches.len() < most && last.admits(batch)) {
                Some(last) => last.add(place, batch),
                None => {
                    let mut next = Self::default();
                    next.add(place, batch);
                    all.push(next);
                }
            }
        }
        all
    }

    /// Whether a batch has the same result together with these batches as after them.
    fn admits(&self, batch: &Batch) -> bool {
        let agrees = |(index, entry, move_): (&str, &str, Move)| {
            self.moves.get(index).and_then(|entries| entries.get(entry)).is_none_or(|other| *other == move_)
        };
        batch.checks.iter().all(|(key, _)| !self.changed.contains(key.as_str()))
            && moves(batch).all(agrees)
            && are_small(batch)
            // The first batch was not admitted by this function, so it is checked here; all later ones were.
            && self.batches.first().is_none_or(|(_, first)| are_small(first))
    }

    fn add(&mut self, place: usize, batch: &'b Batch) {
        let number = self.batches.len();
        self.batches.push((place, batch));
        for (key, expectation) in &batch.checks {
            let place = *self.places_of_checks.entry((key, *expectation)).or_insert_with(|| {
                self.checks.push(Check { key, expectation: *expectation, batches: Vec::new() });
                self.checks.len() - 1
            });
            self.checks[place].batches.push(number);
        }
        self.changed.extend(batch.writes.iter().map(|(key, _)| key).chain(&batch.deletes).map(String::as_str));
        for (index, entry, move_) in moves(batch) {
            self.moves.entry(index).or_default().insert(entry, move_);
        }
        for (counter, amount) in &batch.increments {
            let place = *self.places_of_sums.entry(counter).or_insert_with(|| {
                self.sums.push((counter, 0));
                self.sums.len() - 1
            });
            let (_, sum) = &mut self.sums[place];
            *sum = sum.saturating_add(*amount);
        }
        self.topics.extend(&batch.topics);
    }

    /// Whether there is only one batch.
    pub(super) fn is_single(&self) -> bool {
        self.batches.len() == 1
    }

    /// How many records the batches write.
    pub(super) fn writes(&self) -> usize {
        self.batches.iter().map(|(_, batch)| batch.writes.len()).sum()
    }

    /// Packs the batches in the form that the head of the script describes.
    pub(super) fn pack(&self, layout: &Layout, packed: &mut Packed) {
        packed.list(7);
        packed.list(2 * self.checks.len());
        for Check { key, expectation, .. } in &self.checks {
            packed.text(&layout.record(key)).text(&layout::expected(*expectation));
        }
        packed.list(2 * self.writes());
        for (key, value) in self.batches.iter().flat_map(|(_, batch)| &batch.writes) {
            packed.text(&layout.record(key)).bytes(value);
        }
        packed.list(self.batches.iter().map(|(_, batch)| batch.deletes.len()).sum());
        for key in self.batches.iter().flat_map(|(_, batch)| &batch.deletes) {
            packed.text(&layout.record(key));
        }
        packed.list(3 * self.moves.len());
        for (index, entries) in &self.moves {
            let entries_that = |what| entries.iter().filter(move |(_, move_)| **move_ == what).map(|(entry, _)| *entry);
            packed.text(&layout.index(index));
            packed.list(entries_that(Move::Remove).count());
            for entry in entries_that(Move::Remove) {
                packed.text(entry);
            }
            packed.list(2 * entries_that(Move::Insert).count());
            for entry in entries_that(Move::Insert) {
                packed.text("0").text(entry);
            }
        }
        let increments = self.increments();
        packed.list(2 * increments.len());
        for (counter, amount) in increments {
            packed.text(&layout.counter(counter));
            if self.is_single() {
                packed.text(&amount.to_string())
            } else {
                packed.number(amount)
            };
        }
        packed.list(self.topics.len());
        for topic in &self.topics {
            packed.text(topic);
        }
        packed.number(self.batches.len() as i64);
    }

    /// The amounts that are added to counters. Those of a single batch are not summed up, as they may be large, and the counter may reach a
    /// bound in between.
    fn increments(&self) -> Vec<(&'b str, i64)> {
        match self.batches.as_slice() {
            [(_, single)] => single.increments.iter().map(|(counter, amount)| (counter.as_str(), *amount)).collect(),
            _ => self.sums.clone(),
        }
    }

    /// The verdicts that the outcome decides, with the places of their batches in the group.
    pub(super) fn verdicts(&self, outcome: Outcome) -> Vec<(usize, Verdict)> {
        match outcome {
            Outcome::Applied(before) => {
                let mut counters = HashMap::new();
                for ((counter, _), before) in self.increments().into_iter().zip(before) {
                    counters.entry(counter).or_insert(before);
                }
                let applied = self.batches.iter().map(|(place, batch)| {
                    let after = batch.increments.iter().map(|(counter, amount)| {
                        let value = counters.entry(counter.as_str()).or_default();
                        *value = value.saturating_add(*amount);
                        *value
                    });
                    (*place, Verdict::Applied(after.collect()))
                });
                applied.collect()
            }
            Outcome::Failed(checks) => {
                let failed = checks.into_iter().filter_map(|place| self.checks.get(place));
                let batches: BTreeSet<usize> = failed.flat_map(|check| check.batches.iter().copied()).collect();
                batches.into_iter().map(|number| (self.batches[number].0, Verdict::Conflict)).collect()
            }
        }
    }
}

/// The entries that a batch removes and inserts, in this order.
fn moves(batch: &Batch) -> impl Iterator<Item = (&str, &str, Move)> {
    let removals = batch.removals.iter().map(|(index, entry)| (index.as_str(), entry.as_str(), Move::Remove));
    removals.chain(batch.insertions.iter().map(|(index, entry)| (index.as_str(), entry.as_str(), Move::Insert)))
}

/// Whether a batch's amounts are so small that the amounts of all batches of a call can be added up in any order without an overflow.
fn are_small(batch: &Batch) -> bool {
    batch.increments.iter().all(|(_, amount)| i32::try_from(*amount).is_ok())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn write(key: &str) -> Batch {
        Batch {
            checks: vec![(key.to_owned(), Expectation::Version(1)), ("read".to_owned(), Expectation::Absent)],
            writes: vec![(key.to_owned(), Bytes::new())],
            ..Batch::default()
        }
    }

    fn sizes(batches: &[Batch], most: usize) -> Vec<usize> {
        Merged::all(batches.iter().enumerate(), most).iter().map(|merged| merged.batches.len()).collect()
    }

    #[test]
    fn batches_are_merged_until_one_depends_on_another() {
        assert_eq!(sizes(&[write("a"), write("b"), write("c")], 9), [3], "reading the same record is no dependency");
        assert_eq!(sizes(&[write("a"), write("b"), write("c")], 2), [2, 1]);
        assert_eq!(
            sizes(&[write("a"), write("a"), write("b")], 9),
            [1, 2],
            "the second batch sees what the first one wrote"
        );
        assert_eq!(sizes(&[write("a"), write("read")], 9), [2], "a record may be read first and written then");
        assert_eq!(
            sizes(&[write("read"), write("a")], 9),
            [1, 1],
            "a record that was written first cannot be read then"
        );
        let entry = || vec![("index".to_owned(), "entry".to_owned())];
        let (inserts, removes) =
            (|key| Batch { insertions: entry(), ..write(key) }, |key| Batch { removals: entry(), ..write(key) });
        assert_eq!(sizes(&[inserts("a"), inserts("b")], 9), [2]);
        assert_eq!(sizes(&[inserts("a"), removes("b")], 9), [1, 1], "the last move holds");
        let adds = |key, amount| Batch { increments: vec![("count".to_owned(), amount)], ..write(key) };
        assert_eq!(sizes(&[adds("a", 1), adds("b", -1), adds("c", i64::MAX), adds("d", 1)], 9), [2, 1, 1]);
    }

    #[test]
    fn a_check_that_fails_is_a_conflict_of_the_batches_that_rely_on_it() {
        let batches = [write("a"), write("b"), write("c")];
        let merged = Merged::all(batches.iter().enumerate().skip(1), 9).remove(0);
        let place_of = |key| merged.checks.iter().position(|check| check.key == key).expect("it is checked");
        let conflict = |place| (place, Verdict::Conflict);
        assert_eq!(merged.verdicts(Outcome::Failed(vec![place_of("c")])), [conflict(2)]);
        assert_eq!(merged.verdicts(Outcome::Failed(vec![place_of("read")])), [conflict(1), conflict(2)]);
    }
}
