//! Giving ready tasks to a worker.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::future;
use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{Refusal, TaskId, Tenant, WorkerId, time::UnixMs, v1::ErrorCode};

use super::{
    MAX_TRIES, Shared,
    change::{Change, Holding},
    companions::Companions,
    keys::{self, QueueName},
    load::Loaded,
    tenant_queue::{Gate, Gates},
};
use crate::{
    queue::{Capabilities, ClaimOrder, Event, Heads, Pick, Share, Turns},
    store::Range,
};

/// Tasks that one call may claim.
const MAX_CLAIMS: usize = 64;
/// Entries of one queue that a claim looks at, at most.
const MAX_WINDOW: usize = 4 * MAX_CLAIMS;
/// Tasks that one try of a claim cancels because they shall not run any more.
const MAX_CANCELLED: usize = 64;
/// Tasks that a claim leaves to better workers before it gives up for now.
const MAX_LEFT: usize = 16;

/// The worker that a claim is for.
#[derive(Debug)]
pub(super) struct Claimant {
    pub(super) id: WorkerId,
    pub(super) host: String,
    pub(super) capabilities: Capabilities,
}

/// What claims of this process know of each other, so that they neither race for the same tasks nor forget whose turn it is.
/// Versions are what makes a claim safe.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Going>);

#[derive(Debug, Default)]
struct Going {
    turns: Turns,
    /// Tasks that are being claimed, with their tenants.
    tasks: HashMap<TaskId, Tenant>,
}

/// One try of a claim: the order of the tasks, and those that nobody else of this process claims meanwhile.
struct Round<'a> {
    claims: &'a Claims,
    order: ClaimOrder,
    reserved: Vec<TaskId>,
    /// Tasks that were left to better workers.
    left: usize,
}

/// A task that is picked and read.
struct Candidate {
    pick: Pick,
    loaded: Loaded,
}

/// What a try has picked.
#[derive(Default)]
struct Picked {
    /// Tasks that the worker shall have.
    candidates: Vec<Candidate>,
    /// Tasks that shall not run any more: they are cancelled on the way, so that they do not stand there again next time. None of
    /// them takes the place of a candidate.
    cancelled: Vec<Loaded>,
}

/// What became of a try.
struct Claimed {
    /// What the worker has now.
    tasks: Vec<Holding>,
    /// Some changed between the read and the batch.
    raced: bool,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let mut going = self.claims.going();
        for task in &self.reserved {
            going.tasks.remove(task);
        }
    }
}

impl Round<'_> {
    /// The next up to `count` tasks that are not being claimed; nobody else gets them until this round ends.
    fn reserve(&mut self, count: usize) -> Vec<(TaskId, Pick)> {
        let mut going = self.claims.going();
        let named = self.order.by_ref().filter_map(|pick| Some((keys::task_of_entry(&pick.entry)?, pick)));
        let picks: Vec<_> = named.filter(|(task, _)| !going.tasks.contains_key(task)).take(count).collect();
        going.tasks.extend(picks.iter().map(|(task, pick)| (task.clone(), pick.tenant.clone())));
        self.reserved.extend(picks.iter().map(|(task, _)| task.clone()));
        picks
    }
}

impl Picked {
    fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.cancelled.is_empty()
    }

    /// How many tasks may be picked next.
    fn room(&self, capacity: usize) -> usize {
        (capacity - self.candidates.len()).min(MAX_CANCELLED - self.cancelled.len())
    }

    fn cancel(&mut self, round: &mut Round<'_>, pick: &Pick, loaded: Loaded) {
        round.order.pass_over(pick);
        self.cancelled.push(loaded);
    }
}

impl Claims {
    fn going(&self) -> MutexGuard<'_, Going> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a try. What is being claimed counts as running already.
    fn begin(&self, queues: Vec<Heads>, mut shares: HashMap<Tenant, Share>) -> Round<'_> {
        let going = self.going();
        for tenant in going.tasks.values() {
            shares.entry(tenant.clone()).or_default().running += 1;
        }
        let order = ClaimOrder::new(queues, shares, going.turns.clone());
        Round { claims: self, order, reserved: Vec::new(), left: 0 }
    }

    fn served<'a>(&self, picks: impl Iterator<Item = &'a Pick>) {
        let mut going = self.going();
        picks.for_each(|pick| going.turns.served(pick));
    }
}

impl Shared {
    /// [`claim`](Self::claim), which gives nothing where it fails for another reason than the store: one ready task that cannot be read
    /// is no reason to refuse what a worker says of those that it holds.
    pub(super) async fn claim_if_possible(
        &self,
        claimant: &Claimant,
        capacity: usize,
        companions: &mut Companions,
    ) -> Result<Vec<Holding>, Refusal> {
        match self.claim(claimant, capacity, companions).await {
            Err(refusal) if refusal.code != ErrorCode::StorageUnavailable => {
                metrics::counter!("sortinghat_claim_failures_total").increment(1);
                tracing::error!(worker = %claimant.id, %refusal, "no task can be claimed");
                Ok(Vec::new())
            }
            result => result,
        }
    }

    /// Leases up to `capacity` tasks to a worker, in the order of [`ClaimOrder`], and returns them. They are found in its
    /// index of held tasks from then on, whether or not the answer reaches it. The companions go along with the leases, if there
    /// are any.
    async fn claim(
        &self,
        claimant: &Claimant,
        capacity: usize,
        companions: &mut Companions,
    ) -> Result<Vec<Holding>, Refusal> {
        let capacity = capacity.min(MAX_CLAIMS);
        if capacity == 0 {
            return Ok(Vec::new());
        }
        let mut lost_races = 0;
        for _ in 0..MAX_TRIES {
            let window = capacity * (lost_races + 1) + self.claims.going().tasks.len() + MAX_LEFT;
            let window = window.min(MAX_WINDOW);
            let now = async { Ok(self.store.now().await?) };
            let ((mut queues, gates), now) = future::try_join(self.heads(claimant, window), now).await?;
            let is_all = queues.iter().all(|queue| queue.entries.len() < window);
            scatter(&mut queues, lost_races * capacity, &mut self.dice());
            let shares = self.shares(&queues, companions).await?;
            let mut round = self.claims.begin(queues, shares);
            let picked = self.pick(claimant, &mut round, capacity, &gates, now).await?;
            if picked.is_empty() && (is_all || round.left > 0) {
                return Ok(Vec::new());
            }
            let claimed = self.lease(claimant, &picked, &gates, now, companions).await?;
            if !claimed.tasks.is_empty() {
                self.sessions.gave(&claimant.id, claimed.tasks.len());
                return Ok(claimed.tasks);
            }
            lost_races += usize::from(claimed.raced);
        }
        // Others took them all, time and again; the next poll tries again.
        Ok(Vec::new())
    }

    /// The first tasks of the queues that this worker may serve, only of queues that have any; and what holds for their tenants.
    async fn heads(&self, claimant: &Claimant, window: usize) -> Result<(Vec<Heads>, Gates), Refusal> {
        let mut queues = self.open_queues().await?;
        queues.retain(|queue| may_serve(claimant, queue));
        let entries = self.store.ranges(queues.iter().map(|queue| Range::first(queue.index(), window)).collect());
        let entries = async { Ok(entries.await?) };
        let (gates, entries) = future::try_join(self.gates(queues.iter().map(|queue| &queue.tenant)), entries).await?;
        let has_tasks =
            |(queue, entries): &(&QueueName, Vec<String>)| !entries.is_empty() && !gates.is_paused(&queue.tenant);
        let heads = queues.iter().zip(entries).filter(has_tasks).map(|(queue, entries)| Heads {
            lane: queue.lane,
            tenant: queue.tenant.clone(),
            entries: entries.into(),
        });
        Ok((heads.collect(), gates))
    }

    /// What the tenants of these queues run once the companions are applied. Only read where there is somebody to share with.
    async fn shares(&self, queues: &[Heads], companions: &Companions) -> Result<HashMap<Tenant, Share>, Refusal> {
        let tenants: HashSet<&Tenant> = queues.iter().map(|queue| &queue.tenant).collect();
        let tenants: Vec<&Tenant> = tenants.into_iter().collect();
        let running = match tenants.as_slice() {
            [] | [_] => vec![0; tenants.len()],
            several => {
                let counters: Vec<String> = several.iter().map(|tenant| keys::leased_of(tenant)).collect();
                self.store.counters(&counters).await?
            }
        };
        let share = |(tenant, running): (&Tenant, i64)| {
            let share = Share { running: u64::try_from(running).unwrap_or(0), weight: self.weight(tenant) };
            (tenant.clone(), share)
        };
        let mut shares: HashMap<Tenant, Share> = tenants.into_iter().zip(running).map(share).collect();
        for tenant in companions.freed_slots() {
            if let Some(share) = shares.get_mut(tenant) {
                share.running = share.running.saturating_sub(1);
            }
        }
        Ok(shares)
    }

    /// Up to `capacity` tasks in their order, without those that should be left to a better worker, and those that are cancelled on
    /// the way. A tenant whose next task is one of these is passed over: there may be thousands more, and other tenants shall not
    /// wait until a sweep has reached them all.
    async fn pick(
        &self,
        claimant: &Claimant,
        round: &mut Round<'_>,
        capacity: usize,
        gates: &Gates,
        now: UnixMs,
    ) -> Result<Picked, Refusal> {
        let mut picked = Picked::default();
        while round.left < MAX_LEFT {
            let picks = round.reserve(picked.room(capacity));
            if picks.is_empty() {
                break;
            }
            let ids: Vec<TaskId> = picks.iter().map(|(task, _)| task.clone()).collect();
            let loaded = self.load(&ids).await?;
            let inputs = self.inputs(&loaded).await?;
            let mut picks: HashMap<TaskId, Pick> = picks.into_iter().collect();
            for (loaded, inputs) in loaded.into_iter().zip(inputs) {
                let Some(pick) = picks.remove(loaded.id()) else { continue };
                match gates.gate(&loaded.job.value) {
                    _ if loaded.is_stopping() => picked.cancel(round, &pick, loaded),
                    Gate::Cancelled => picked.cancel(round, &pick, loaded),
                    Gate::Paused => {}
                    Gate::Open if self.is_left(claimant, &loaded, &inputs, now) => round.left += 1,
                    Gate::Open => picked.candidates.push(Candidate { pick, loaded }),
                }
            }
        }
        Ok(picked)
    }

    /// Leases the candidates and cancels what shall not run any more, each only if its tenant's queue is still as it was read.
    async fn lease(
        &self,
        claimant: &Claimant,
        picked: &Picked,
        gates: &Gates,
        now: UnixMs,
        companions: &mut Companions,
    ) -> Result<Claimed, Refusal> {
        let candidates = picked.candidates.iter().map(|candidate| (&candidate.loaded, Some(candidate)));
        let cancelled = picked.cancelled.iter().map(|loaded| (loaded, None));
        let (mut changes, mut changed) = (Vec::new(), Vec::new());
        for (loaded, candidate) in candidates.chain(cancelled) {
            let mut change = Change::new(loaded, now);
            gates.hold(&mut change);
            let event = if candidate.is_some() {
                claimant.host.clone_into(&mut change.task_mut().host);
                Event::Claim(claimant.id.clone())
            } else {
                Event::Cancel
            };
            // It may have been taken since the index was read; then a new read of the index does not show it.
            if change.happen(&event, &self.rules).is_ok()
                && let Some(prepared) = change.prepare()?
            {
                changes.push(prepared);
                changed.push(candidate);
            }
        }
        let applied = companions.commit_with(self, changes).await?;
        let raced = applied.iter().any(Option::is_none);
        let leased = changed.into_iter().zip(applied).filter_map(|(candidate, applied)| Some((candidate?, applied?)));
        let (leased, tasks): (Vec<&Candidate>, Vec<Holding>) = leased.unzip();
        self.claims.served(leased.iter().map(|candidate| &candidate.pick));
        leased.iter().for_each(|candidate| self.left.taken(candidate.loaded.id()));
        Ok(Claimed { tasks, raced })
    }
}

/// Whether a worker has what the tasks of a queue require.
fn may_serve(claimant: &Claimant, queue: &QueueName) -> bool {
    claimant.capabilities.meet(&queue.requirements)
}

/// Leaves out up to `most` first tasks of each queue, at random. A race is lost to another coordinator, which then has a task, and so
/// all of them together always get on; but two that look at the same place again would waste each other's reads.
fn scatter(queues: &mut [Heads], most: usize, dice: &mut StdRng) {
    for queue in queues {
        let spare = queue.entries.len().saturating_sub(1).min(most);
        queue.entries.drain(..dice.random_range(0..=spare));
    }
}
