//! What a task has to do of its job: a job that is too large for one task runs in shards, and a last task joins them.

use std::ops::Range;

use sortinghat_proto::{ObjectRef, words::count};

use super::{assignment::Part, context::JobContext, error::JobError};

/// What a task has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Nothing but to say how many items there are.
    TooLarge {
        /// How many.
        items: u64,
    },
    /// To work these items through.
    Items(Range<usize>),
    /// To join what the shards made, in this order.
    Join(&'a [ObjectRef]),
}

impl JobContext {
    /// What this task has to do of a job of so many photos. The number must be the same in every task of the job.
    ///
    /// # Errors
    /// [`JobError::Internal`] if the task is a range of other photos.
    pub(crate) fn scope(&self, photos: usize) -> Result<Scope<'_>, JobError> {
        let items = photos as u64;
        match &self.task().part {
            Part::Whole { max_items: Some(max) } if items > *max => {
                self.inform(format!("{} photos are divided into parts of {}", count(items), count(*max)));
                Ok(Scope::TooLarge { items })
            }
            Part::Whole { .. } => Ok(Scope::Items(0..photos)),
            Part::Shard(range) if range.start < range.end && range.end <= items => {
                // Not above the number of photos, which is one of this type.
                Ok(Scope::Items(range.start as usize..range.end as usize))
            }
            Part::Shard(range) => Err(JobError::Internal(format!("photos {range:?} are not among {items}"))),
            Part::Finish(shards) => Ok(Scope::Join(shards)),
        }
    }
}
