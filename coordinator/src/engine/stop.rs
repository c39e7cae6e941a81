//! Telling a job to stop, whatever stage it is in.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::{Refusal, v1};

use super::{
    Shared,
    change::Change,
    load::{Loaded, Versioned},
    records::{JobRecord, Stop},
    reports::defect,
};
use crate::queue::{Event, cancelled_by_user, deadline_passed};

/// Jobs that are told side by side, so that they share the store's commits.
const AT_A_TIME: usize = 64;

/// Why a job shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// Its user wants that.
    Cancelled,
    /// Its deadline has passed.
    Overdue,
}

impl StopCause {
    /// What its task is told; every state has an answer to this.
    fn event(self) -> Event {
        match self {
            Self::Cancelled => Event::Cancel,
            Self::Overdue => Event::Overdue,
        }
    }

    fn failure(self) -> v1::Failure {
        match self {
            Self::Cancelled => cancelled_by_user(),
            Self::Overdue => deadline_passed(),
        }
    }
}

impl Shared {
    /// Tells a job to stop: it ends at once if it waits, and when its workers have stopped if it runs. Nothing changes for one that
    /// has ended. `false` if another change came between; then the job must be read again.
    pub(super) async fn stop_job(&self, job: &Versioned<JobRecord>, cause: StopCause) -> Result<bool, Refusal> {
        match job.value.open_shards() {
            Some(_) => self.stop_shards(job, Stop(cause.failure())).await,
            None => self.stop_task(job, cause).await,
        }
    }

    /// Tells independent jobs to stop; of each whether it is known to be told.
    pub(super) async fn stop_jobs(
        &self,
        jobs: &[Versioned<JobRecord>],
        cause: StopCause,
    ) -> Result<Vec<bool>, Refusal> {
        let told: Vec<_> = jobs.iter().map(|job| self.stop_job(job, cause)).collect();
        stream::iter(told).buffered(AT_A_TIME).try_collect().await
    }

    async fn stop_task(&self, job: &Versioned<JobRecord>, cause: StopCause) -> Result<bool, Refusal> {
        let loaded = Loaded { job: job.clone(), shard: None };
        let mut change = Change::new(&loaded, self.store.now().await?);
        change.happen(&cause.event(), &self.rules).map_err(defect)?;
        match change.prepare()? {
            Some(prepared) => self.commit(prepared).await,
            None => Ok(true),
        }
    }
}
