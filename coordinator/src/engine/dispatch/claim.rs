//! Planning which ready tasks a worker gets. A plan changes nothing. The caller commits its changes, alone or in a joint commit.

use std::collections::{HashMap, HashSet};

use sortinghat_proto::{TaskId, Tenant, time::UnixMs};

use super::{
    Dispatch,
    round::{Candidate, Picked, Round, scatter},
};
use crate::{
    engine::{
        changes::{Change, Holding, Loaded, Prepared, by_id},
        error::EngineError,
        queues::{Gate, Gates},
        records::{Failures, keys},
        workers::Claimant,
    },
    queue::{Event, Heads, Pick, Share},
};

/// How many tasks one call may claim.
pub(crate) const MAX_CLAIMS: usize = 64;
/// How many tasks of one queue a claim reads at most.
const MAX_WINDOW: usize = 4 * MAX_CLAIMS;
/// How many tasks a claim leaves to better workers before it gives up for now.
const MAX_DEFERRED: usize = 16;

/// What a worker may claim: the first tasks of the ready queues that it may serve, and the gates of their tenants.
pub(crate) struct Ready {
    queues: Vec<Heads>,
    gates: Gates,
    /// No queue has more tasks than were read.
    is_all: bool,
}

/// The changes that lease tasks to a worker. They are not committed yet.
pub(crate) struct Plan<'a> {
    /// The changes to commit.
    pub(crate) changes: Vec<Prepared>,
    /// Which task each change leases; `None` for a change that cancels a task.
    picks: Vec<Option<Pick>>,
    /// Reserves the tasks: no other claim of this process takes them before the plan is dropped.
    _round: Round<'a>,
}

/// The result of a committed plan.
pub(crate) struct Claimed {
    /// The tasks that the worker holds now.
    pub(crate) tasks: Vec<Holding>,
    /// At least one change of the plan did not apply, because another change came between.
    pub(crate) raced: bool,
}

impl Ready {
    /// Whether there are at least `capacity` tasks.
    pub(crate) fn suffices(&self, capacity: usize) -> bool {
        self.queues.iter().map(|queue| queue.entries.len()).sum::<usize>() >= capacity
    }
}

impl Dispatch {
    /// Reads what there is for a worker that claims up to `capacity` tasks and has lost `lost_races` races for tasks before.
    pub(crate) async fn ready(
        &self,
        claimant: &Claimant,
        capacity: usize,
        lost_races: usize,
    ) -> Result<Ready, EngineError> {
        let window = (capacity * (lost_races + 1) + self.claims.len() + MAX_DEFERRED).min(MAX_WINDOW);
        let (mut queues, gates) = self.queues.heads(|queue| claimant.ability.meets(queue.demand()), window).await?;
        let is_all = queues.iter().all(|queue| queue.entries.len() < window);
        scatter(&mut queues, lost_races * capacity, &mut self.context.dice());
        Ok(Ready { queues, gates, is_all })
    }

    /// Plans to lease up to `capacity` of the ready tasks to a worker, in the order of [`ClaimOrder`](crate::queue::ClaimOrder). On its way
    /// the plan also cancels tasks that must not run any more. Each change applies only if the gate of its tenant is still as it was read.
    /// `freed` names the tenant of every slot that becomes free in the same commit. `None` if there is no task for the worker.
    pub(crate) async fn plan(
        &self,
        claimant: &Claimant,
        capacity: usize,
        ready: Ready,
        freed: &[Tenant],
        now: UnixMs,
    ) -> Result<Option<Plan<'_>>, EngineError> {
        let Ready { queues, gates, is_all } = ready;
        let shares = self.shares(&queues, freed).await?;
        let mut round = self.claims.begin(queues, shares);
        let picked = self.pick(claimant, &mut round, capacity, &gates, now).await?;
        if picked.is_empty() && (is_all || round.deferred > 0) {
            return Ok(None);
        }
        let candidates = picked.candidates.into_iter().map(|candidate| (candidate.loaded, Some(candidate.pick)));
        let cancelled = picked.cancelled.into_iter().map(|loaded| (loaded, None));
        let (mut changes, mut picks, mut failures) = (Vec::new(), Vec::new(), Failures::default());
        for (loaded, pick) in candidates.chain(cancelled) {
            let mut change = Change::new(&loaded, now);
            gates.hold(&mut change);
            let event = if pick.is_some() {
                claimant.host.clone_into(&mut change.task_mut().host);
                Event::Claim(claimant.id.clone())
            } else {
                Event::Cancel
            };
            // The task may have been taken since the index was read. Then it is left out, and the next read of the index does not show it.
            if change.happen(&event, &self.context.rules).is_ok()
                && let Some(prepared) = failures.pass(change.prepare())?
            {
                changes.push(prepared);
                picks.push(pick);
            }
        }
        self.log_passed_over(failures);
        Ok(Some(Plan { changes, picks, _round: round }))
    }

    /// Notes the result of a plan whose changes were committed with these outcomes, in the order of the changes.
    pub(crate) fn committed(&self, claimant: &Claimant, plan: Plan<'_>, outcomes: Vec<Option<Holding>>) -> Claimed {
        let raced = outcomes.iter().any(Option::is_none);
        let Plan { picks, _round, .. } = plan;
        let leased = picks.into_iter().zip(outcomes).filter_map(|(pick, holding)| Some((pick?, holding?)));
        let (picks, tasks): (Vec<Pick>, Vec<Holding>) = leased.unzip();
        self.claims.served(&picks);
        tasks.iter().for_each(|holding| self.deferred.taken(&holding.task().task.id));
        self.workers.sessions.gave(&claimant.id, tasks.len());
        Claimed { tasks, raced }
    }

    /// The shares of the tenants of these queues, once the freed slots are free. The running tasks are read only if there are several
    /// tenants.
    async fn shares(&self, queues: &[Heads], freed: &[Tenant]) -> Result<HashMap<Tenant, Share>, EngineError> {
        let tenants: HashSet<&Tenant> = queues.iter().map(|queue| &queue.tenant).collect();
        let tenants: Vec<&Tenant> = tenants.into_iter().collect();
        let running = match tenants.as_slice() {
            [] | [_] => vec![0; tenants.len()],
            several => {
                let counters: Vec<String> = several.iter().map(|tenant| keys::leased_of(tenant)).collect();
                self.records.store.counters(&counters).await?
            }
        };
        let share = |(tenant, running): (&Tenant, i64)| {
            let share = Share { running: u64::try_from(running).unwrap_or(0), weight: self.queues.weight(tenant) };
            (tenant.clone(), share)
        };
        let mut shares: HashMap<Tenant, Share> = tenants.into_iter().zip(running).map(share).collect();
        for tenant in freed {
            if let Some(share) = shares.get_mut(tenant) {
                share.running = share.running.saturating_sub(1);
            }
        }
        Ok(shares)
    }

    /// Picks up to `capacity` tasks in their order, without the tasks that are deferred to a better worker, and picks the tasks to cancel on
    /// its way. A tenant whose next task must be cancelled is passed over: there may be thousands of such tasks, and other tenants must not
    /// wait until a sweep has reached them all.
    async fn pick(
        &self,
        claimant: &Claimant,
        round: &mut Round<'_>,
        capacity: usize,
        gates: &Gates,
        now: UnixMs,
    ) -> Result<Picked, EngineError> {
        let (mut picked, mut failures) = (Picked::default(), Failures::default());
        while round.deferred < MAX_DEFERRED {
            let picks = round.reserve(picked.room(capacity));
            if picks.is_empty() {
                break;
            }
            let tasks: Vec<TaskId> = picks.iter().map(|(task, _)| task.clone()).collect();
            let mut loaded = by_id(self.changes.tasks.load_readable(&tasks, &mut failures).await?);
            let read = picks.into_iter().filter_map(|(task, pick)| Some((pick, loaded.remove(&task)?)));
            let (picks, loaded): (Vec<Pick>, Vec<Loaded>) = read.unzip();
            let inputs = self.inputs(&loaded).await?;
            for ((pick, loaded), inputs) in picks.into_iter().zip(loaded).zip(inputs) {
                match gates.gate(&loaded.job.value) {
                    _ if loaded.is_stopping() => picked.cancel(round, &pick, loaded),
                    Gate::Cancelled => picked.cancel(round, &pick, loaded),
                    Gate::Paused => {}
                    Gate::Open if self.is_deferred(claimant, &loaded, &inputs, now) => round.deferred += 1,
                    Gate::Open => picked.candidates.push(Candidate { pick, loaded }),
                }
            }
        }
        self.log_passed_over(failures);
        Ok(picked)
    }

    /// Logs that a ready task cannot be given to any worker.
    fn log_passed_over(&self, failures: Failures) {
        if let Err(error) = failures.or(()) {
            metrics::counter!("sortinghat_claim_failures_total").increment(1);
            self.context.log_throttle.error(&error, "a ready task is passed over");
        }
    }
}
