//! What a task has to do of its job. A job that is too large for one task is divided: a task for each range of its items, and a last
//! task that joins what they made.

use std::ops::Range;

use sortinghat_proto::{ObjectRef, words::count};

use super::{assignment::Part, context::JobContext, error::JobError, outcome::Done};

/// What a task has to do of its job. Each job kind that can be divided matches it once.
#[derive(Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Only to count the items: the job has too many of them for one task.
    TooLarge(TooLarge),
    /// The whole job.
    Whole,
    /// Some of the items; what the task makes of them is stored for the task that joins.
    Range(Range<usize>),
    /// To make the job's result from what the tasks of the ranges have stored, in the order of the items.
    Join(&'a [ObjectRef]),
}

/// A job that must be divided.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge {
    items: u64,
    max_items: u64,
}

impl TooLarge {
    /// Tells the user that the job is divided; returns the end of the task, which asks the coordinator to divide the job.
    pub fn counted(self, context: &JobContext) -> Done {
        let Self { items, max_items } = self;
        context.inform(format!("{} photos are divided into parts of {}", count(items), count(max_items)));
        Done::Counted { items }
    }
}

impl JobContext {
    /// What this task has to do of a job of so many photos. The number must be the same in every task of the job.
    ///
    /// # Errors
    /// [`JobError::Internal`] if the task is a range that reaches beyond these photos.
    pub fn scope(&self, photos: usize) -> Result<Scope<'_>, JobError> {
        let items = photos as u64;
        match &self.task().part {
            Part::Whole { max_items: Some(max_items) } if items > *max_items => {
                Ok(Scope::TooLarge(TooLarge { items, max_items: *max_items }))
            }
            Part::Whole { .. } => Ok(Scope::Whole),
            Part::Shard(range) if range.start < range.end && range.end <= items => {
                // Neither end exceeds the number of photos, which is a usize.
                Ok(Scope::Range(range.start as usize..range.end as usize))
            }
            Part::Shard(range) => Err(JobError::Internal(format!("photos {range:?} are not among {items}"))),
            Part::Finish(shards) => Ok(Scope::Join(shards)),
        }
    }
}
