//! The state of a simulated worker, and its messages. No I/O and no clock.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use sortinghat_proto::v1::{
    Assignment, LeaseKey, LeaseReport, SynchronizeRequest, SynchronizeResponse, TaskCancelled, TaskOutcome,
    task_outcome::Outcome,
};
use tokio::time::Instant;

use super::Work;

/// A task and its epoch.
type Key = (String, u64);

#[derive(Debug)]
struct Held {
    /// The assignment; `None` for a lease that arrived without one.
    assignment: Option<Assignment>,
    /// When the task ends; `None` while it waits for a slot.
    ends: Option<Instant>,
    /// Grows with every message, so the task always makes progress.
    beat: u64,
    outcome: Option<Outcome>,
}

/// The state of a simulated worker.
#[derive(Debug)]
pub(super) struct State {
    slots: usize,
    ahead: usize,
    leases: BTreeMap<Key, Held>,
    lease_ttl: Duration,
    draining: bool,
    /// Whether the coordinator has answered a message that announced the drain.
    farewell_heard: bool,
}

const DRAINING: &str = "the worker drains";

impl State {
    pub(super) fn new(slots: usize, ahead: usize) -> Self {
        let leases = BTreeMap::new();
        Self { slots, ahead, leases, lease_ttl: Duration::ZERO, draining: false, farewell_heard: false }
    }

    /// Takes no new tasks from now on, and gives the running tasks back.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        for held in self.leases.values_mut().filter(|held| held.outcome.is_none()) {
            held.outcome = Some(Outcome::Returned(DRAINING.to_owned()));
        }
    }

    /// Whether the worker has nothing left to report.
    pub(super) fn has_left(&self) -> bool {
        self.farewell_heard && self.leases.is_empty()
    }

    /// How long the next answer may be held. It may not be held until the duration of a lease is known, and while the worker drains.
    pub(super) fn patience(&self) -> Duration {
        if self.draining { Duration::ZERO } else { self.lease_ttl / 3 }
    }

    /// When the next running task ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leases.values().filter(|held| held.outcome.is_none()).filter_map(|held| held.ends).min()
    }

    /// Ends the tasks whose time is over, and starts the tasks that waited for their slots.
    pub(super) fn finish_due(&mut self, now: Instant, work: &dyn Work) {
        while self.next_end().is_some_and(|end| end <= now) {
            for held in self.leases.values_mut().filter(|held| held.ends.is_some_and(|end| end <= now)) {
                held.finish(work);
            }
            self.start_waiting(now, work);
        }
    }

    fn start_waiting(&mut self, now: Instant, work: &dyn Work) {
        let running = self.leases.values().filter(|held| held.outcome.is_none() && held.ends.is_some()).count();
        let waiting = self.leases.values_mut().filter(|held| held.outcome.is_none() && held.ends.is_none());
        for held in waiting.take(self.slots.saturating_sub(running)) {
            held.start(now, work);
        }
    }

    /// The next message, without the worker's description.
    pub(super) fn request(&mut self) -> SynchronizeRequest {
        let taken = self.leases.values().filter(|held| held.outcome.is_none()).count();
        // Like a real worker, asks for tasks ahead only together with reports of tasks that have ended.
        let ahead = if taken < self.leases.len() { self.ahead } else { 0 };
        let free = if self.draining { 0 } else { (self.slots + ahead).saturating_sub(taken) };
        let leases = self.leases.iter_mut().map(|((task_id, epoch), held)| held.report(task_id, *epoch)).collect();
        SynchronizeRequest {
            leases,
            free_slots: u32::try_from(free).expect("slots are few"),
            draining: self.draining,
            wait_ms: u32::try_from(self.patience().as_millis()).expect("a lease is at most an hour"),
            ..SynchronizeRequest::default()
        }
    }

    /// Takes an answer: forgets acknowledged and lost leases, and starts new tasks.
    pub(super) fn take(&mut self, response: SynchronizeResponse, now: Instant, work: &dyn Work) {
        self.lease_ttl = Duration::from_millis(response.lease_ttl_ms.into());
        // An order to drain abandons the message that is under way, so this answers a message that announced the drain.
        self.farewell_heard = self.draining;
        for LeaseKey { task_id, epoch } in response.acknowledged {
            self.leases.remove(&(task_id, epoch));
        }
        let mut listed = HashSet::new();
        for lease in response.leases {
            let Some(LeaseKey { task_id, epoch }) = lease.key else { continue };
            let key = (task_id, epoch);
            let take = || match self.draining {
                true => Held::refuse(DRAINING),
                false => Held::take(lease.assignment),
            };
            let held = self.leases.entry(key.clone()).or_insert_with(take);
            if lease.cancel && held.outcome.is_none() {
                held.outcome = Some(Outcome::Cancelled(TaskCancelled {}));
            }
            listed.insert(key);
        }
        self.leases.retain(|key, held| held.outcome.is_some() || listed.contains(key));
        self.start_waiting(now, work);
    }
}

impl Held {
    fn take(assignment: Option<Assignment>) -> Self {
        match assignment {
            Some(task) => Self { assignment: Some(task), ends: None, beat: 0, outcome: None },
            None => Self::refuse("this worker does not know the lease"),
        }
    }

    fn refuse(why: &str) -> Self {
        Self { assignment: None, ends: None, beat: 0, outcome: Some(Outcome::Returned(why.to_owned())) }
    }

    fn start(&mut self, now: Instant, work: &dyn Work) {
        self.ends = self.assignment.as_ref().map(|task| now + work.start(task));
    }

    fn finish(&mut self, work: &dyn Work) {
        if self.outcome.is_none() {
            self.outcome = self.assignment.as_ref().map(|task| work.finish(task));
        }
    }

    fn report(&mut self, task_id: &str, epoch: u64) -> LeaseReport {
        self.beat += 1;
        LeaseReport {
            task_id: task_id.to_owned(),
            epoch,
            progress: None,
            beat: self.beat,
            events: Vec::new(),
            outcome: self.outcome.clone().map(|outcome| TaskOutcome { outcome: Some(outcome) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::v1::Lease;

    use super::*;

    struct Minute;

    impl Work for Minute {
        fn start(&self, _: &Assignment) -> Duration {
            Duration::from_secs(60)
        }

        fn finish(&self, _: &Assignment) -> Outcome {
            Outcome::Crashed("by plan".to_owned())
        }
    }

    fn lease(epoch: u64) -> Lease {
        let key = LeaseKey { task_id: "task".to_owned(), epoch };
        Lease { key: Some(key), assignment: Some(Assignment::default()), ..Lease::default() }
    }

    fn acknowledgement(epoch: u64) -> SynchronizeResponse {
        let acknowledged = vec![LeaseKey { task_id: "task".to_owned(), epoch }];
        SynchronizeResponse { acknowledged, ..Default::default() }
    }

    #[test]
    fn a_completion_is_repeated_until_it_is_acknowledged_and_a_lost_lease_is_forgotten() {
        let mut state = State::new(2, 0);
        let now = Instant::now();
        let leases = vec![lease(1), lease(2)];
        state.take(SynchronizeResponse { leases, lease_ttl_ms: 3_000, ..Default::default() }, now, &Minute);
        assert_eq!(state.request().free_slots, 0);
        state.take(SynchronizeResponse { leases: vec![lease(2)], ..Default::default() }, now, &Minute);
        assert_eq!(state.request().leases.len(), 1, "the first lease was lost");

        state.finish_due(now + Duration::from_secs(61), &Minute);
        for _ in 0..2 {
            state.take(SynchronizeResponse { leases: vec![lease(2)], ..Default::default() }, now, &Minute);
            assert!(state.request().leases[0].outcome.is_some(), "the outcome is not acknowledged yet");
        }
        state.take(acknowledgement(2), now, &Minute);
        assert!(state.leases.is_empty());
    }

    #[test]
    fn a_task_that_was_taken_ahead_starts_when_a_slot_is_free() {
        let mut state = State::new(1, 1);
        let now = Instant::now();
        assert_eq!(state.request().free_slots, 1);
        state.take(SynchronizeResponse { leases: vec![lease(1), lease(2)], ..Default::default() }, now, &Minute);
        let minute = |number: u64| now + Duration::from_secs(60 * number);
        assert_eq!((state.request().free_slots, state.next_end()), (0, Some(minute(1))));
        state.finish_due(minute(1), &Minute);
        assert_eq!((state.request().free_slots, state.next_end()), (1, Some(minute(2))));
    }

    #[test]
    fn a_draining_worker_gives_back_its_running_tasks_and_those_that_it_is_given_meanwhile() {
        let mut state = State::new(1, 0);
        let now = Instant::now();
        state.take(SynchronizeResponse { leases: vec![lease(1)], ..Default::default() }, now, &Minute);
        state.drain();
        state.take(SynchronizeResponse { leases: vec![lease(1), lease(2)], ..Default::default() }, now, &Minute);
        let told = state.request();
        assert!(told.draining && told.free_slots == 0);
        for (report, epoch) in told.leases.iter().zip(1..) {
            let outcome = report.outcome.as_ref().and_then(|outcome| outcome.outcome.as_ref());
            assert!(report.epoch == epoch && matches!(outcome, Some(Outcome::Returned(_))), "{report:?}");
        }
        for epoch in [1, 2] {
            assert!(!state.has_left());
            state.take(acknowledgement(epoch), now, &Minute);
        }
        assert!(state.has_left());
    }
}
