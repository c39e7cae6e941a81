//! Loading tasks together with their jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sortinghat_proto::{JobId, TaskId};

use super::decoded::DecodedJobs;
use crate::{
    engine::{
        error::EngineError,
        records::{Failures, JobRecord, Records, ShardsRecord, TaskRecord, Versioned, decode_readable, keys},
    },
    queue::Role,
    store::Record,
};

/// A task and its job, as read.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) job: Versioned<JobRecord>,
    /// Present if the task is a shard. Any other task is the one in the job's record.
    pub(crate) shard: Option<LoadedShard>,
}

/// A shard, as read.
#[derive(Debug, Clone)]
pub(crate) struct LoadedShard {
    pub(crate) task: Versioned<TaskRecord>,
    /// The record that all shards of the job share.
    pub(crate) shards_record: Versioned<ShardsRecord>,
}

impl Loaded {
    /// The task.
    pub(crate) fn task(&self) -> &TaskRecord {
        self.shard.as_ref().map_or(&self.job.value.progress.task, |shard| &shard.task.value)
    }

    /// The task's id.
    pub(crate) fn id(&self) -> &TaskId {
        &self.task().task.id
    }

    /// Whether the task is a shard whose job is being stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shard.as_ref().is_some_and(|shard| shard.shards_record.value.stop.is_some())
    }
}

/// Loads and commits tasks together with their jobs.
pub(crate) struct TaskStore {
    pub(super) records: Records,
    /// The cache of decoded jobs. Nothing outside this room needs to know of it.
    pub(super) decoded: DecodedJobs,
}

/// Arranges tasks by their ids.
pub(crate) fn by_id(loaded: Vec<Loaded>) -> HashMap<TaskId, Loaded> {
    loaded.into_iter().map(|loaded| (loaded.id().clone(), loaded)).collect()
}

impl TaskStore {
    /// Reads tasks with their jobs, in the order of `ids`, and each task once. Tasks that do not exist are left out.
    pub(crate) async fn load(&self, ids: &[TaskId]) -> Result<Vec<Loaded>, EngineError> {
        let mut failures = Failures::default();
        let loaded = self.load_readable(ids, &mut failures).await?;
        failures.or(loaded)
    }

    /// The same, but a task that cannot be decoded is recorded as a failure and left out, so that the other tasks can be processed.
    pub(crate) async fn load_readable(
        &self,
        ids: &[TaskId],
        failures: &mut Failures,
    ) -> Result<Vec<Loaded>, EngineError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // Many of the tasks may be shards of one job, so each job is read once.
        let named: BTreeSet<&JobId> = ids.iter().map(TaskId::job).collect();
        let keys: Vec<String> = named.iter().map(|job| keys::job(job)).collect();
        let found = self.records.store.read(&keys).await?;
        let mut jobs: BTreeMap<&JobId, Versioned<JobRecord>> = BTreeMap::new();
        for (id, (key, record)) in named.into_iter().zip(keys.iter().zip(found)) {
            let Some(Record { version, value }) = record else { continue };
            let job = self.decoded.decode(id, key, &value);
            if let Some(value) = failures.pass(job.map(Some))? {
                jobs.insert(id, Versioned { version, value });
            }
        }
        let is_shard =
            |id: &&TaskId| jobs.get(id.job()).is_some_and(|job| matches!(job.value.role(id), Role::Shard(_)));
        let mut shards = self.load_shards(ids.iter().filter(is_shard).collect(), failures).await?;
        let loaded = ids.iter().filter_map(|id| {
            let job = jobs.get(id.job())?;
            match shards.remove(id) {
                Some(shard) => Some(Loaded { job: job.clone(), shard: Some(shard) }),
                None if job.value.progress.task.task.id != *id => None,
                None if job.value.progress.shards.is_some() => Some(Loaded { job: job.clone(), shard: None }),
                None => Some(Loaded { job: jobs.remove(id.job())?, shard: None }),
            }
        });
        Ok(loaded.collect())
    }

    async fn load_shards<'i>(
        &self,
        ids: Vec<&'i TaskId>,
        failures: &mut Failures,
    ) -> Result<BTreeMap<&'i TaskId, LoadedShard>, EngineError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let jobs: BTreeSet<&JobId> = ids.iter().map(|id| id.job()).collect();
        let keys = ids.iter().map(|id| keys::shard(id)).chain(jobs.iter().map(|job| keys::shards(job)));
        let keys: Vec<String> = keys.collect();
        let mut tasks = self.records.store.read(&keys).await?;
        let shards_record = decode_readable::<ShardsRecord>(&keys[ids.len()..], tasks.split_off(ids.len()), failures)?;
        let shards_record: BTreeMap<&JobId, Option<Versioned<ShardsRecord>>> =
            jobs.into_iter().zip(shards_record).collect();
        let tasks = decode_readable::<TaskRecord>(&keys, tasks, failures)?;
        let both = |(id, task): (&'i TaskId, Option<_>)| {
            let shards_record = shards_record.get(id.job()).cloned().flatten()?;
            Some((id, LoadedShard { task: task?, shards_record }))
        };
        Ok(ids.into_iter().zip(tasks).filter_map(both).collect())
    }
}
