//! What a worker knows, and what it does about an answer of the coordinator or a report of a slot. It does
//! no I/O and reads no clock.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    time::Duration,
};

use sortinghat_proto::{limits::MAX_LEASES_PER_WORKER, v1};
use tokio::time::Instant;
use v1::{LeaseKey, LeaseReport, SynchronizeRequest, SynchronizeResponse, attempt_event::Event, task_outcome::Outcome};

use super::{
    events::EventLog,
    health::{Health, Proof, Trouble},
    pace::{self, Pace},
};
use crate::executor::SlotReport;

/// A running task is reported at least this often, for its progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What to do to a slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Start { slot: usize, assignment: Box<v1::Assignment>, lease_end: Instant },
    Renew { slot: usize, lease_end: Instant },
    Cancel { slot: usize },
    HandBack { slot: usize },
}

/// Whether the coordinator should hear of something at once or with the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Now,
    Later,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    task_id: String,
    epoch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    /// No executor is ready.
    Empty,
    Free,
    Running(Key),
    /// A task is stopping whose lease this worker no longer has.
    Stopping,
}

#[derive(Debug, Default)]
struct Held {
    /// When the task started in a slot; `None` if it has not.
    started_at: Option<Instant>,
    progress: Option<v1::Progress>,
    beat: u64,
    events: EventLog,
    outcome: Option<Outcome>,
    /// Whether a message has reported that the task has ended.
    is_end_reported: bool,
    /// Whether the coordinator asked for the task to be cancelled.
    cancelled: bool,
    /// Why the task was asked to stop so that another attempt goes on; `None` if it was not.
    handed_back: Option<&'static str>,
}

/// A task that was taken ahead of a free slot.
#[derive(Debug)]
struct Waiting {
    key: Key,
    assignment: Box<v1::Assignment>,
    lease_end: Instant,
    since: Instant,
}

impl Waiting {
    /// When the task is given back unless it has started.
    fn end(&self) -> Instant {
        pace::end_of_wait(self.since).min(self.lease_end)
    }
}

/// When a message was sent, and when its answer came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange {
    pub(super) sent_at: Instant,
    pub(super) answered_at: Instant,
    /// Whether the coordinator was allowed to wait for news before it answered.
    pub(super) may_be_held: bool,
}

/// Everything that the worker knows.
#[derive(Debug)]
pub(super) struct State {
    slots: Vec<Slot>,
    /// Leases that wait for a slot, the oldest first.
    waiting: VecDeque<Waiting>,
    /// How many tasks the last message asked for ahead of free slots.
    ahead: usize,
    pace: Pace,
    leases: BTreeMap<Key, Held>,
    draining: bool,
    /// Whether the coordinator knows that this worker takes no more tasks.
    farewell_heard: bool,
    lease_ttl: Option<Duration>,
    health: Health,
}

const SHUTTING_DOWN: &str = "the worker is shutting down";
const PREEMPTED: &str = "it made way for a more urgent task";
const UNABLE: &str = "the worker cannot work now";
const KEPT_WAITING: &str = "the tasks before it took longer than expected";

impl State {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: vec![Slot::Empty; slots],
            waiting: VecDeque::new(),
            ahead: 0,
            pace: Pace::default(),
            leases: BTreeMap::new(),
            draining: false,
            farewell_heard: false,
            lease_ttl: None,
            health: Health::new(slots),
        }
    }

    /// How long the coordinator may hold the next answer: a third of a lease, less while there is progress to show. Zero
    /// until the length of a lease is known, and for a farewell.
    pub(super) fn patience(&self) -> Duration {
        let Some(ttl) = self.lease_ttl.filter(|_| !self.is_leaving()) else { return Duration::ZERO };
        let running = self.leases.values().any(|held| held.outcome.is_none());
        if running { (ttl / 3).min(REPORT_INTERVAL) } else { ttl / 3 }
    }

    /// Length of a lease; `None` before the first answer.
    pub(super) fn lease_ttl(&self) -> Option<Duration> {
        self.lease_ttl
    }

    /// Whether only a farewell is left to send. It must be sent: the coordinator may have given this worker a task meanwhile.
    pub(super) fn is_leaving(&self) -> bool {
        self.draining && self.leases.is_empty()
    }

    /// Whether nothing is left to send.
    pub(super) fn is_done(&self) -> bool {
        self.is_leaving() && self.farewell_heard
    }

    /// Whether the next message is the first to report the end of some task. The coordinator answers such a message at once.
    pub(super) fn has_end_to_report(&self) -> bool {
        self.leases.values().any(|held| held.outcome.is_some() && !held.is_end_reported)
    }

    /// How many more tasks can be taken.
    fn room(&self) -> usize {
        let free = self.slots.iter().filter(|slot| **slot == Slot::Free).count();
        let more = (free + self.ahead).saturating_sub(self.waiting.len());
        more.min(MAX_LEASES_PER_WORKER.saturating_sub(self.leases.len()))
    }

    /// What the worker reports now; its identity and how long it waits for the answer are added later.
    pub(super) fn request(&mut self) -> SynchronizeRequest {
        let can_run = |slot: &&Slot| matches!(slot, Slot::Free | Slot::Running(_));
        self.ahead = match self.has_end_to_report() {
            true => self.pace.ahead(self.slots.iter().filter(can_run).count()),
            false => 0,
        };
        self.leases.values_mut().for_each(|held| held.is_end_reported = held.outcome.is_some());
        SynchronizeRequest {
            leases: self.leases.iter().map(|(key, held)| held.report(key)).collect(),
            free_slots: match self.draining || self.health.trouble().is_some() {
                true => 0,
                false => u32::try_from(self.room()).unwrap_or(u32::MAX),
            },
            draining: self.draining,
            health: Some(self.health.report()),
            ..SynchronizeRequest::default()
        }
    }

    /// Takes the answer to a request; leases count from the moment when it was sent.
    pub(super) fn answer(&mut self, response: SynchronizeResponse, exchange: Exchange) -> Vec<Action> {
        let Exchange { sent_at, answered_at, may_be_held } = exchange;
        if !may_be_held {
            self.pace.exchanged(answered_at.duration_since(sent_at));
        }
        self.lease_ttl = Some(Duration::from_millis(response.lease_ttl_ms.into()));
        self.health.serve(response.queue_id);
        // A shutdown abandons the message that is under way. So, while draining, this answers a message that said so.
        self.farewell_heard = self.draining;
        for key in response.acknowledged {
            let key = Key::from(key);
            if self.leases.get(&key).is_some_and(|held| held.outcome.is_some()) {
                self.leases.remove(&key);
            }
        }
        let mut actions = Vec::new();
        let mut listed = Vec::new();
        for mut lease in response.leases {
            let Some(key) = lease.key.take().map(Key::from) else { continue };
            let lease_end = sent_at + before_end(Duration::from_millis(lease.ttl_ms.into()));
            if self.leases.contains_key(&key) {
                self.renew(&key, &lease, lease_end, &mut actions);
            } else {
                self.take(key.clone(), lease, lease_end, answered_at);
            }
            listed.push(key);
        }
        self.stop_all_but(&listed, &mut actions);
        actions.extend(self.start_waiting(answered_at));
        actions
    }

    fn renew(&mut self, key: &Key, lease: &v1::Lease, lease_end: Instant, actions: &mut Vec<Action>) {
        let slot = self.slot_of(key);
        let held = self.leases.get_mut(key).expect("looked up by the caller");
        held.events.acknowledge(lease.acknowledged_events);
        if let Some(position) = self.waiting.iter().position(|waiting| waiting.key == *key) {
            self.waiting[position].lease_end = lease_end;
            held.outcome = match lease {
                v1::Lease { cancel: true, .. } => Some(Outcome::Cancelled(v1::TaskCancelled {})),
                v1::Lease { preempt: true, .. } => Some(Outcome::Returned(PREEMPTED.into())),
                _ => return,
            };
            self.waiting.remove(position);
        }
        let Some(slot) = slot else { return };
        actions.push(Action::Renew { slot, lease_end });
        if lease.cancel && !held.cancelled {
            held.cancelled = true;
            actions.push(Action::Cancel { slot });
        } else if lease.preempt && held.handed_back.is_none() {
            held.handed_back = Some(PREEMPTED);
            actions.push(Action::HandBack { slot });
        }
    }

    /// Takes a new lease, or records why not: the worker reports an outcome for every lease that it was offered.
    fn take(&mut self, key: Key, lease: v1::Lease, lease_end: Instant, now: Instant) {
        let refusal = match lease.assignment {
            _ if lease.cancel => Outcome::Cancelled(v1::TaskCancelled {}),
            _ if self.draining => Outcome::Returned(SHUTTING_DOWN.into()),
            None => Outcome::Returned("the worker does not know this lease".into()),
            Some(_) if self.room() == 0 => Outcome::Returned("the worker has no free slot".into()),
            Some(assignment) => {
                self.leases.insert(key.clone(), Held::default());
                self.waiting.push_back(Waiting { key, assignment: Box::new(assignment), lease_end, since: now });
                return;
            }
        };
        self.leases.insert(key, Held { outcome: Some(refusal), ..Held::default() });
    }

    /// Starts what waits in the slots that are free.
    pub(super) fn start_waiting(&mut self, now: Instant) -> Vec<Action> {
        self.give_overdue_back(now);
        let mut actions = Vec::new();
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| **slot == Slot::Free) {
            let Some(Waiting { key, assignment, lease_end, .. }) = self.waiting.pop_front() else { break };
            self.leases.get_mut(&key).expect("it is held").started_at = Some(now);
            *slot = Slot::Running(key);
            actions.push(Action::Start { slot: number, assignment, lease_end });
        }
        actions
    }

    /// When something that waits for a slot must be given back, unless it has started.
    pub(super) fn end_of_wait(&self) -> Option<Instant> {
        self.waiting.iter().map(Waiting::end).min()
    }

    /// Gives back what has waited for too long.
    pub(super) fn give_overdue_back(&mut self, now: Instant) {
        let (overdue, waiting): (VecDeque<Waiting>, _) =
            mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.end() <= now);
        self.waiting = waiting;
        if !overdue.is_empty() {
            self.pace.has_slowed();
            self.give_back(overdue, KEPT_WAITING);
        }
    }

    /// Takes what a proof has shown. Tasks that wait are given back if the worker cannot work.
    pub(super) fn prove(&mut self, proof: Result<Proof, Trouble>) -> Urgency {
        if !self.health.prove(proof) {
            return Urgency::Later;
        }
        if self.health.trouble().is_some() {
            self.give_waiting_back();
        }
        Urgency::Now
    }

    /// Counts the proof no more, because a task has failed because of the store.
    pub(super) fn doubt(&mut self) {
        self.health.doubt();
    }

    /// Whether any task runs.
    pub(super) fn is_busy(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Running(_)))
    }

    fn give_waiting_back(&mut self) {
        let waiting = mem::take(&mut self.waiting);
        self.give_back(waiting, UNABLE);
    }

    fn give_back(&mut self, waiting: VecDeque<Waiting>, reason: &str) {
        for Waiting { key, .. } in waiting {
            self.leases.get_mut(&key).expect("it is held").outcome = Some(Outcome::Returned(reason.into()));
        }
    }

    /// Stops the tasks that the coordinator did not list: another worker has their leases by now.
    fn stop_all_but(&mut self, listed: &[Key], actions: &mut Vec<Action>) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if let Slot::Running(key) = slot
                && !listed.contains(key)
            {
                tracing::warn!(
                    task = key.task_id,
                    epoch = key.epoch,
                    "the coordinator gave this task to another worker"
                );
                self.leases.remove(key);
                *slot = Slot::Stopping;
                actions.push(Action::Cancel { slot: number });
            }
        }
        self.waiting.retain(|waiting| {
            let is_ours = listed.contains(&waiting.key);
            if !is_ours {
                self.leases.remove(&waiting.key);
            }
            is_ours
        });
    }

    /// Takes no new tasks, gives back those that wait and hands the running ones back.
    pub(super) fn drain(&mut self) -> Vec<Action> {
        self.draining = true;
        let waiting = mem::take(&mut self.waiting);
        self.give_back(waiting, SHUTTING_DOWN);
        let mut actions = Vec::new();
        for (slot, state) in self.slots.iter().enumerate() {
            if let Slot::Running(key) = state
                && let Some(held) = self.leases.get_mut(key)
                && held.handed_back.is_none()
            {
                held.handed_back = Some(SHUTTING_DOWN);
                actions.push(Action::HandBack { slot });
            }
        }
        actions
    }

    /// Takes what a slot reported. If the slot is free now, call [`start_waiting`](Self::start_waiting).
    pub(super) fn report(&mut self, slot: usize, report: SlotReport, now: Instant) -> Urgency {
        match report {
            // A task may have been sent to an executor that had just died: it waits for the next one.
            SlotReport::Ready(ready) => {
                self.health.confined(&ready);
                self.health.executor(slot, None);
                self.replace(slot, Slot::Empty, Slot::Free)
            }
            SlotReport::Switched(_) => Urgency::Later,
            SlotReport::Lost => self.replace(slot, Slot::Free, Slot::Empty),
            SlotReport::CannotStart(reason) => {
                self.replace(slot, Slot::Free, Slot::Empty);
                if !self.health.executor(slot, Some(reason)) {
                    return Urgency::Later;
                }
                self.give_waiting_back();
                Urgency::Now
            }
            SlotReport::Progress(progress) => {
                if let Some(held) = self.held(slot) {
                    held.beat += 1;
                    held.progress = Some(progress);
                }
                Urgency::Later
            }
            SlotReport::Event(event) => self.held(slot).map_or(Urgency::Later, |held| held.record(event)),
            SlotReport::Ended { outcome, executor_kept } => {
                self.end(slot, outcome, now);
                self.slots[slot] = if executor_kept { Slot::Free } else { Slot::Empty };
                Urgency::Now
            }
        }
    }

    fn replace(&mut self, slot: usize, before: Slot, after: Slot) -> Urgency {
        if self.slots[slot] != before {
            return Urgency::Later;
        }
        self.slots[slot] = after;
        Urgency::Now
    }

    fn end(&mut self, slot: usize, outcome: Outcome, now: Instant) {
        let Some(held) = self.held(slot) else { return };
        held.events.close();
        let took = held.started_at.map(|started_at| now.duration_since(started_at));
        held.outcome = Some(match (outcome, held.handed_back) {
            (Outcome::Crashed(_) | Outcome::Returned(_), _) if held.cancelled => {
                Outcome::Cancelled(v1::TaskCancelled {})
            }
            // The executor knows that it was asked to hand the task back, but not why.
            (Outcome::Returned(_), Some(reason)) => Outcome::Returned(reason.into()),
            (outcome, _) => outcome,
        });
        let has_succeeded = matches!(held.outcome, Some(Outcome::Succeeded(_)));
        if let Some(took) = took.filter(|_| has_succeeded) {
            self.pace.succeeded(took);
        }
    }

    fn held(&mut self, slot: usize) -> Option<&mut Held> {
        match &self.slots[slot] {
            Slot::Running(key) => self.leases.get_mut(key),
            Slot::Empty | Slot::Free | Slot::Stopping => None,
        }
    }

    fn slot_of(&self, key: &Key) -> Option<usize> {
        self.slots.iter().position(|slot| matches!(slot, Slot::Running(running) if running == key))
    }
}

impl Held {
    fn record(&mut self, event: Event) -> Urgency {
        let urgency = match event {
            Event::Log(_) => Urgency::Later,
            Event::Notice(_) => {
                self.beat += 1;
                Urgency::Later
            }
            Event::EpochFinished(_) | Event::Checkpoint(_) => {
                self.beat += 1;
                Urgency::Now
            }
        };
        self.events.push(event);
        urgency
    }

    fn report(&self, key: &Key) -> LeaseReport {
        let (events, complete) = self.events.next();
        // The coordinator accepts no event after the outcome.
        let outcome = self.outcome.clone().filter(|_| complete);
        LeaseReport {
            task_id: key.task_id.clone(),
            epoch: key.epoch,
            progress: self.progress.clone(),
            beat: self.beat,
            events,
            outcome: outcome.map(|outcome| v1::TaskOutcome { outcome: Some(outcome) }),
        }
    }
}

impl From<LeaseKey> for Key {
    fn from(key: LeaseKey) -> Self {
        Self { task_id: key.task_id, epoch: key.epoch }
    }
}

/// How long after the start of a lease of this length an executor must be gone: a little before the lease ends, because killing takes
/// time and clocks differ in speed.
fn before_end(ttl: Duration) -> Duration {
    ttl - (ttl / 10).min(Duration::from_secs(2))
}

#[cfg(test)]
mod tests;
