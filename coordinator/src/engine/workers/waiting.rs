//! The workers whose calls are held until tasks become ready, and which of them to wake. Waking a thousand workers for one task would delay
//! the task until all of them had looked. So only as many workers are woken as there are tasks, and only workers that meet the
//! requirements.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use sortinghat_proto::WorkerId;
use tokio::sync::Notify;

use super::claimant::Claimant;
use crate::engine::records::Demand;

/// The waiting workers, in the order in which they began to wait.
#[derive(Debug, Default)]
pub(crate) struct WaitingWorkers {
    places: Mutex<Places>,
    /// Notified when a woken worker has left without looking for tasks.
    again: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Places {
    last_number: u64,
    by_number: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    worker: Claimant,
    slots: usize,
    woken: Arc<Notify>,
}

/// The place of a worker among the waiting workers.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    waiting: &'a WaitingWorkers,
    number: u64,
    woken: Arc<Notify>,
    has_looked: bool,
}

impl WaitingWorkers {
    /// Adds a worker with free slots to the waiting workers. A call must do this before it looks for tasks, so that it does not miss a task
    /// that becomes ready after the look.
    pub(crate) fn enter(&self, claimant: &Claimant, slots: usize) -> Place<'_> {
        let woken = Arc::new(Notify::new());
        let mut places = self.places();
        places.last_number += 1;
        let number = places.last_number;
        if slots > 0 {
            let waiting = Waiting { worker: claimant.clone(), slots, woken: woken.clone() };
            places.by_number.insert(number, waiting);
        }
        let has_looked = slots == 0;
        Place { waiting: self, number, woken, has_looked }
    }

    /// Wakes workers that meet the demand, until those woken have a slot for each of the tasks. Returns whether more such workers wait.
    pub(crate) fn wake(&self, tasks: usize, demand: Demand<'_>) -> bool {
        let mut places = self.places();
        let mut left = tasks;
        let able = places.by_number.iter().filter(|(_, waiting)| waiting.worker.ability.meets(demand));
        let mut able = able.map(|(number, waiting)| (*number, waiting.slots));
        let mut numbers = Vec::new();
        while left > 0
            && let Some((number, slots)) = able.next()
        {
            numbers.push(number);
            left = left.saturating_sub(slots);
        }
        let has_more = able.next().is_some();
        numbers.iter().for_each(|number| places.wake(*number));
        has_more
    }

    /// Wakes this worker, if it waits.
    pub(crate) fn wake_worker(&self, worker: &WorkerId) {
        self.wake_first(|waiting| waiting.worker.id == *worker);
    }

    /// Wakes one worker on another machine that meets the demand.
    pub(crate) fn wake_elsewhere(&self, host: &str, demand: Demand<'_>) {
        self.wake_first(|waiting| waiting.worker.host != host && waiting.worker.ability.meets(demand));
    }

    fn wake_first(&self, is_meant: impl Fn(&Waiting) -> bool) {
        let mut places = self.places();
        if let Some(number) = places.by_number.iter().find(|(_, waiting)| is_meant(waiting)).map(|(number, _)| *number)
        {
            places.wake(number);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places().by_number.is_empty()
    }

    /// Returns when a woken worker has left without looking for tasks, so that another worker should look.
    pub(crate) async fn unlooked(&self) {
        self.again.notified().await;
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock()
    }
}

impl Places {
    fn wake(&mut self, number: u64) {
        if let Some(waiting) = self.by_number.remove(&number) {
            waiting.woken.notify_one();
        }
    }
}

impl Place<'_> {
    /// Returns when the worker is woken. The caller must look for tasks after that.
    pub(crate) async fn woken(&mut self) {
        self.woken.notified().await;
        self.has_looked = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let was_woken = self.waiting.places().by_number.remove(&self.number).is_none();
        if was_woken && !self.has_looked {
            // The worker was woken for a task, but has not looked for it, so another worker should look.
            self.waiting.again.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use sortinghat_proto::{Requirements, Tenant};

    use super::{super::claimant::Ability, *};
    use crate::{auth::Served, queue::Capabilities};

    fn claimant(name: &str) -> Claimant {
        let id = name.parse().expect("a worker's id");
        let ability = Ability { serves: Served::only(tenant("a")), capabilities: Capabilities::default() };
        Claimant { id, host: format!("host-of-{name}"), ability }
    }

    fn tenant(name: &str) -> Tenant {
        name.parse().expect("a tenant")
    }

    /// Wakes workers for tasks of this tenant that require nothing.
    fn wake(waiting: &WaitingWorkers, tasks: usize, of: &str) -> bool {
        waiting.wake(tasks, Demand { tenant: &tenant(of), requirements: &Requirements::default() })
    }

    fn wake_elsewhere(waiting: &WaitingWorkers, host: &str, of: &str) {
        waiting.wake_elsewhere(host, Demand { tenant: &tenant(of), requirements: &Requirements::default() });
    }

    fn is_woken(place: &mut Place<'_>) -> bool {
        place.woken().now_or_never().is_some()
    }

    #[test]
    fn as_many_workers_are_woken_as_there_are_tasks_and_the_longest_waiting_first() {
        let waiting = WaitingWorkers::default();
        let mut places =
            [("w1", 2), ("w2", 0), ("w3", 1), ("w4", 1)].map(|(name, slots)| waiting.enter(&claimant(name), slots));
        assert!(!wake(&waiting, 3, "b"), "they do not serve this tenant");
        assert!(wake(&waiting, 3, "a"));
        assert_eq!(places.each_mut().map(is_woken), [true, false, true, false]);
        assert!(!wake(&waiting, 3, "a"));
        assert_eq!(places.each_mut().map(is_woken), [false, false, false, true]);
    }

    #[test]
    fn a_woken_worker_that_leaves_without_a_look_lets_another_worker_look() {
        let waiting = WaitingWorkers::default();
        let has_to_look = || waiting.unlooked().now_or_never().is_some();
        drop(waiting.enter(&claimant("w1"), 1));
        assert!(!has_to_look());
        let place = waiting.enter(&claimant("w2"), 1);
        waiting.wake_worker(&claimant("w2").id);
        drop(place);
        assert!(has_to_look());
        let mut place = waiting.enter(&claimant("w3"), 1);
        wake_elsewhere(&waiting, "host-of-w3", "a");
        wake_elsewhere(&waiting, "host-of-w2", "b");
        assert!(!is_woken(&mut place));
        wake_elsewhere(&waiting, "host-of-w2", "a");
        assert!(is_woken(&mut place));
        drop(place);
        assert!(!has_to_look());
    }
}
