//! What must be read before a worker's message is taken in.
//!
//! A worker whose tasks take no time is back at once. What its next message needs is read while it is on its way, as if that message had
//! come a little earlier: what has changed since, the versions tell, as they do of anything that was read.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future;
use sortinghat_proto::{Refusal, TaskId, WorkerId, time::UnixMs};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    Engine, Shared,
    claim::{Claimant, Ready},
    load::{Loaded, by_id},
};

/// A task that took no longer takes no time, and a message that comes later was not expected.
const SOON: Duration = Duration::from_millis(20);

/// The parts of a message that say what must be read for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agenda {
    pub(super) worker: Claimant,
    pub(super) reported: BTreeSet<TaskId>,
    /// Tasks that it may claim, if it reports any and knows of all that it holds.
    pub(super) capacity: usize,
}

/// What was read for a message.
pub(super) struct Opening {
    /// When it arrived.
    pub(super) arrived: UnixMs,
    /// The tasks that it reports and all others that its worker holds; none for one that reports nothing.
    pub(super) leases: HashMap<TaskId, Loaded>,
    /// What it may claim, if it may and reports anything.
    pub(super) ready: Option<Result<Ready, Refusal>>,
}

/// What is being read for messages that have not arrived.
#[derive(Default)]
pub(super) struct Expected(Mutex<HashMap<WorkerId, Reading>>);

struct Reading {
    agenda: Agenda,
    since: Instant,
    opening: JoinHandle<Result<Opening, Refusal>>,
}

impl Expected {
    fn readings(&self) -> MutexGuard<'_, HashMap<WorkerId, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read for such a message, if it was expected.
    async fn take(&self, agenda: &Agenda) -> Option<Opening> {
        let Reading { agenda: expected, since, opening } = self.readings().remove(&agenda.worker.id)?;
        if expected != *agenda || since.elapsed() > SOON {
            return None;
        }
        let mut opening = opening.await.ok()?.ok()?;
        // A task may have come in since.
        opening.ready = opening.ready.filter(|ready| ready.as_ref().is_ok_and(|ready| ready.suffices(agenda.capacity)));
        Some(opening)
    }
}

impl Engine {
    /// Reads what the next message of a worker will need, if its tasks took as little time as those that it has ended.
    pub(super) fn expect(&self, agenda: Agenda) {
        let shared = self.shared.clone();
        let asked = agenda.clone();
        let opening = tokio::spawn(async move { shared.read_opening(&asked).await });
        let mut readings = self.shared.expected.readings();
        readings.retain(|_, reading| reading.since.elapsed() <= SOON);
        readings.insert(agenda.worker.id.clone(), Reading { agenda, since: Instant::now(), opening });
    }
}

/// Whether a task that was given out then, and had ended then, took no time.
pub(super) fn took_no_time(given: UnixMs, ended: UnixMs) -> bool {
    u128::from(ended.ms_since(given)) <= SOON.as_millis()
}

impl Shared {
    pub(super) async fn opening(&self, agenda: &Agenda) -> Result<Opening, Refusal> {
        match self.expected.take(agenda).await {
            Some(opening) => Ok(opening),
            None => self.read_opening(agenda).await,
        }
    }

    async fn read_opening(&self, agenda: &Agenda) -> Result<Opening, Refusal> {
        let Agenda { worker, reported, capacity } = agenda;
        let arrived = async { Ok(self.store.now().await?) };
        let ready = async {
            let claims_beside = !reported.is_empty() && *capacity > 0;
            Ok(if claims_beside { Some(self.ready(worker, *capacity, 0).await) } else { None })
        };
        let (arrived, leases, ready) = future::try_join3(arrived, self.leases(&worker.id, reported), ready).await?;
        Ok(Opening { arrived, leases, ready })
    }

    async fn leases(&self, worker: &WorkerId, reported: &BTreeSet<TaskId>) -> Result<HashMap<TaskId, Loaded>, Refusal> {
        if reported.is_empty() {
            return Ok(HashMap::new());
        }
        let reported: Vec<TaskId> = reported.iter().cloned().collect();
        let (loaded, held) = future::try_join(self.load(&reported), self.held_tasks(worker)).await?;
        let mut loaded = by_id(loaded);
        let others: Vec<TaskId> = held.into_iter().filter(|task| reported.binary_search(task).is_err()).collect();
        loaded.extend(by_id(self.load_held(&others).await?));
        Ok(loaded)
    }
}
