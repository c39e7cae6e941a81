//! Deadlines: jobs that should have ended by now are stopped.

use sortinghat_proto::time::UnixMs;

use super::Upkeep;
use crate::{
    engine::{
        error::EngineError,
        jobs::StopCause,
        records::{Failures, keys},
    },
    store::Range,
};

/// How many jobs one round handles.
const JOBS_PER_ROUND: usize = 500;

impl Upkeep {
    /// Tells the jobs whose deadline has passed to stop, and returns how many were told. A job leaves the index when it is told, even if
    /// its worker has not stopped yet. If another change came between, the next round tries again.
    pub(super) async fn stop_overdue(&self, now: UnixMs) -> Result<usize, EngineError> {
        let due = Range::first(keys::DEADLINES, JOBS_PER_ROUND).until(keys::after_time(now));
        let due = self.records.store.range(due).await?;
        let ids = due.iter().filter_map(|entry| keys::job_of_entry(entry));
        let mut failures = Failures::default();
        let jobs = self.records.readable_jobs(ids, &mut failures).await?;
        let told = self.jobs.stop_jobs(&jobs, StopCause::Overdue).await?;
        let told = told.into_iter().filter(|told| *told).count();
        metrics::counter!("sortinghat_deadlines_missed_total").increment(told as u64);
        failures.or(told)
    }
}
