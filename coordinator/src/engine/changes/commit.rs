//! Changes that are ready to be applied, and applying them.

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

/// A change that can be applied, and what follows once it was.
pub(crate) struct Prepared {
    pub(crate) batch: Batch,
    /// What there is once it is applied.
    pub(crate) after: Holding,
    /// The job's record then, if it is written.
    pub(crate) written: Option<Bytes>,
    pub(super) counters: Vec<Counter>,
    /// A shard that may be the last one of its job to end.
    pub(crate) last_shard: Option<LastShard>,
}

/// A task and its job.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) job: Box<JobRecord>,
    /// If the task is a shard; else it is the one in the job's record.
    pub(crate) shard: Option<Box<TaskRecord>>,
}

impl Holding {
    /// The task.
    pub(crate) fn task(&self) -> &TaskRecord {
        self.shard.as_deref().unwrap_or(&self.job.progress.task)
    }
}

impl Prepared {
    /// The batch is known to be applied, with these counters: counts it, and names the last shard only if it was the last one.
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
    /// Applies independent changes. Returns for each change the task and its job as they are now, if the change is known to be applied,
    /// and which changes ended the last shard of a job.
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
