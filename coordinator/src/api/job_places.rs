//! Room for the jobs of calls that bring many at a time. Calls are counted as well, but one of a thousand jobs keeps the store busy for
//! as long as hundreds of others.

use std::{sync::Arc, time::Duration};

use sortinghat_proto::{Refusal, limits::MAX_BULK_JOBS_IN_FLIGHT, v1::ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// How long a call waits for its places. Without a wait, a caller that comes back at once would take them from all who come back later.
const LONGEST_WAIT: Duration = Duration::from_millis(2);
/// When to come back, on average.
const PAUSE: Duration = Duration::from_millis(100);

/// Places of jobs that are being accepted.
#[derive(Debug, Clone)]
pub(super) struct JobPlaces(Arc<Semaphore>);

impl Default for JobPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BULK_JOBS_IN_FLIGHT)))
    }
}

impl JobPlaces {
    /// Places for so many jobs, all there are for more than that, in the order of the calls. They are free again when they are dropped.
    ///
    /// # Errors
    /// If they are not free soon; says when to come back.
    pub(super) async fn take(&self, jobs: usize) -> Result<OwnedSemaphorePermit, Status> {
        let places = u32::try_from(jobs.min(MAX_BULK_JOBS_IN_FLIGHT)).expect("places are few");
        match tokio::time::timeout(LONGEST_WAIT, self.0.clone().acquire_many_owned(places)).await {
            Ok(taken) => Ok(taken.expect("it is never closed")),
            Err(_) => {
                let message = "the coordinator is accepting as many jobs as it can: try again in a moment";
                // Spread out, so that those who were refused together do not come back together.
                let pause = PAUSE.mul_f64(0.5 + rand::random::<f64>());
                Err(Refusal::new(ErrorCode::ResourceExhausted, message).with_retry_after(pause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::{limits::MAX_JOBS_PER_CALL, retry_after};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_places_waits_a_moment_and_is_told_when_to_come_back() {
        let places = JobPlaces::default();
        let all = places.take(MAX_JOBS_PER_CALL).await.expect("all are free");
        let refused = places.take(1).await.expect_err("none is left");
        assert!(retry_after(&refused).is_some_and(|pause| pause < 2 * PAUSE), "{refused:?}");
        let wait_for = |jobs: usize| {
            let places = places.clone();
            tokio::spawn(async move { places.take(jobs).await })
        };
        let first = wait_for(MAX_JOBS_PER_CALL);
        tokio::task::yield_now().await;
        let second = wait_for(1);
        tokio::task::yield_now().await;
        drop(all);
        let all = first.await.expect("no panic").expect("it has come first");
        assert!(!second.is_finished());
        drop(all);
        drop(second.await.expect("no panic").expect("it is its turn"));
    }
}
