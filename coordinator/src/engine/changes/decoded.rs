//! A cache of decoded jobs. The coordinator that ends a job has usually also started it, so it reads the same bytes that it has written,
//! and need not decode them.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use sortinghat_proto::JobId;

use crate::engine::{
    error::EngineError,
    records::{self, JobRecord},
};

/// How many jobs are remembered.
const MAX_JOBS: usize = 1024;

/// The last written record of each job, until the record is read.
#[derive(Debug, Default)]
pub(super) struct DecodedJobs(Mutex<HashMap<JobId, (Bytes, Box<JobRecord>)>>);

impl DecodedJobs {
    /// Remembers a job and the bytes that it was written as.
    pub(super) fn note(&self, bytes: Bytes, job: Box<JobRecord>) {
        let mut jobs = self.0.lock();
        if jobs.len() >= MAX_JOBS {
            // The remembered jobs were ended by other coordinators, or they run for long.
            jobs.clear();
        }
        jobs.insert(job.id.clone(), (bytes, job));
    }

    /// Decodes a job's record, unless this process wrote the same bytes itself. Different bytes mean that somebody else has written since.
    pub(super) fn decode(&self, job: &JobId, key: &str, bytes: &[u8]) -> Result<Box<JobRecord>, EngineError> {
        let known = self.0.lock().remove(job);
        match known {
            Some((written, job)) if written == bytes => Ok(job),
            Some(_) | None => records::decode(key, bytes),
        }
    }
}
