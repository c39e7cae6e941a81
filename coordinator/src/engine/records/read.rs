//! Typed reads and single writes of records, over the store.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sortinghat_proto::{JobId, Refusal, Tenant};

use super::{
    failures::Failures,
    keys,
    stored::{JobRecord, decode},
};
use crate::{
    engine::error::EngineError,
    store::{Batch, Expectation, Record, Store, Verdict},
};

/// A record and the version that it was read with.
#[derive(Debug, Clone)]
pub(crate) struct Versioned<T> {
    pub(crate) version: u64,
    /// Boxed, because it is moved through many functions.
    pub(crate) value: Box<T>,
}

impl<T> Versioned<T> {
    /// The check with which a batch applies only if the record is still as it was read.
    pub(crate) fn expectation(&self) -> Expectation {
        Expectation::Version(self.version)
    }
}

/// The same check for a record that may have been absent.
pub(crate) fn expectation<T>(read: &Option<Versioned<T>>) -> Expectation {
    read.as_ref().map_or(Expectation::Absent, Versioned::expectation)
}

/// The records of the queue. Indexes, counters, the time and hints are read from the store directly.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) store: Arc<dyn Store>,
}

impl Records {
    /// Reads one record; `None` if it does not exist.
    pub(crate) async fn read<T: DeserializeOwned>(&self, key: String) -> Result<Option<Versioned<T>>, EngineError> {
        Ok(self.read_all(&[key]).await?.pop().flatten())
    }

    /// Reads records of one type, in the order of `keys`.
    pub(crate) async fn read_all<T: DeserializeOwned>(
        &self,
        keys: &[String],
    ) -> Result<Vec<Option<Versioned<T>>>, EngineError> {
        let mut failures = Failures::default();
        let records = self.read_readable(keys, &mut failures).await?;
        failures.or(records)
    }

    /// Reads records of one type, in the order of `keys`. A record that cannot be decoded is recorded as a failure and treated as missing.
    pub(crate) async fn read_readable<T: DeserializeOwned>(
        &self,
        keys: &[String],
        failures: &mut Failures,
    ) -> Result<Vec<Option<Versioned<T>>>, EngineError> {
        decode_readable(keys, self.store.read(keys).await?, failures)
    }

    /// Reads a job of this tenant. Another tenant's job counts as missing, and so does one that was deleted.
    pub(crate) async fn job(&self, tenant: &Tenant, id: &JobId) -> Result<Versioned<JobRecord>, EngineError> {
        let job = self.read::<JobRecord>(keys::job(id)).await?;
        let missing =
            || Refusal::not_found(format!("there is no job {id}: list the jobs to see which there are")).at("job_id");
        let is_shown = |job: &Versioned<JobRecord>| job.value.tenant == *tenant && !job.value.progress.deleted;
        Ok(job.filter(is_shown).ok_or_else(missing)?)
    }

    /// Reads jobs of any tenant. Jobs that do not exist are left out.
    pub(crate) async fn jobs(
        &self,
        ids: impl Iterator<Item = JobId>,
    ) -> Result<Vec<Versioned<JobRecord>>, EngineError> {
        let mut failures = Failures::default();
        let jobs = self.readable_jobs(ids, &mut failures).await?;
        failures.or(jobs)
    }

    /// Reads jobs of any tenant. Jobs that do not exist are left out. Jobs that cannot be decoded are recorded as failures and left out,
    /// too.
    pub(crate) async fn readable_jobs(
        &self,
        ids: impl Iterator<Item = JobId>,
        failures: &mut Failures,
    ) -> Result<Vec<Versioned<JobRecord>>, EngineError> {
        let keys: Vec<String> = ids.map(|id| keys::job(&id)).collect();
        Ok(self.read_readable(&keys, failures).await?.into_iter().flatten().collect())
    }

    /// Applies one batch; `true` if it is known to be applied. After `false` the caller reads again. Every command is safe to repeat, so it
    /// does not matter whether the batch conflicted or its outcome is unknown.
    pub(crate) async fn apply_one(&self, batch: Batch) -> Result<bool, EngineError> {
        let verdicts = self.store.apply(vec![batch]).await?;
        Ok(matches!(verdicts.as_slice(), [Verdict::Applied(_)]))
    }
}

/// Decodes records of one type that were read by these keys. A record that cannot be decoded is recorded as a failure and treated as
/// missing.
pub(crate) fn decode_readable<T: DeserializeOwned>(
    keys: &[String],
    records: Vec<Option<Record>>,
    failures: &mut Failures,
) -> Result<Vec<Option<Versioned<T>>>, EngineError> {
    let decoded = keys.iter().zip(records).map(|(key, record)| {
        let decode = |Record { version, value }: Record| Ok(Versioned { version, value: decode_boxed(key, &value)? });
        failures.pass(record.map(decode).transpose())
    });
    decoded.collect()
}

fn decode_boxed<T: DeserializeOwned>(key: &str, value: &Bytes) -> Result<Box<T>, EngineError> {
    decode(key, value).map(Box::new)
}
