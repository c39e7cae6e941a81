//! The session of each worker: what the worker's newest message says, and which instructions the worker was sent.

use std::{
    collections::{HashMap, HashSet},
    panic,
    sync::Arc,
};

use futures::future;
use parking_lot::{Mutex, MutexGuard};
use sortinghat_proto::{
    TaskId, WorkerId,
    time::UnixMs,
    v1::{self, ErrorCode},
};
use tokio::sync::watch;

use super::{
    bindings::Presence,
    claimant::{Ability, Claimant},
};
use crate::{
    auth::Served,
    engine::{context::bounded, error::EngineError, records::Demand},
};

/// A lease is named by its task and its epoch.
pub(crate) type LeaseName = (TaskId, u64);

/// An instruction for a worker that the worker has not confirmed yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Instruction {
    /// Start the task of this lease.
    Start(LeaseName),
    /// Stop the task, and report it as cancelled.
    Cancel(LeaseName),
    /// Checkpoint the task, and return it.
    GiveWay(LeaseName),
    /// Stop the task, because the worker does not hold the lease any more.
    Stop(LeaseName),
}

/// The sessions of all workers that have sent a message lately.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    workers: Mutex<HashMap<WorkerId, Session>>,
}

#[derive(Debug)]
struct Session {
    /// The sequence of the newest message.
    sequence: u64,
    /// The number of messages. A held call watches it to notice that it is superseded.
    messages: watch::Sender<u64>,
    /// Held by the message that is being processed.
    at_work: Arc<tokio::sync::Mutex<()>>,
    description: v1::WorkerDescription,
    ability: Ability,
    running: Vec<String>,
    /// The free slots that the worker has reported last, minus the tasks that it was given since.
    free_slots: usize,
    draining: bool,
    /// Whether the worker can work; `None` if it is of a version that does not tell.
    health: Option<v1::WorkerHealth>,
    last_seen: UnixMs,
    /// The last beat of each lease that the worker reports, and when that beat was first seen.
    beats: HashMap<LeaseName, (u64, UnixMs)>,
    /// When each instruction was last sent.
    told: HashMap<Instruction, UnixMs>,
}

/// A worker, compared with the requirements of a job.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) worker: WorkerId,
    pub(crate) host: String,
    /// All slots of the worker, busy or free.
    pub(crate) slots: u32,
    /// Which requirements the worker does not meet; empty if it meets all.
    pub(crate) shortfalls: Vec<v1::Shortfall>,
    /// Why the worker cannot work now; `None` if it can.
    pub(crate) trouble: Option<String>,
    /// Whether the worker serves other tenants as well.
    pub(crate) is_shared: bool,
}

/// The place of one call in the order of a worker's calls.
#[derive(Debug)]
pub(crate) struct Turn {
    mine: u64,
    messages: watch::Receiver<u64>,
    at_work: Arc<tokio::sync::Mutex<()>>,
}

impl Turn {
    /// Does work that may lease tasks to the worker. Messages of one worker are processed in order, each to its end even if the caller has
    /// left, so that the newest answer lists every lease that the worker holds. Refuses if a newer message has arrived before the work or
    /// during it. The answer to the newer message then tells the result of the work.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let at_work = self.at_work.clone().lock_owned().await;
        self.check()?;
        let mut work = Box::pin(async move {
            let _at_work = at_work;
            work.await
        });
        // Over a store in the same process the work never has to wait. Spawning a task for it would wake another thread for nothing.
        let done = match future::poll_immediate(&mut work).await {
            Some(done) => done,
            None => tokio::spawn(work).await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic())),
        }?;
        self.check()?;
        Ok(done)
    }

    fn check(&self) -> Result<(), EngineError> {
        if *self.messages.borrow() == self.mine { Ok(()) } else { Err(superseded()) }
    }

    /// Returns when a newer message has arrived.
    pub(crate) async fn superseded(&mut self) {
        let mine = self.mine;
        // The sender is dropped only when the worker is forgotten. Then nobody waits for the answer to this call either.
        let _ = self.messages.wait_for(|newest| *newest != mine).await;
    }
}

fn superseded() -> EngineError {
    EngineError::refused(ErrorCode::WrongState, "superseded by a newer message of the same worker")
}

impl Sessions {
    /// Notes a message of a worker, and supersedes the worker's held call. A message that is older than the newest one is refused.
    pub(crate) fn enter(
        &self,
        worker: &Claimant,
        request: &v1::SynchronizeRequest,
        now: UnixMs,
    ) -> Result<Turn, EngineError> {
        let mut workers = self.workers();
        let session = workers.entry(worker.id.clone()).or_insert_with(|| Session::new(worker.ability.clone(), now));
        if request.sequence < session.sequence {
            return Err(superseded());
        }
        session.sequence = request.sequence;
        session.description = bounded_description(request.description.clone().unwrap_or_default());
        session.ability = worker.ability.clone();
        session.free_slots = request.free_slots as usize;
        session.running =
            request.leases.iter().filter(|lease| lease.outcome.is_none()).map(|lease| lease.task_id.clone()).collect();
        session.draining = request.draining;
        session.health = request.health.clone().map(bounded_health);
        session.last_seen = now;
        session.messages.send_modify(|count| *count += 1);
        let messages = session.messages.subscribe();
        let mine = *messages.borrow();
        Ok(Turn { mine, messages, at_work: session.at_work.clone() })
    }

    /// Notes the beat of a lease, and returns for how long the beat has not changed, in milliseconds.
    pub(crate) fn idle_ms(&self, worker: &WorkerId, lease: &LeaseName, beat: u64, now: UnixMs) -> u64 {
        let mut workers = self.workers();
        let Some(session) = workers.get_mut(worker) else { return 0 };
        let (last, since) = session.beats.entry(lease.clone()).or_insert((beat, now));
        if *last != beat {
            (*last, *since) = (beat, now);
        }
        now.ms_since(*since)
    }

    /// Forgets the beats of leases that are not reported any more.
    pub(crate) fn keep_beats(&self, worker: &WorkerId, reported: &HashSet<LeaseName>) {
        if let Some(session) = self.workers().get_mut(worker) {
            session.beats.retain(|lease, _| reported.contains(lease));
        }
    }

    /// Whether any of these instructions was not sent within the last `grace_ms`. If so, all of them count as sent now.
    pub(crate) fn is_news(
        &self,
        worker: &WorkerId,
        instructions: &HashSet<Instruction>,
        now: UnixMs,
        grace_ms: u64,
    ) -> bool {
        let mut workers = self.workers();
        let Some(session) = workers.get_mut(worker) else { return !instructions.is_empty() };
        session.told.retain(|instruction, _| instructions.contains(instruction));
        let is_due = |instruction| session.told.get(instruction).is_none_or(|told| now.ms_since(*told) >= grace_ms);
        let is_news = instructions.iter().any(is_due);
        if is_news {
            session.told = instructions.iter().map(|instruction| (instruction.clone(), now)).collect();
        }
        is_news
    }

    /// The workers that have sent a message within `within_ms`, by host, each with the tenants that it serves.
    pub(crate) fn list(&self, now: UnixMs, within_ms: u64) -> Vec<(v1::Worker, Served)> {
        let workers = self.workers();
        let recent = workers.iter().filter(|(_, session)| now.ms_since(session.last_seen) <= within_ms);
        let told = |(id, session): (&WorkerId, &Session)| v1::Worker {
            id: id.to_string(),
            description: Some(session.description.clone()),
            running_tasks: session.running.clone(),
            last_seen_unix_ms: session.last_seen.to_wire(),
            draining: session.draining,
            health: session.health.clone(),
            serves: session.ability.serves.to_names(),
        };
        let mut list: Vec<(v1::Worker, Served)> =
            recent.map(|worker| (told(worker), worker.1.ability.serves.clone())).collect();
        let host = |worker: &v1::Worker| worker.description.as_ref().map(|described| described.host.clone());
        list.sort_by_cached_key(|(worker, _)| (host(worker), worker.id.clone()));
        list
    }

    /// Notes that a worker was given this many tasks.
    pub(crate) fn gave(&self, worker: &WorkerId, tasks: usize) {
        if let Some(session) = self.workers().get_mut(worker) {
            session.free_slots = session.free_slots.saturating_sub(tasks);
        }
    }

    /// Whether this worker has sent a message within `within_ms`, has a free slot, and meets the demand.
    pub(crate) fn is_idle(&self, worker: &WorkerId, demand: Demand<'_>, now: UnixMs, within_ms: u64) -> bool {
        self.workers()
            .get(worker)
            .is_some_and(|session| session.free_slots > 0 && session.is_able(demand, now, within_ms))
    }

    /// Whether this worker, busy or not, has sent a message within `within_ms` and meets the demand.
    pub(crate) fn is_able(&self, worker: &WorkerId, demand: Demand<'_>, now: UnixMs, within_ms: u64) -> bool {
        self.workers().get(worker).is_some_and(|session| session.is_able(demand, now, within_ms))
    }

    /// Whether any worker has sent a message within `within_ms`, has a free slot, and meets the demand.
    pub(crate) fn any_is_idle(&self, demand: Demand<'_>, now: UnixMs, within_ms: u64) -> bool {
        let workers = self.workers();
        workers.values().any(|session| session.free_slots > 0 && session.is_able(demand, now, within_ms))
    }

    /// Whether a worker on another machine, busy or not, has sent a message within `within_ms` and meets the demand.
    pub(crate) fn runs_elsewhere(&self, host: &str, demand: Demand<'_>, now: UnixMs, within_ms: u64) -> bool {
        self.workers()
            .values()
            .any(|session| session.description.host != host && session.is_able(demand, now, within_ms))
    }

    /// Every worker that serves the tenant, has sent a message within `within_ms`, and takes tasks or would, compared with the requirements.
    pub(crate) fn standings(&self, demand: Demand<'_>, now: UnixMs, within_ms: u64) -> Vec<Standing> {
        let workers = self.workers();
        let taking =
            workers.iter().filter(|(_, session)| !session.draining && now.ms_since(session.last_seen) <= within_ms);
        let taking = taking.filter(|(_, session)| session.ability.serves.has(demand.tenant));
        let standing = |(id, session): (&WorkerId, &Session)| Standing {
            worker: id.clone(),
            host: session.description.host.clone(),
            slots: session.description.slots,
            shortfalls: session.ability.capabilities.shortfalls(demand.requirements),
            is_shared: session.ability.serves.has_others_than(demand.tenant),
            trouble: session.trouble().map(ToOwned::to_owned),
        };
        taking.map(standing).collect()
    }

    /// Why this worker cannot work now; `None` if it can, or has no session.
    pub(crate) fn trouble(&self, worker: &WorkerId) -> Option<String> {
        self.workers().get(worker)?.trouble().map(ToOwned::to_owned)
    }

    /// When this worker has sent a message last, and whether it has left.
    pub(crate) fn presence(&self, worker: &WorkerId) -> Option<Presence> {
        let workers = self.workers();
        let session = workers.get(worker)?;
        Some(Presence { seen: session.last_seen, has_left: session.draining && session.running.is_empty() })
    }

    /// Whether there is a session of this worker.
    pub(crate) fn knows(&self, worker: &WorkerId) -> bool {
        self.workers().contains_key(worker)
    }

    /// Forgets workers that have not sent a message for `within_ms`.
    pub(crate) fn forget(&self, now: UnixMs, within_ms: u64) {
        self.workers().retain(|_, session| now.ms_since(session.last_seen) <= within_ms);
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<WorkerId, Session>> {
        self.workers.lock()
    }
}

impl Session {
    fn is_able(&self, demand: Demand<'_>, now: UnixMs, within_ms: u64) -> bool {
        !self.draining
            && self.trouble().is_none()
            && now.ms_since(self.last_seen) <= within_ms
            && self.ability.meets(demand)
    }

    fn trouble(&self) -> Option<&str> {
        self.health.as_ref().filter(|health| !health.is_able).map(|health| health.reason.as_str())
    }

    fn new(ability: Ability, now: UnixMs) -> Self {
        Self {
            sequence: 0,
            messages: watch::channel(0).0,
            at_work: Arc::default(),
            description: v1::WorkerDescription::default(),
            ability,
            free_slots: 0,
            running: Vec::new(),
            draining: false,
            health: None,
            last_seen: now,
            beats: HashMap::new(),
            told: HashMap::new(),
        }
    }
}

fn bounded_health(health: v1::WorkerHealth) -> v1::WorkerHealth {
    v1::WorkerHealth { reason: bounded(health.reason), detail: bounded(health.detail), ..health }
}

fn bounded_description(description: v1::WorkerDescription) -> v1::WorkerDescription {
    v1::WorkerDescription {
        host: bounded(description.host),
        version: bounded(description.version),
        device: bounded(description.device),
        device_reason: bounded(description.device_reason),
        sandbox: bounded(description.sandbox),
        ..description
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::auth::Caller;

    fn enter(sessions: &Sessions, sequence: u64) -> Turn {
        let id = "w1".parse().expect("a valid id");
        let worker = Claimant::new(id, &Caller::everyone(), &v1::WorkerDescription::default());
        let message = v1::SynchronizeRequest { sequence, ..v1::SynchronizeRequest::default() };
        sessions.enter(&worker, &message, UnixMs(0)).expect("the newest message")
    }

    #[tokio::test]
    async fn work_goes_on_after_its_caller_has_left_and_the_next_message_waits_for_its_end() {
        let sessions = Sessions::default();
        let (go, gate) = oneshot::channel::<()>();
        let abandoned = enter(&sessions, 1);
        let is_done = Arc::new(Mutex::new(false));
        let work = {
            let is_done = is_done.clone();
            async move {
                gate.await.expect("the gate is opened");
                *is_done.lock() = true;
                Ok(())
            }
        };
        let mut work = Box::pin(abandoned.work(work));
        assert!(future::poll_immediate(&mut work).await.is_none(), "the work waits at the gate");
        drop(work);
        let newer = enter(&sessions, 2);
        let mut next = Box::pin(newer.work(async move { Ok(*is_done.lock()) }));
        assert!(future::poll_immediate(&mut next).await.is_none(), "the older message is still being worked on");
        go.send(()).expect("the work waits at the gate");
        assert!(next.await.expect("it is the newest message"), "the work of the older message is done");
    }

    #[tokio::test]
    async fn a_message_is_refused_after_its_work_if_a_newer_message_has_arrived_meanwhile() {
        let sessions = Sessions::default();
        let (go, gate) = oneshot::channel::<()>();
        let older = enter(&sessions, 1);
        let mut work = Box::pin(older.work(async { gate.await.map_err(|_| superseded()) }));
        assert!(future::poll_immediate(&mut work).await.is_none(), "the work waits at the gate");
        let newer = enter(&sessions, 2);
        go.send(()).expect("the work waits at the gate");
        assert_eq!(work.await, Err(superseded()));
        assert_eq!(newer.work(async { Ok(()) }).await, Ok(()));
    }
}
