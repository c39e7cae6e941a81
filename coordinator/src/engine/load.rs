//! Reading records, and applying a batch.

use serde::de::DeserializeOwned;
use sortinghat_proto::{JobId, Refusal, TaskId, Tenant};

use super::{
    Shared,
    change::Prepared,
    keys,
    records::{self, JobRecord, TaskRecord},
};
use crate::store::{Batch, Expectation, Verdict};

/// A record and the version that it was read with.
#[derive(Debug, Clone)]
pub(super) struct Versioned<T> {
    pub(super) version: u64,
    pub(super) value: T,
}

/// A task and its job, as read.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) job: Versioned<JobRecord>,
    pub(super) task: Versioned<TaskRecord>,
}

/// What a batch must expect of a record that was read like this.
pub(super) fn expectation<T>(read: &Option<Versioned<T>>) -> Expectation {
    read.as_ref().map_or(Expectation::Absent, |record| Expectation::Version(record.version))
}

impl Shared {
    /// Reads records of one type, in the order of `keys`.
    pub(super) async fn read_all<T: DeserializeOwned>(
        &self,
        keys: &[String],
    ) -> Result<Vec<Option<Versioned<T>>>, Refusal> {
        let records = self.store.read(keys).await?;
        let decoded = keys.iter().zip(records).map(|(key, record)| {
            record.map(|record| Ok(Versioned { version: record.version, value: records::decode(key, &record.value)? }))
        });
        decoded.map(Option::transpose).collect()
    }

    /// Reads one record.
    pub(super) async fn read<T: DeserializeOwned>(&self, key: String) -> Result<Option<Versioned<T>>, Refusal> {
        Ok(self.read_all(&[key]).await?.pop().flatten())
    }

    /// Reads tasks with their jobs; those that do not exist are left out.
    pub(super) async fn load(&self, ids: &[TaskId]) -> Result<Vec<Loaded>, Refusal> {
        let task_keys: Vec<String> = ids.iter().map(keys::task).collect();
        let job_keys: Vec<String> = ids.iter().map(|id| keys::job(id.job())).collect();
        let tasks = self.read_all::<TaskRecord>(&task_keys).await?;
        let jobs = self.read_all::<JobRecord>(&job_keys).await?;
        let both = |(task, job): (Option<_>, Option<_>)| Some(Loaded { job: job?, task: task? });
        Ok(tasks.into_iter().zip(jobs).filter_map(both).collect())
    }

    /// Reads a job of this tenant. Another tenant's is as if it did not exist.
    pub(super) async fn job(&self, tenant: &Tenant, id: &JobId) -> Result<Versioned<JobRecord>, Refusal> {
        let job = self.read::<JobRecord>(keys::job(id)).await?;
        job.filter(|job| job.value.tenant == *tenant)
            .ok_or_else(|| Refusal::not_found(format!("job {id} does not exist; `hat jobs` lists yours")))
    }

    /// Applies a change; `true` if it is known to be applied, as with [`apply_one`](Self::apply_one).
    pub(super) async fn commit(&self, prepared: Prepared) -> Result<bool, Refusal> {
        Ok(self.commit_all(vec![prepared]).await? == [true])
    }

    /// Applies independent changes, and tells of each whether it is known to be applied.
    pub(super) async fn commit_all(&self, mut prepared: Vec<Prepared>) -> Result<Vec<bool>, Refusal> {
        let batches = prepared.iter_mut().map(|prepared| std::mem::take(&mut prepared.batch)).collect();
        let verdicts = self.store.apply(batches).await?;
        let applied = verdicts.iter().map(|verdict| matches!(verdict, Verdict::Applied(_))).collect::<Vec<_>>();
        prepared.iter().zip(&applied).filter(|(_, applied)| **applied).for_each(|(prepared, _)| prepared.count());
        Ok(applied)
    }

    /// Applies one batch; `true` if it is known to be applied. After `false` the caller reads again: the rules make every
    /// command safe to repeat, so it does not matter which of conflict and unknown it was.
    pub(super) async fn apply_one(&self, batch: Batch) -> Result<bool, Refusal> {
        let verdicts = self.store.apply(vec![batch]).await?;
        Ok(matches!(verdicts.as_slice(), [Verdict::Applied(_)]))
    }
}
