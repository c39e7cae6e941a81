//! One try of a claim: the order of the ready tasks, and which of them nobody else of this process claims meanwhile.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{TaskId, Tenant};

use crate::{
    engine::{changes::Loaded, records::keys},
    queue::{ClaimOrder, Heads, Pick, Share, Turns},
};

/// Tasks that one try of a claim cancels because they shall not run any more.
const MAX_CANCELLED: usize = 64;

/// What claims of this process know of each other, so that they neither race for the same tasks nor forget whose turn it is.
/// Versions are what makes a claim safe.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    turns: Turns,
    /// Tasks that are being claimed, with their tenants.
    tasks: HashMap<TaskId, Tenant>,
}

/// One try of a claim. The tasks that it has reserved are free again when it is dropped.
pub(super) struct Round<'a> {
    claims: &'a Claims,
    order: ClaimOrder,
    reserved: Vec<TaskId>,
    /// Tasks that were left to better workers.
    pub(super) left: usize,
}

/// A task that is picked and read.
pub(super) struct Candidate {
    pub(super) pick: Pick,
    pub(super) loaded: Loaded,
}

/// What a try has picked.
#[derive(Default)]
pub(super) struct Picked {
    /// Tasks that the worker shall have.
    pub(super) candidates: Vec<Candidate>,
    /// Tasks that shall not run any more: they are cancelled on the way, so that they are not in the way next time. None of them takes the
    /// place of a candidate.
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
    /// The next up to `count` tasks that are not being claimed; nobody else gets them until this round ends.
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

    /// How many tasks may be picked next.
    pub(super) fn room(&self, capacity: usize) -> usize {
        (capacity - self.candidates.len()).min(MAX_CANCELLED - self.cancelled.len())
    }

    /// Cancels a task instead of giving it to the worker. Its tenant's turn is passed over.
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

    /// Begins a try. What is being claimed counts as running already.
    pub(super) fn begin(&self, queues: Vec<Heads>, mut shares: HashMap<Tenant, Share>) -> Round<'_> {
        let under_way = self.under_way();
        for tenant in under_way.tasks.values() {
            shares.entry(tenant.clone()).or_default().running += 1;
        }
        let order = ClaimOrder::new(queues, shares, under_way.turns.clone());
        Round { claims: self, order, reserved: Vec::new(), left: 0 }
    }

    /// Notes whose turn it was.
    pub(super) fn served(&self, picks: &[Pick]) {
        let mut under_way = self.under_way();
        picks.iter().for_each(|pick| under_way.turns.served(pick));
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock()
    }
}

/// Leaves out up to `most` first tasks of each queue, at random. A race is lost to another coordinator, which then has a task, and so
/// all coordinators together always get on; but two that look at the same place again would waste each other's reads.
pub(super) fn scatter(queues: &mut [Heads], most: usize, dice: &mut StdRng) {
    for queue in queues {
        let spare = queue.entries.len().saturating_sub(1).min(most);
        queue.entries.drain(..dice.random_range(0..=spare));
    }
}
