//! How a job that is too large for one task is divided, and the roles of its tasks.

use std::{num::NonZeroU64, ops::Range};

use serde::{Deserialize, Serialize};
use sortinghat_proto::limits::MAX_SHARDS_PER_JOB;

/// The division of a job's items into shards of equal length, of which the last may be shorter. It follows from two numbers, whatever the
/// workers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Division {
    items: u64,
    shard_items: NonZeroU64,
}

/// The role of a task in its job. It follows from the task's index: the whole comes first, then the shards, then the finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The task does the whole job, or finds that the job has to be divided.
    Whole,
    /// The task does the shard with this number, counted from 0.
    Shard(u32),
    /// The task joins the outputs of the shards, once every shard has succeeded.
    Finish,
}

impl Division {
    /// Divides `items` into shards of `shard_items`, or of more if there would be too many shards.
    pub fn new(items: u64, shard_items: NonZeroU64) -> Self {
        let least = NonZeroU64::new(items.div_ceil(u64::from(MAX_SHARDS_PER_JOB))).unwrap_or(NonZeroU64::MIN);
        Self { items, shard_items: shard_items.max(least) }
    }

    /// The number of items.
    pub fn items(self) -> u64 {
        self.items
    }

    /// The number of shards, at least one.
    pub fn shards(self) -> u32 {
        let shards = self.items.div_ceil(self.shard_items.get()).max(1);
        u32::try_from(shards).expect("shards are so long that there are few")
    }

    /// The items of a shard, counted from 0.
    pub fn range(self, shard: u32) -> Range<u64> {
        let at = |shard: u64| (shard * self.shard_items.get()).min(self.items);
        at(u64::from(shard))..at(u64::from(shard) + 1)
    }

    /// The index of a shard's task.
    pub fn shard_index(self, shard: u32) -> u32 {
        shard + 1
    }

    /// The index of the finish, which is the last task.
    pub fn finish_index(self) -> u32 {
        self.shards() + 1
    }
}

impl Role {
    /// The role of the task with this index in a job with this division, or without one.
    pub fn of(index: u32, division: Option<Division>) -> Self {
        match division {
            Some(division) if index == division.finish_index() => Self::Finish,
            Some(_) if index > 0 => Self::Shard(index - 1),
            Some(_) | None => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_item_is_in_exactly_one_shard(items in 1..3_000_000_u64, shard_items in 1..5_000_u64) {
            let division = Division::new(items, NonZeroU64::new(shard_items).expect("not 0"));
            prop_assert!(division.shards() <= MAX_SHARDS_PER_JOB);
            let mut next = 0;
            for shard in 0..division.shards() {
                let range = division.range(shard);
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty());
                next = range.end;
            }
            prop_assert_eq!(next, items);
        }
    }

    #[test]
    fn the_index_says_what_a_task_does() {
        let division = Division::new(10, NonZeroU64::new(4).expect("not 0"));
        let roles: Vec<Role> = (0..5).map(|index| Role::of(index, Some(division))).collect();
        assert_eq!(roles, [Role::Whole, Role::Shard(0), Role::Shard(1), Role::Shard(2), Role::Finish]);
        assert_eq!(Role::of(0, None), Role::Whole);
        assert_eq!(division.range(2), 8..10);
    }
}
