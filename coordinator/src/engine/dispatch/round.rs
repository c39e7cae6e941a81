//! A round is one try of a claim. It knows the order of the ready tasks, and reserves tasks so that no other claim of this process takes
//! them.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{TaskId, Tenant};

use crate::{
    engine::{changes::Loaded, records::keys},
    queue::{ClaimOrder, Heads, Pick, Share, Turns},
};

/// How many tasks one round cancels because they must not run any more.
const MAX_CANCELLED: usize = 64;

/// What the claims of this process know about each other, so that they do not race for the same tasks, and remember whose turn it is. This
/// only saves work: the versions of records are what makes a claim safe.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    turns: Turns,
    /// The tasks that are being claimed, with their tenants.
    tasks: HashMap<TaskId, Tenant>,
}

/// One try of a claim. Its reserved tasks are free again when it is dropped.
pub(super) struct Round<'a> {
    claims: &'a Claims,
    order: ClaimOrder,
    reserved: Vec<TaskId>,
    /// How many tasks were deferred to better workers.
    pub(super) deferred: usize,
}

/// A task that was picked and read.
pub(super) struct Candidate {
    pub(super) pick: Pick,
    pub(super) loaded: Loaded,
}

/// The tasks that a round has picked.
#[derive(Default)]
pub(super) struct Picked {
    /// The tasks to lease to the worker.
    pub(super) candidates: Vec<Candidate>,
    /// The tasks to cancel, because they must not run any more. They are cancelled so that the next claim does not meet them again. They do
    /// not count against the capacity of the worker.
    pub(super) cancelled: Vec<Loaded>,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let mut under_way = self.claims.under_way();
        for task in &self.reserved {
            under_way.tasks.remove(task);
        }
    }
}

impl Round<'_> {
    /// Reserves the next up to `count` tasks that are not being claimed. No other claim of this process gets them until this round ends.
    pub(super) fn reserve(&mut self, count: usize) -> Vec<(TaskId, Pick)> {
        let mut under_way = self.claims.under_way();
        let named = self.order.by_ref().filter_map(|pick| Some((keys::task_of_entry(&pick.entry)?, pick)));
        let picks: Vec<_> = named.filter(|(task, _)| !under_way.tasks.contains_key(task)).take(count).collect();
        under_way.tasks.extend(picks.iter().map(|(task, pick)| (task.clone(), pick.tenant.clone())));
        self.reserved.extend(picks.iter().map(|(task, _)| task.clone()));
        picks
    }
}

impl Picked {
    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.cancelled.is_empty()
    }

    /// How many tasks may be picked in the next step.
    pub(super) fn room(&self, capacity: usize) -> usize {
        (capacity - self.candidates.len()).min(MAX_CANCELLED - self.cancelled.len())
    }

    /// Picks a task to cancel. Its tenant is passed over.
    pub(super) fn cancel(&mut self, round: &mut Round<'_>, pick: &Pick, loaded: Loaded) {
        round.order.pass_over(pick);
        self.cancelled.push(loaded);
    }
}

impl Claims {
    /// How many tasks are being claimed.
    pub(super) fn len(&self) -> usize {
        self.under_way().tasks.len()
    }

    /// Begins a round. Tasks that are being claimed already count as running.
    pub(super) fn begin(&self, queues: Vec<Heads>, mut shares: HashMap<Tenant, Share>) -> Round<'_> {
        let under_way = self.under_way();
        for tenant in under_way.tasks.values() {
            shares.entry(tenant.clone()).or_default().running += 1;
        }
        let order = ClaimOrder::new(queues, shares, under_way.turns.clone());
        Round { claims: self, order, reserved: Vec::new(), deferred: 0 }
    }

    /// Notes that the tenants of these tasks have had their turn.
    pub(super) fn served(&self, picks: &[Pick]) {
        let mut under_way = self.under_way();
        picks.iter().for_each(|pick| under_way.turns.served(pick));
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock()
    }
}

/// Skips up to `most` first tasks of each queue, at random. A claim that loses a race loses it to another coordinator that then has the
/// task, so all coordinators together always make progress. But two coordinators that look at the same tasks again would waste each other's
/// reads.
pub(super) fn scatter(queues: &mut [Heads], most: usize, dice: &mut StdRng) {
    for queue in queues {
        let spare = queue.entries.len().saturating_sub(1).min(most);
        queue.entries.drain(..dice.random_range(0..=spare));
    }
}
