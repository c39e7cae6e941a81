//! Reading records, and applying a batch.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::de::DeserializeOwned;
use sortinghat_proto::{JobId, Refusal, TaskId, Tenant};

use super::{
    Shared,
    change::{Holding, Prepared},
    failures::Failures,
    keys,
    records::{self, JobRecord, ShardsRecord, TaskRecord},
    shards::LastShard,
};
use crate::{
    queue::Role,
    store::{Batch, Expectation, Record, Verdict},
};

/// A record and the version that it was read with.
#[derive(Debug, Clone)]
pub(super) struct Versioned<T> {
    pub(super) version: u64,
    /// Boxed, as it goes through many hands.
    pub(super) value: Box<T>,
}

/// A task and its job, as read.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) job: Versioned<JobRecord>,
    /// If the task is a shard; else it is the one in the job's record.
    pub(super) shard: Option<LoadedShard>,
}

/// A shard, as read.
#[derive(Debug, Clone)]
pub(super) struct LoadedShard {
    pub(super) task: Versioned<TaskRecord>,
    /// What all shards of the job go by.
    pub(super) go_by: Versioned<ShardsRecord>,
}

impl From<Loaded> for Holding {
    fn from(loaded: Loaded) -> Self {
        Self { job: loaded.job.value, shard: loaded.shard.map(|shard| shard.task.value) }
    }
}

impl Loaded {
    /// The task.
    pub(super) fn task(&self) -> &TaskRecord {
        self.shard.as_ref().map_or(&self.job.value.task, |shard| &shard.task.value)
    }

    /// The task's id.
    pub(super) fn id(&self) -> &TaskId {
        &self.task().task.id
    }

    /// Whether it is a shard that shall not run any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.shard.as_ref().is_some_and(|shard| shard.go_by.value.stop.is_some())
    }
}

/// Decodes records of one type that were read by these keys. One that cannot be decoded is a failure, and there as little as one that does
/// not exist.
fn decode_readable<T: DeserializeOwned>(
    keys: &[String],
    records: Vec<Option<Record>>,
    failures: &mut Failures,
) -> Result<Vec<Option<Versioned<T>>>, Refusal> {
    let decoded = keys.iter().zip(records).map(|(key, record)| {
        let decode = |Record { version, value }| Ok(Versioned { version, value: records::decode(key, &value)? });
        failures.pass(record.map(decode).transpose())
    });
    decoded.collect()
}

/// What a batch must expect of a record that was read like this.
pub(super) fn expectation<T>(read: &Option<Versioned<T>>) -> Expectation {
    read.as_ref().map_or(Expectation::Absent, |record| Expectation::Version(record.version))
}

/// Tasks by their ids.
pub(super) fn by_id(loaded: Vec<Loaded>) -> HashMap<TaskId, Loaded> {
    loaded.into_iter().map(|loaded| (loaded.id().clone(), loaded)).collect()
}

impl Shared {
    /// Reads records of one type, in the order of `keys`.
    pub(super) async fn read_all<T: DeserializeOwned>(
        &self,
        keys: &[String],
    ) -> Result<Vec<Option<Versioned<T>>>, Refusal> {
        let mut failures = Failures::default();
        let records = self.read_readable(keys, &mut failures).await?;
        failures.or(records)
    }

    /// The same, where one that cannot be decoded counts as one that does not exist.
    pub(super) async fn read_readable<T: DeserializeOwned>(
        &self,
        keys: &[String],
        failures: &mut Failures,
    ) -> Result<Vec<Option<Versioned<T>>>, Refusal> {
        decode_readable(keys, self.store.read(keys).await?, failures)
    }

    /// Reads one record.
    pub(super) async fn read<T: DeserializeOwned>(&self, key: String) -> Result<Option<Versioned<T>>, Refusal> {
        Ok(self.read_all(&[key]).await?.pop().flatten())
    }

    /// Reads tasks with their jobs, in this order and each once; those that do not exist are left out.
    pub(super) async fn load(&self, ids: &[TaskId]) -> Result<Vec<Loaded>, Refusal> {
        let mut failures = Failures::default();
        let loaded = self.load_readable(ids, &mut failures).await?;
        failures.or(loaded)
    }

    /// The same without those that cannot be decoded: one of them is no reason to do nothing for the others.
    pub(super) async fn load_readable(&self, ids: &[TaskId], failures: &mut Failures) -> Result<Vec<Loaded>, Refusal> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // Many of them may be shards of one job.
        let named: BTreeSet<&JobId> = ids.iter().map(TaskId::job).collect();
        let keys: Vec<String> = named.iter().map(|job| keys::job(job)).collect();
        let found = self.store.read(&keys).await?;
        let mut jobs: BTreeMap<&JobId, Versioned<JobRecord>> = BTreeMap::new();
        for (id, (key, record)) in named.into_iter().zip(keys.iter().zip(found)) {
            let Some(Record { version, value }) = record else { continue };
            let job = self.written.take(id, &value).map_or_else(|| records::decode(key, &value), Ok);
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
                None if job.value.task.task.id != *id => None,
                None if job.value.shards.is_some() => Some(Loaded { job: job.clone(), shard: None }),
                None => Some(Loaded { job: jobs.remove(id.job())?, shard: None }),
            }
        });
        Ok(loaded.collect())
    }

    /// Reads tasks that a worker holds and does not report. One that cannot be decoded is found by a sweep once its lease is over, and
    /// until then is no reason to have no work for the worker.
    pub(super) async fn load_held(&self, ids: &[TaskId]) -> Result<Vec<Loaded>, Refusal> {
        self.load_readable(ids, &mut Failures::default()).await
    }

    async fn load_shards<'i>(
        &self,
        ids: Vec<&'i TaskId>,
        failures: &mut Failures,
    ) -> Result<BTreeMap<&'i TaskId, LoadedShard>, Refusal> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let jobs: BTreeSet<&JobId> = ids.iter().map(|id| id.job()).collect();
        let keys = ids.iter().map(|id| keys::shard(id)).chain(jobs.iter().map(|job| keys::shards(job)));
        let keys: Vec<String> = keys.collect();
        let mut tasks = self.store.read(&keys).await?;
        let go_by = decode_readable::<ShardsRecord>(&keys[ids.len()..], tasks.split_off(ids.len()), failures)?;
        let go_by: BTreeMap<&JobId, Option<Versioned<ShardsRecord>>> = jobs.into_iter().zip(go_by).collect();
        let tasks = decode_readable::<TaskRecord>(&keys, tasks, failures)?;
        let both = |(id, task): (&'i TaskId, Option<_>)| {
            let go_by = go_by.get(id.job()).cloned().flatten()?;
            Some((id, LoadedShard { task: task?, go_by }))
        };
        Ok(ids.into_iter().zip(tasks).filter_map(both).collect())
    }

    /// Reads jobs, whoever they belong to; those that do not exist are left out.
    pub(super) async fn jobs(&self, ids: impl Iterator<Item = JobId>) -> Result<Vec<Versioned<JobRecord>>, Refusal> {
        let mut failures = Failures::default();
        let jobs = self.readable_jobs(ids, &mut failures).await?;
        failures.or(jobs)
    }

    /// The same without those that cannot be decoded.
    pub(super) async fn readable_jobs(
        &self,
        ids: impl Iterator<Item = JobId>,
        failures: &mut Failures,
    ) -> Result<Vec<Versioned<JobRecord>>, Refusal> {
        let keys: Vec<String> = ids.map(|id| keys::job(&id)).collect();
        Ok(self.read_readable(&keys, failures).await?.into_iter().flatten().collect())
    }

    /// Reads a job of this tenant. Another tenant's is as if it did not exist.
    pub(super) async fn job(&self, tenant: &Tenant, id: &JobId) -> Result<Versioned<JobRecord>, Refusal> {
        let job = self.read::<JobRecord>(keys::job(id)).await?;
        job.filter(|job| job.value.tenant == *tenant)
            .ok_or_else(|| Refusal::not_found(format!("job {id} does not exist; `hat jobs` lists yours")))
    }

    /// Applies a change; `true` if it is known to be applied, as with [`apply_one`](Self::apply_one).
    pub(super) async fn commit(&self, prepared: Prepared) -> Result<bool, Refusal> {
        Ok(self.commit_all(vec![prepared]).await?.iter().all(Option::is_some))
    }

    /// Applies independent changes, and tells of each what there is now if it is known to be applied. Whoever ends the last shard
    /// of a job goes on with the job; should that fail, a sweep does.
    pub(super) async fn commit_all(&self, prepared: Vec<Prepared>) -> Result<Vec<Option<Holding>>, Refusal> {
        let (applied, last_shards) = self.apply_all(prepared).await?;
        for last in last_shards {
            self.settle_briefly(&last.job).await;
        }
        Ok(applied)
    }

    /// Applies independent changes; tells of each what there is now if it is known to be applied, and which of them ended the last
    /// shard of a job.
    pub(super) async fn apply_all(
        &self,
        mut prepared: Vec<Prepared>,
    ) -> Result<(Vec<Option<Holding>>, Vec<LastShard>), Refusal> {
        if prepared.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let batches = prepared.iter_mut().map(|prepared| std::mem::take(&mut prepared.batch)).collect();
        let verdicts = self.store.apply(batches).await?;
        let mut last_shards = Vec::new();
        let applied = prepared.into_iter().zip(verdicts).map(|(prepared, verdict)| match verdict {
            Verdict::Applied(counters) => {
                let applied = prepared.applied(&counters);
                last_shards.extend(applied.last_shard);
                if let Some(bytes) = applied.written.filter(|_| applied.after.task().task.lease().is_some()) {
                    self.written.note(bytes, applied.after.job.clone());
                }
                Some(applied.after)
            }
            Verdict::Conflict | Verdict::Unknown => None,
        });
        Ok((applied.collect(), last_shards))
    }

    /// Applies one batch; `true` if it is known to be applied. After `false` the caller reads again: the rules make every
    /// command safe to repeat, so it does not matter which of conflict and unknown it was.
    pub(super) async fn apply_one(&self, batch: Batch) -> Result<bool, Refusal> {
        let verdicts = self.store.apply(vec![batch]).await?;
        Ok(matches!(verdicts.as_slice(), [Verdict::Applied(_)]))
    }
}
