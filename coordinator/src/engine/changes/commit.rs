//! Prepared changes, and their commit.

use bytes::Bytes;
use metrics::Counter;

use super::{
    loaded::{Loaded, TaskStore},
    shards::LastShard,
};
use crate::{
    engine::{
        error::EngineError,
        records::{JobRecord, TaskRecord},
    },
    store::{Batch, Verdict},
};

/// A change that is ready to be committed, and what follows once it is applied.
pub(crate) struct Prepared {
    pub(crate) batch: Batch,
    /// The task and its job once the change is applied.
    pub(crate) after: Holding,
    /// The bytes of the job's record, if the change writes it.
    pub(crate) written: Option<Bytes>,
    pub(super) counters: Vec<Counter>,
    /// A shard that may be the last one of its job to end.
    pub(crate) last_shard: Option<LastShard>,
}

/// A task and its job.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) job: Box<JobRecord>,
    /// Present if the task is a shard. Any other task is the one in the job's record.
    pub(crate) shard: Option<Box<TaskRecord>>,
}

impl Holding {
    /// The task.
    pub(crate) fn task(&self) -> &TaskRecord {
        self.shard.as_deref().unwrap_or(&self.job.progress.task)
    }
}

impl Prepared {
    /// To be called once the batch is known to be applied, with the counters after its increments. Counts the change in the metrics, and
    /// keeps `last_shard` only if the shard was indeed the last one.
    pub(crate) fn applied(mut self, counters: &[i64]) -> Self {
        self.counters.iter().for_each(|counter| counter.increment(1));
        self.last_shard = self.last_shard.filter(|last| last.is_last(counters));
        self
    }
}

impl From<Loaded> for Holding {
    fn from(loaded: Loaded) -> Self {
        Self { job: loaded.job.value, shard: loaded.shard.map(|shard| shard.task.value) }
    }
}

impl TaskStore {
    /// Commits independent changes. Returns for each change the task and its job as they are now, or `None` if the change is not known to
    /// be applied. Also returns the changes that have ended the last shard of a job.
    pub(super) async fn apply_all(
        &self,
        mut prepared: Vec<Prepared>,
    ) -> Result<(Vec<Option<Holding>>, Vec<LastShard>), EngineError> {
        if prepared.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let batches = prepared.iter_mut().map(|prepared| std::mem::take(&mut prepared.batch)).collect();
        let verdicts = self.records.store.apply(batches).await?;
        let mut last_shards = Vec::new();
        let applied = prepared.into_iter().zip(verdicts).map(|(prepared, verdict)| match verdict {
            Verdict::Applied(counters) => {
                let applied = prepared.applied(&counters);
                last_shards.extend(applied.last_shard);
                if let Some(bytes) = applied.written.filter(|_| applied.after.task().task.lease().is_some()) {
                    self.decoded.note(bytes, applied.after.job.clone());
                }
                Some(applied.after)
            }
            Verdict::Conflict | Verdict::Unknown => None,
        });
        Ok((applied.collect(), last_shards))
    }
}
