//! Giving ready tasks to a worker.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::future;
use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{Refusal, TaskId, Tenant, WorkerId, time::UnixMs, v1};

use super::{
    MAX_TRIES, Shared, bounded,
    change::{Change, Holding, Prepared},
    companions::Companions,
    failures::Failures,
    keys::{self, QueueName},
    load::{Loaded, by_id},
    tenant_queue::{Gate, Gates},
};
use crate::{
    queue::{Capabilities, ClaimOrder, Event, Heads, Pick, Share, Turns},
    store::Range,
};

/// Tasks that one call may claim.
pub(super) const MAX_CLAIMS: usize = 64;
/// Entries of one queue that a claim looks at, at most.
const MAX_WINDOW: usize = 4 * MAX_CLAIMS;
/// Tasks that one try of a claim cancels because they shall not run any more.
const MAX_CANCELLED: usize = 64;
/// Tasks that a claim leaves to better workers before it gives up for now.
const MAX_LEFT: usize = 16;

/// The worker that a claim is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) id: WorkerId,
    pub(super) host: String,
    pub(super) capabilities: Capabilities,
}

impl Claimant {
    /// A worker as it describes itself.
    pub(super) fn new(id: WorkerId, description: &v1::WorkerDescription) -> Self {
        Self { id, host: bounded(description.host.clone()), capabilities: description.into() }
    }
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
    /// The tasks that came next when somebody looked last.
    next: Vec<TaskId>,
}

/// One try of a claim: the order of the tasks, and those that nobody else of this process claims meanwhile.
struct Round<'a> {
    claims: &'a Claims,
    order: ClaimOrder,
    reserved: Vec<TaskId>,
    /// Tasks that were left to better workers.
    left: usize,
}

/// What may be claimed: the first tasks of the queues that a worker may serve, and what holds for their tenants.
pub(super) struct Ready {
    queues: Vec<Heads>,
    gates: Gates,
    /// There are no more tasks.
    is_all: bool,
    /// Tasks that are probably picked.
    expected: HashMap<TaskId, Loaded>,
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

/// What a try has found, and the changes that make it the worker's, none of them applied yet.
pub(super) struct Found<'a> {
    changes: Vec<Prepared>,
    /// Which task is leased by each change; none by one that cancels.
    picks: Vec<Option<Pick>>,
    /// Nobody else of this process claims these tasks before that is decided.
    _round: Round<'a>,
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

    /// Lets the next claim expect the up to `count` tasks that follow.
    fn leave_next(&mut self, count: usize) {
        let next = self.order.by_ref().filter_map(|pick| keys::task_of_entry(&pick.entry)).take(count).collect();
        self.claims.going().next = next;
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

impl Ready {
    /// Whether it is enough for so many slots.
    pub(super) fn suffices(&self, capacity: usize) -> bool {
        self.queues.iter().map(|queue| queue.entries.len()).sum::<usize>() >= capacity
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

    /// The tasks that a claim of up to `count` will probably pick. The claim after it expects others.
    fn expected(&self, count: usize) -> Vec<TaskId> {
        let next = &mut self.going().next;
        next.drain(..count.min(next.len())).collect()
    }

    fn served(&self, picks: &[Pick]) {
        let mut going = self.going();
        picks.iter().for_each(|pick| going.turns.served(pick));
    }
}

impl Shared {
    /// Leases up to `capacity` tasks to a worker, in the order of [`ClaimOrder`], and returns them. They are found in its
    /// index of held tasks from then on, whether or not the answer reaches it. What the first try has found may be given. The
    /// companions go along with the leases, if there are any. Only a store that fails is an error: what a worker says of the tasks that
    /// it holds is not refused because another cannot be claimed.
    pub(super) async fn claim(
        &self,
        claimant: &Claimant,
        capacity: usize,
        mut first: Option<Result<Option<Found<'_>>, Refusal>>,
        companions: &mut Companions,
    ) -> Result<Vec<Holding>, Refusal> {
        if capacity == 0 {
            return Ok(Vec::new());
        }
        let mut lost_races = 0;
        for _ in 0..MAX_TRIES {
            let found = match first.take() {
                Some(found) => found?,
                None => {
                    let now = async { Ok(self.store.now().await?) };
                    let (ready, now) = future::try_join(self.ready(claimant, capacity, lost_races), now).await?;
                    self.find_tasks(claimant, capacity, ready, &[], now).await?
                }
            };
            let Some(found) = found else { return Ok(Vec::new()) };
            let claimed = self.lease(found, companions).await?;
            if !claimed.tasks.is_empty() {
                self.sessions.gave(&claimant.id, claimed.tasks.len());
                return Ok(claimed.tasks);
            }
            lost_races += usize::from(claimed.raced);
        }
        // Others took them all, time and again; the next poll tries again.
        Ok(Vec::new())
    }

    /// What there is for a worker that claims up to `capacity` tasks and has lost so many races for them.
    pub(super) async fn ready(
        &self,
        claimant: &Claimant,
        capacity: usize,
        lost_races: usize,
    ) -> Result<Ready, Refusal> {
        let window = capacity * (lost_races + 1) + self.claims.going().tasks.len() + MAX_LEFT;
        let window = window.min(MAX_WINDOW);
        let expected = self.claims.expected(capacity);
        // One that cannot be read is a failure where it is picked.
        let mut unreadable = Failures::default();
        let expected = self.load_readable(&expected, &mut unreadable);
        let ((mut queues, gates), expected) = future::try_join(self.heads(claimant, window), expected).await?;
        let is_all = queues.iter().all(|queue| queue.entries.len() < window);
        scatter(&mut queues, lost_races * capacity, &mut self.dice());
        Ok(Ready { queues, gates, is_all, expected: by_id(expected) })
    }

    /// The first tasks of the queues that this worker may serve, only of queues that have any; and what holds for their tenants. Which
    /// queues are open seldom changes, and so those that were are read beside their list.
    async fn heads(&self, claimant: &Claimant, window: usize) -> Result<(Vec<Heads>, Gates), Refusal> {
        let served = |queues: &[QueueName]| -> Vec<QueueName> {
            queues.iter().filter(|queue| claimant.capabilities.meet(&queue.requirements)).cloned().collect()
        };
        let expected = served(&self.last_open.queues());
        let (open, heads) = future::try_join(self.open_queues(), self.heads_of(&expected, window)).await?;
        let open = served(&open);
        if open == expected { Ok(heads) } else { self.heads_of(&open, window).await }
    }

    async fn heads_of(&self, queues: &[QueueName], window: usize) -> Result<(Vec<Heads>, Gates), Refusal> {
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

    /// Picks up to `capacity` tasks of those that are ready, and prepares to lease them. What shall not run any more is cancelled. Each
    /// change applies only if its tenant's queue is still as it was read. `None` if there is no task to be had. `freed` are the tenants
    /// whose slots become free with what goes along, each as often as one does.
    pub(super) async fn find_tasks(
        &self,
        claimant: &Claimant,
        capacity: usize,
        ready: Ready,
        freed: &[Tenant],
        now: UnixMs,
    ) -> Result<Option<Found<'_>>, Refusal> {
        let Ready { queues, gates, is_all, expected } = ready;
        let shares = self.shares(&queues, freed).await?;
        let mut round = self.claims.begin(queues, shares);
        let picked = self.pick(claimant, &mut round, capacity, &gates, expected, now).await?;
        round.leave_next(capacity);
        if picked.is_empty() && (is_all || round.left > 0) {
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
            // It may have been taken since the index was read; then a new read of the index does not show it.
            if change.happen(&event, &self.rules).is_ok()
                && let Some(prepared) = failures.pass(change.prepare())?
            {
                changes.push(prepared);
                picks.push(pick);
            }
        }
        self.pass_over(failures);
        Ok(Some(Found { changes, picks, _round: round }))
    }

    /// What the tenants of these queues run once the freed slots are free. Only read where there is somebody to share with.
    async fn shares(&self, queues: &[Heads], freed: &[Tenant]) -> Result<HashMap<Tenant, Share>, Refusal> {
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
        for tenant in freed {
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
        mut expected: HashMap<TaskId, Loaded>,
        now: UnixMs,
    ) -> Result<Picked, Refusal> {
        let (mut picked, mut failures) = (Picked::default(), Failures::default());
        while round.left < MAX_LEFT {
            let picks = round.reserve(picked.room(capacity));
            if picks.is_empty() {
                break;
            }
            let unknown = picks.iter().map(|(task, _)| task).filter(|task| !expected.contains_key(task));
            let unknown: Vec<TaskId> = unknown.cloned().collect();
            expected.extend(by_id(self.load_readable(&unknown, &mut failures).await?));
            let read = picks.into_iter().filter_map(|(task, pick)| Some((pick, expected.remove(&task)?)));
            let (picks, loaded): (Vec<Pick>, Vec<Loaded>) = read.unzip();
            let inputs = self.inputs(&loaded).await?;
            for ((pick, loaded), inputs) in picks.into_iter().zip(loaded).zip(inputs) {
                match gates.gate(&loaded.job.value) {
                    _ if loaded.is_stopping() => picked.cancel(round, &pick, loaded),
                    Gate::Cancelled => picked.cancel(round, &pick, loaded),
                    Gate::Paused => {}
                    Gate::Open if self.is_left(claimant, &loaded, &inputs, now) => round.left += 1,
                    Gate::Open => picked.candidates.push(Candidate { pick, loaded }),
                }
            }
        }
        self.pass_over(failures);
        Ok(picked)
    }

    /// Tells people of ready tasks that nobody can have.
    fn pass_over(&self, failures: Failures) {
        if let Err(refusal) = failures.or(()) {
            metrics::counter!("sortinghat_claim_failures_total").increment(1);
            self.said.error(&refusal, "a ready task is passed over");
        }
    }

    /// Applies what was found, together with the companions.
    async fn lease(&self, found: Found<'_>, companions: &mut Companions) -> Result<Claimed, Refusal> {
        let Found { changes, picks, _round } = found;
        let applied = companions.commit_with(self, changes).await?;
        let raced = applied.iter().any(Option::is_none);
        let leased = picks.into_iter().zip(applied).filter_map(|(pick, applied)| Some((pick?, applied?)));
        let (picks, tasks): (Vec<Pick>, Vec<Holding>) = leased.unzip();
        self.claims.served(&picks);
        tasks.iter().for_each(|holding| self.left.taken(&holding.task().task.id));
        Ok(Claimed { tasks, raced })
    }
}

/// Leaves out up to `most` first tasks of each queue, at random. A race is lost to another coordinator, which then has a task, and so
/// all of them together always get on; but two that look at the same place again would waste each other's reads.
fn scatter(queues: &mut [Heads], most: usize, dice: &mut StdRng) {
    for queue in queues {
        let spare = queue.entries.len().saturating_sub(1).min(most);
        queue.entries.drain(..dice.random_range(0..=spare));
    }
}
