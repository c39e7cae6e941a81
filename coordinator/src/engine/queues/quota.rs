//! The quota: how much may wait, for each tenant and in total.
//!
//! The store counts what waits. The counts are remembered here for a moment, so that a refusal costs no read. Several coordinators, or many
//! calls at once, may therefore exceed a limit a little.

use std::{collections::HashMap, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use sortinghat_proto::{
    Tenant,
    v1::{ErrorCode, JobState},
};
use tokio::time::Instant;

use super::Queues;
use crate::{
    engine::{error::EngineError, records::keys},
    queue::Phase,
};

/// For how long a count is used without a new read.
const REMEMBERED: Duration = Duration::from_millis(250);

/// The recent counts, by tenant.
#[derive(Debug, Default)]
pub(super) struct Quota(Mutex<HashMap<Tenant, Counted>>);

#[derive(Debug, Clone, Copy)]
struct Counted {
    /// The waiting jobs of the tenant, with the jobs that were admitted since the read.
    jobs: u64,
    /// The waiting tasks of all tenants, with the jobs of this tenant that were admitted since the read.
    tasks: u64,
    at: Instant,
}

impl Quota {
    /// Notes that a job was admitted.
    fn let_in(&self, tenant: &Tenant) {
        if let Some(counted) = self.counted().get_mut(tenant) {
            counted.jobs += 1;
            counted.tasks += 1;
        }
    }

    fn recent(&self, tenant: &Tenant) -> Option<Counted> {
        self.counted().get(tenant).copied().filter(|counted| counted.at.elapsed() < REMEMBERED)
    }

    fn note(&self, tenant: &Tenant, counted: Counted) {
        let mut all = self.counted();
        all.retain(|_, counted| counted.at.elapsed() < REMEMBERED);
        all.insert(tenant.clone(), counted);
    }

    fn counted(&self) -> MutexGuard<'_, HashMap<Tenant, Counted>> {
        self.0.lock()
    }
}

impl Queues {
    /// Admits one more job of a tenant, or refuses it because a limit is reached.
    pub(crate) async fn admit(&self, tenant: &Tenant) -> Result<(), EngineError> {
        let counted = match self.quota.recent(tenant) {
            Some(counted) => counted,
            None => {
                let counted = self.count_waiting(tenant).await?;
                self.quota.note(tenant, counted);
                counted
            }
        };
        let (own, all) = (self.context.settings.max_waiting_jobs_per_tenant, self.context.settings.max_waiting_tasks);
        let message = if counted.jobs >= own {
            format!(
                "{} of your jobs are waiting, and at most {own} may wait: try again when some have started or were cancelled",
                counted.jobs
            )
        } else if counted.tasks >= all {
            // The message has no number, since a number would tell how much other tenants have.
            "the queue is full: try again when some jobs have started".to_owned()
        } else {
            self.quota.let_in(tenant);
            return Ok(());
        };
        metrics::counter!("sortinghat_quota_refusals_total").increment(1);
        Err(EngineError::refused(ErrorCode::ResourceExhausted, message))
    }

    async fn count_waiting(&self, tenant: &Tenant) -> Result<Counted, EngineError> {
        let keys = [
            keys::jobs_in(tenant, JobState::Blocked),
            keys::jobs_in(tenant, JobState::Queued),
            keys::tasks_in(Phase::Blocked),
            keys::tasks_in(Phase::Ready),
        ];
        let counts: Vec<u64> = self
            .records
            .store
            .counters(&keys)
            .await?
            .into_iter()
            .map(|count| u64::try_from(count).unwrap_or_default())
            .collect();
        let sum = |from: usize| counts.iter().skip(from).take(2).sum();
        Ok(Counted { jobs: sum(0), tasks: sum(2), at: Instant::now() })
    }
}
