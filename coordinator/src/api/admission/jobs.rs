//! Admission of the jobs in calls that bring many at a time. The calls themselves are counted as well, but one call of a thousand jobs keeps
//! the store busy for as long as hundreds of other calls.

use std::{sync::Arc, time::Duration};

use sortinghat_proto::limits::MAX_BULK_JOBS_IN_FLIGHT;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::busy;

/// How long a call waits for places. Without a wait, a caller that comes back at once would take them from all who come back later.
const LONGEST_WAIT: Duration = Duration::from_millis(2);
/// After how long a refused call may try again, on average.
const PAUSE: Duration = Duration::from_millis(100);

/// Bounds how many jobs are being accepted at a time.
#[derive(Debug, Clone)]
pub(in crate::api) struct JobAdmission(Arc<Semaphore>);

impl Default for JobAdmission {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BULK_JOBS_IN_FLIGHT)))
    }
}

impl JobAdmission {
    /// Takes one place for each of `jobs` jobs, or all places if there are more jobs than that. Calls are served in their order. The
    /// places are free again when they are dropped.
    ///
    /// # Errors
    /// The refusal that says when to try again, if the places do not become free in time.
    pub(in crate::api) async fn take(&self, jobs: usize) -> Result<OwnedSemaphorePermit, Status> {
        let places = u32::try_from(jobs.min(MAX_BULK_JOBS_IN_FLIGHT)).expect("there are few places");
        match tokio::time::timeout(LONGEST_WAIT, self.0.clone().acquire_many_owned(places)).await {
            Ok(taken) => Ok(taken.expect("the semaphore is never closed")),
            Err(_) => Err(busy("the coordinator is accepting as many jobs as it can: try again in a moment", PAUSE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::{limits::MAX_JOBS_PER_CALL, retry_after};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_finds_no_places_waits_a_moment_and_is_told_when_to_try_again() {
        let admission = JobAdmission::default();
        let all = admission.take(MAX_JOBS_PER_CALL).await.expect("all places are free");
        let refused = admission.take(1).await.expect_err("no place is left");
        assert!(retry_after(&refused).is_some_and(|pause| pause < 2 * PAUSE), "{refused:?}");
        let wait_for = |jobs: usize| {
            let admission = admission.clone();
            tokio::spawn(async move { admission.take(jobs).await })
        };
        let first = wait_for(MAX_JOBS_PER_CALL);
        tokio::task::yield_now().await;
        let second = wait_for(1);
        tokio::task::yield_now().await;
        drop(all);
        let all = first.await.expect("no panic").expect("the first call is next");
        assert!(!second.is_finished());
        drop(all);
        drop(second.await.expect("no panic").expect("the second call is next"));
    }
}
