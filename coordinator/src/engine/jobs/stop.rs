//! Telling a job to stop, whatever stage it is in.

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

/// Jobs that are told side by side, so that they share the store's commits.
const AT_A_TIME: usize = 64;

/// Why a job shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
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

impl Jobs {
    /// Tells a job to stop: it ends at once if it waits, and when its workers have stopped if it runs. Nothing changes for one that
    /// has ended. `false` if another change came between; then the job must be read again.
    pub(super) async fn stop_job(&self, job: &Versioned<JobRecord>, cause: StopCause) -> Result<bool, EngineError> {
        match job.value.open_shards() {
            Some(_) => self.changes.settling.stop_shards(job, Stop(cause.failure())).await,
            None => self.stop_task(job, cause).await,
        }
    }

    /// Tells independent jobs to stop; of each whether it is known to be told.
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
