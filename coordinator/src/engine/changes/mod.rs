//! Changes of tasks and their jobs: read both, apply an event by the rules, and commit everything that follows as one batch.
//!
//! [`TaskStore`] loads tasks as [`Loaded`]. A [`Change`] turns events into a [`Prepared`] batch. [`Changes`] commits such batches, and a
//! [`JointCommit`] commits batches of two origins in one call of the store. [`Settling`] carries the results of shards over to their
//! divided job.
//!
//! The room owns one table, the decoded jobs. It is a cache, and only [`TaskStore`] knows of it.

mod adoption;
mod change;
mod commit;
mod decoded;
mod history;
mod joint;
mod ledger;
mod loaded;
mod place;
mod settle;
mod shards;

use std::sync::Arc;

use super::{context::Context, error::EngineError, records::Records};

use decoded::DecodedJobs;

pub(crate) use change::{Change, Reservation};
pub(crate) use commit::{Holding, Prepared};
pub(crate) use joint::JointCommit;
pub(crate) use loaded::{Loaded, TaskStore, by_id};
pub(crate) use place::{open_queue, reserve_queue};
pub(crate) use settle::Settling;

/// Loads tasks and commits changes to them.
pub(crate) struct Changes {
    pub(crate) tasks: Arc<TaskStore>,
    pub(crate) settling: Settling,
}

impl Changes {
    /// Creates the room over these records.
    pub(crate) fn new(context: Arc<Context>, records: Records) -> Self {
        let tasks = Arc::new(TaskStore { records: records.clone(), decoded: DecodedJobs::default() });
        Self { settling: Settling { context, records, tasks: tasks.clone() }, tasks }
    }

    /// Commits a change; `true` if it is known to be applied. After `false` the caller reads again.
    pub(crate) async fn commit(&self, prepared: Prepared) -> Result<bool, EngineError> {
        Ok(self.commit_all(vec![prepared]).await?.iter().all(Option::is_some))
    }

    /// Commits independent changes. Returns for each change the task and its job as they are now, or `None` if the change is not known to
    /// be applied. If a change ends the last shard of a job, the job is settled here, too. If that fails, a sweep settles the job.
    pub(crate) async fn commit_all(&self, prepared: Vec<Prepared>) -> Result<Vec<Option<Holding>>, EngineError> {
        let (applied, last_shards) = self.tasks.apply_all(prepared).await?;
        for last in last_shards {
            self.settling.settle_briefly(&last.job).await;
        }
        Ok(applied)
    }
}
