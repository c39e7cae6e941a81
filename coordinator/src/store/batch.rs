//! Atomic batches: checks, and the changes that are made if all checks hold.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::StoreError;

/// The most operations in one batch: its checks, writes, deletions, index changes and increments together.
pub const MAX_BATCH_OPERATIONS: usize = 2_000;
/// The most bytes in one batch: its keys, entries and values together.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// What a batch expects of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// The record does not exist.
    Absent,
    /// The record has this version.
    Version(u64),
}

/// Changes that are made together if every check holds, and otherwise not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records that must be as they were read, whether the batch changes them or not.
    pub checks: Vec<(String, Expectation)>,
    /// Records to write.
    pub writes: Vec<(String, Bytes)>,
    /// Records to delete.
    pub deletes: Vec<String>,
    /// Index entries to remove, as (index, entry). They are removed before entries are inserted.
    pub removals: Vec<(String, String)>,
    /// Index entries to insert, as (index, entry).
    pub insertions: Vec<(String, String)>,
    /// Counters to increment, as (key, amount). A counter that is 0 afterwards takes no space.
    pub increments: Vec<(String, i64)>,
    /// The topics of hints that are sent once the batch is applied, each a line of text.
    pub topics: Vec<Arc<str>>,
}

impl Batch {
    /// Checks the rules that every store relies on.
    ///
    /// At least one checked record is written or deleted, so that a batch that is sent again cannot be applied twice. Every record
    /// that is written or deleted is checked. No record is named twice among writes and deletions. No index has the character 0 in its
    /// name, and a topic is one line. The limits hold.
    pub fn validate(&self) -> Result<(), StoreError> {
        let malformed = |reason: String| Err(StoreError::Malformed { reason });
        let checked: BTreeSet<&str> = self.checks.iter().map(|(key, _)| key.as_str()).collect();
        let mut changed = BTreeSet::new();
        for key in self.writes.iter().map(|(key, _)| key).chain(&self.deletes) {
            if !checked.contains(key.as_str()) {
                return malformed(format!("{key:?} is changed but not checked"));
            }
            if !changed.insert(key.as_str()) {
                return malformed(format!("{key:?} is changed twice"));
            }
        }
        if changed.is_empty() {
            return malformed("no checked record is changed, so it could be applied twice".to_owned());
        }
        if let Some((index, _)) = self.removals.iter().chain(&self.insertions).find(|(index, _)| index.contains('\0')) {
            return malformed(format!("the index {index:?} has the character 0 in its name"));
        }
        if let Some(topic) = self.topics.iter().find(|topic| topic.is_empty() || topic.contains(char::is_control)) {
            return malformed(format!("the topic {topic:?} is not a line of text"));
        }
        if self.operations() > MAX_BATCH_OPERATIONS {
            return malformed(format!("{} operations are more than {MAX_BATCH_OPERATIONS}", self.operations()));
        }
        if self.bytes() > MAX_BATCH_BYTES {
            return malformed(format!("{} bytes are more than {MAX_BATCH_BYTES}", self.bytes()));
        }
        Ok(())
    }

    /// How many operations the batch has.
    pub fn operations(&self) -> usize {
        self.checks.len()
            + self.writes.len()
            + self.deletes.len()
            + self.removals.len()
            + self.insertions.len()
            + self.increments.len()
    }

    /// How many bytes its keys, entries and values have.
    pub fn bytes(&self) -> usize {
        let checks: usize = self.checks.iter().map(|(key, _)| key.len()).sum();
        let writes: usize = self.writes.iter().map(|(key, value)| key.len() + value.len()).sum();
        let deletes: usize = self.deletes.iter().map(String::len).sum();
        let moves: usize =
            self.removals.iter().chain(&self.insertions).map(|(index, entry)| index.len() + entry.len()).sum();
        let increments: usize = self.increments.iter().map(|(key, _)| key.len() + size_of::<i64>()).sum();
        checks + writes + deletes + moves + increments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_of(key: &str) -> Batch {
        Batch {
            checks: vec![(key.to_owned(), Expectation::Absent)],
            writes: vec![(key.to_owned(), Bytes::new())],
            ..Batch::default()
        }
    }

    #[test]
    fn a_batch_that_could_apply_twice_is_malformed() {
        let merely_read = Batch { writes: vec![], increments: vec![("n".into(), 1)], ..write_of("a") };
        assert!(merely_read.validate().is_err());
        assert!(Batch::default().validate().is_err());
        write_of("a").validate().expect("a checked write is well formed");
    }

    #[test]
    fn a_blind_write_and_a_double_write_are_malformed() {
        let blind = Batch { writes: vec![("a".into(), Bytes::new()), ("b".into(), Bytes::new())], ..write_of("a") };
        assert!(blind.validate().is_err());
        let double = Batch { deletes: vec!["a".into()], ..write_of("a") };
        assert!(double.validate().is_err());
    }

    #[test]
    fn an_index_with_the_character_0_in_its_name_is_malformed() {
        let index = vec![("a\0b".to_owned(), "entry".to_owned())];
        assert!(Batch { insertions: index.clone(), ..write_of("a") }.validate().is_err());
        assert!(Batch { removals: index, ..write_of("a") }.validate().is_err());
    }

    #[test]
    fn a_topic_that_is_not_one_line_is_malformed() {
        for topic in ["", "two\nlines"] {
            assert!(Batch { topics: vec![topic.into()], ..write_of("a") }.validate().is_err());
        }
    }

    #[test]
    fn a_batch_over_a_limit_is_malformed() {
        let value = Bytes::from(vec![0; MAX_BATCH_BYTES]);
        assert!(Batch { writes: vec![("a".into(), value)], ..write_of("a") }.validate().is_err());
        let increments = vec![("n".to_owned(), 1); MAX_BATCH_OPERATIONS];
        assert!(Batch { increments, ..write_of("a") }.validate().is_err());
    }
}
