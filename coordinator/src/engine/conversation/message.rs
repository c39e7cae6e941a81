//! A worker's message, and the tasks that the worker holds.

use std::collections::{HashMap, HashSet};

use sortinghat_proto::{Refusal, TaskId, Tenant, WorkerId, time::UnixMs, v1};

use super::reports::LeaseReport;
use crate::{
    engine::{
        changes::{Holding, Loaded},
        dispatch::MAX_CLAIMS,
        workers::{Claimant, LeaseName},
    },
    queue::{Lease, Task},
};

/// A message, parsed.
pub(super) struct Message {
    pub(super) worker: Claimant,
    pub(super) arrived: UnixMs,
    /// For how long the answer may be held, in milliseconds.
    pub(super) held_ms: u64,
    /// The slots for new tasks.
    pub(super) free_slots: usize,
    /// The worker is draining, so this may be its last message.
    pub(super) draining: bool,
    pub(super) reports: Vec<LeaseReport>,
    /// The leases that the worker reports, and so knows.
    pub(super) reported: HashSet<LeaseName>,
}

/// A task that a worker holds.
pub(super) struct HeldLease {
    pub(super) name: LeaseName,
    pub(super) lease: Lease,
    pub(super) holding: Holding,
}

impl Message {
    /// Parses a message that arrived at `arrived`, and whose answer may be held for `held_ms`.
    pub(super) fn parse(
        worker: Claimant,
        request: v1::SynchronizeRequest,
        arrived: UnixMs,
        held_ms: u64,
    ) -> Result<Self, Refusal> {
        let reports = request.leases.into_iter().map(|report| LeaseReport::parse(report, &worker.id));
        let reports = reports.collect::<Result<Vec<LeaseReport>, Refusal>>()?;
        Ok(Self {
            free_slots: request.free_slots as usize,
            draining: request.draining,
            worker,
            arrived,
            held_ms,
            reported: reports.iter().map(LeaseReport::name).collect(),
            reports,
        })
    }

    /// How many tasks the worker may claim, if it holds these leases. Leases that the worker does not know of yet take up free slots.
    pub(super) fn capacity<'h>(&self, held: impl Iterator<Item = &'h LeaseName>) -> usize {
        let unknown = held.filter(|name| !self.reported.contains(name)).count();
        self.free_slots.saturating_sub(unknown).min(MAX_CLAIMS)
    }

    /// The tenant of every slot that becomes free with the outcomes in this message.
    pub(super) fn freed_slots(&self, leases: &HashMap<TaskId, Loaded>) -> Vec<Tenant> {
        let ended = self.reports.iter().filter(|report| report.outcome.is_some()).filter_map(|report| {
            let loaded = leases.get(&report.task)?;
            let is_held = loaded.task().task.lease().is_some_and(|lease| lease.token == report.token);
            is_held.then(|| loaded.job.value.tenant.clone())
        });
        ended.collect()
    }
}

impl HeldLease {
    /// The task as held by this worker; `None` if the worker does not hold it, or does not serve its tenant any more.
    pub(super) fn of(worker: &Claimant, holding: Holding) -> Option<Self> {
        let task = &holding.task().task;
        let lease = lease_of(&worker.id, task).filter(|_| worker.ability.serves.has(&holding.job.tenant))?.clone();
        Some(Self { name: (task.id.clone(), lease.token.epoch), lease, holding })
    }
}

/// The lease of this worker on a task; `None` if it has none.
pub(super) fn lease_of<'t>(worker: &WorkerId, task: &'t Task) -> Option<&'t Lease> {
    task.lease().filter(|lease| lease.token.worker == *worker)
}
