//! Giving ready tasks to a worker.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
};

use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{Refusal, TaskId, Tenant, WorkerId};

use super::{
    MAX_TRIES, Shared,
    change::Change,
    keys::{self, QueueName},
};
use crate::{
    queue::{Capabilities, ClaimOrder, Event, Heads, Pick, Share, Turns},
    store::Range,
};

/// Tasks that one call may claim.
const MAX_CLAIMS: usize = 64;
/// Entries of one queue that a claim looks at, at most.
const MAX_WINDOW: usize = 4 * MAX_CLAIMS;

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

/// Tasks that nobody else of this process claims meanwhile.
struct Reserved<'a> {
    claims: &'a Claims,
    picks: Vec<(TaskId, Pick)>,
}

/// What became of reserved tasks.
struct Claimed {
    /// How many the worker has now.
    tasks: usize,
    /// Some changed between the read and the batch.
    raced: bool,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut going = self.claims.going();
        for (task, _) in &self.picks {
            going.tasks.remove(task);
        }
    }
}

impl Claims {
    fn going(&self) -> MutexGuard<'_, Going> {
        self.0.lock().expect("no holder of the claims panics")
    }

    /// Picks up to `count` tasks in the order of claims, leaving out those that are being claimed.
    fn reserve(&self, mut queues: Vec<Heads>, mut shares: HashMap<Tenant, Share>, count: usize) -> Reserved<'_> {
        let mut going = self.going();
        for tenant in going.tasks.values() {
            shares.entry(tenant.clone()).or_default().running += 1;
        }
        let is_free = |entry: &String| keys::task_of_entry(entry).is_some_and(|task| !going.tasks.contains_key(&task));
        queues.iter_mut().for_each(|queue| queue.entries.retain(is_free));
        let order = ClaimOrder::new(queues, shares, going.turns.clone());
        let named = order.take(count).filter_map(|pick| Some((keys::task_of_entry(&pick.entry)?, pick)));
        let picks: Vec<(TaskId, Pick)> = named.collect();
        going.tasks.extend(picks.iter().map(|(task, pick)| (task.clone(), pick.tenant.clone())));
        Reserved { claims: self, picks }
    }

    fn served(&self, picks: impl Iterator<Item = Pick>) {
        let mut going = self.going();
        picks.for_each(|pick| going.turns.served(&pick));
    }
}

impl Shared {
    /// Leases up to `capacity` tasks to a worker, in the order of [`ClaimOrder`], and returns how many. They are found in its
    /// index of held tasks from then on, whether or not the answer reaches it.
    pub(super) async fn claim(&self, claimant: &Claimant, capacity: usize) -> Result<usize, Refusal> {
        let capacity = capacity.min(MAX_CLAIMS);
        if capacity == 0 {
            return Ok(0);
        }
        let mut lost_races = 0;
        for _ in 0..MAX_TRIES {
            let window = (capacity * (lost_races + 1) + self.claims.going().tasks.len()).min(MAX_WINDOW);
            let mut queues = self.heads(claimant, window).await?;
            let is_all = queues.iter().all(|queue| queue.entries.len() < window);
            scatter(&mut queues, lost_races * capacity, &mut self.dice());
            let shares = self.shares(&queues).await?;
            let reserved = self.claims.reserve(queues, shares, capacity);
            if reserved.picks.is_empty() && is_all {
                return Ok(0);
            }
            let claimed = self.claim_these(claimant, &reserved).await?;
            if claimed.tasks > 0 {
                return Ok(claimed.tasks);
            }
            lost_races += usize::from(claimed.raced);
        }
        // Others took them all, time and again; the next poll tries again.
        Ok(0)
    }

    /// The first tasks of the queues that this worker may serve; only of queues that have any.
    async fn heads(&self, claimant: &Claimant, window: usize) -> Result<Vec<Heads>, Refusal> {
        let open = self.open_queues().await?;
        let queues: Vec<QueueName> = open.into_iter().filter(|queue| may_serve(claimant, queue)).collect();
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let entries =
            self.store.ranges(queues.iter().map(|queue| Range::first(queue.index(), window)).collect()).await?;
        let heads = queues.into_iter().zip(entries).filter(|(_, entries)| !entries.is_empty());
        Ok(heads
            .map(|(queue, entries)| Heads { lane: queue.lane, tenant: queue.tenant, entries: entries.into() })
            .collect())
    }

    /// What the tenants of these queues run now. Only read where there is somebody to share with.
    async fn shares(&self, queues: &[Heads]) -> Result<HashMap<Tenant, Share>, Refusal> {
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
        Ok(tenants.into_iter().zip(running).map(share).collect())
    }

    async fn claim_these(&self, claimant: &Claimant, reserved: &Reserved<'_>) -> Result<Claimed, Refusal> {
        let now = self.store.now().await?;
        let ids: Vec<TaskId> = reserved.picks.iter().map(|(task, _)| task.clone()).collect();
        let mut changes = Vec::with_capacity(ids.len());
        let mut claimed = Vec::with_capacity(ids.len());
        let loaded = self.load(&ids).await?;
        for loaded in &loaded {
            let mut change = Change::new(loaded, now);
            claimant.host.clone_into(&mut change.host);
            // It may have been taken since the index was read; then a new read of the index does not show it.
            if change.happen(&Event::Claim(claimant.id.clone()), &self.rules).is_ok()
                && let Some(prepared) = change.prepare()?
            {
                changes.push(prepared);
                claimed.push(&loaded.task.value.task.id);
            }
        }
        let applied = self.commit_all(changes).await?;
        let raced = applied.iter().any(|applied| !applied);
        let claimed: HashSet<&TaskId> =
            claimed.into_iter().zip(applied).filter_map(|(task, applied)| applied.then_some(task)).collect();
        let served = reserved.picks.iter().filter(|(task, _)| claimed.contains(task));
        self.claims.served(served.map(|(_, pick)| pick.clone()));
        Ok(Claimed { tasks: claimed.len(), raced })
    }
}

/// Whether a worker may take tasks from a queue now. Whatever closes a queue to workers belongs here.
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
