//! Telling a job to stop, in whatever stage it is.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::v1;

use super::Jobs;
use crate::{
    engine::{
        changes::{Change, Loaded},
        error::EngineError,
        records::{JobRecord, Stop, Versioned},
    },
    queue::{Event, cancelled_by_user, deadline_passed},
};

/// How many jobs are told concurrently, so that they share the syncs of the store.
const AT_A_TIME: usize = 64;

/// Why a job is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// Its user has cancelled it.
    Cancelled,
    /// Its deadline has passed.
    Overdue,
}

impl StopCause {
    /// The event for the job's task. The rules accept it in every state.
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

impl Jobs {
    /// Tells a job to stop. A waiting job ends at once. A running job ends when its workers have stopped. A job that has ended does not
    /// change. `false` if another change came between; then the caller must read the job again.
    pub(super) async fn stop_job(&self, job: &Versioned<JobRecord>, cause: StopCause) -> Result<bool, EngineError> {
        match job.value.open_shards() {
            Some(_) => self.changes.settling.stop_shards(job, Stop(cause.failure())).await,
            None => self.stop_task(job, cause).await,
        }
    }

    /// Tells independent jobs to stop. Returns for each job `true` if it was told, or `false` if another change came between.
    pub(crate) async fn stop_jobs(
        &self,
        jobs: &[Versioned<JobRecord>],
        cause: StopCause,
    ) -> Result<Vec<bool>, EngineError> {
        let told: Vec<_> = jobs.iter().map(|job| self.stop_job(job, cause)).collect();
        stream::iter(told).buffered(AT_A_TIME).try_collect().await
    }

    async fn stop_task(&self, job: &Versioned<JobRecord>, cause: StopCause) -> Result<bool, EngineError> {
        let loaded = Loaded { job: job.clone(), shard: None };
        let mut change = Change::new(&loaded, self.records.store.now().await?);
        change.happen(&cause.event(), &self.context.rules)?;
        match change.prepare()? {
            Some(prepared) => self.changes.commit(prepared).await,
            None => Ok(true),
        }
    }
}
