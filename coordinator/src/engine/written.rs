//! Running jobs as this process wrote them. Whoever ends one reads the same bytes, and need not decode them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use sortinghat_proto::JobId;

use super::records::JobRecord;

/// Jobs that are remembered.
const MAX_JOBS: usize = 1024;

/// What was written last of each job, until it is read. What others wrote since has other bytes.
#[derive(Debug, Default)]
pub(super) struct WrittenJobs(Mutex<HashMap<JobId, (Bytes, Box<JobRecord>)>>);

impl WrittenJobs {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, (Bytes, Box<JobRecord>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a job that was written as these bytes.
    pub(super) fn note(&self, bytes: Bytes, job: Box<JobRecord>) {
        let mut jobs = self.jobs();
        if jobs.len() >= MAX_JOBS {
            // Others have ended them, or they run for long.
            jobs.clear();
        }
        jobs.insert(job.id.clone(), (bytes, job));
    }

    /// The job that these bytes are, if that is remembered; it is not any more.
    pub(super) fn take(&self, job: &JobId, bytes: &[u8]) -> Option<Box<JobRecord>> {
        let (written, job) = self.jobs().remove(job)?;
        (written == bytes).then_some(job)
    }
}
