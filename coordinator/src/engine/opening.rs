//! What must be read before a worker's message is taken in.
//!
//! A worker whose tasks take no time is back at once. What its next message needs is read while it is on its way, as if that message had
//! come a little earlier: what has changed since, the versions tell, as they do of anything that was read.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future;
use sortinghat_proto::{Refusal, TaskId, WorkerId, time::UnixMs};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    Engine, Shared,
    claim::{Claimant, Ready},
    load::Loaded,
};

/// A task that took no longer takes no time, and a message that comes later was not expected.
const SOON: Duration = Duration::from_millis(20);

/// The parts of a message that say what must be read for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topics {
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
    topics: Topics,
    since: Instant,
    opening: JoinHandle<Result<Opening, Refusal>>,
}

impl Expected {
    fn readings(&self) -> MutexGuard<'_, HashMap<WorkerId, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read for such a message, if it was expected.
    async fn take(&self, topics: &Topics) -> Option<Opening> {
        let Reading { topics: expected, since, opening } = self.readings().remove(&topics.worker.id)?;
        if expected != *topics || since.elapsed() > SOON {
            return None;
        }
        let mut opening = opening.await.ok()?.ok()?;
        // A task may have come in since.
        opening.ready = opening.ready.filter(|ready| ready.as_ref().is_ok_and(|ready| ready.suffices(topics.capacity)));
        Some(opening)
    }
}

impl Engine {
    /// Reads what the next message of a worker will need, if its tasks took as little time as those that it has ended.
    pub(super) fn expect(&self, topics: Topics) {
        let shared: Arc<Shared> = self.shared.clone();
        let asked = topics.clone();
        let opening = tokio::spawn(async move { shared.read_opening(&asked).await });
        let mut readings = self.shared.expected.readings();
        readings.retain(|_, reading| reading.since.elapsed() <= SOON);
        readings.insert(topics.worker.id.clone(), Reading { topics, since: Instant::now(), opening });
    }
}

impl Shared {
    /// Whether a worker that was given a task then is back at once.
    pub(super) fn is_soon(given: UnixMs, back: UnixMs) -> bool {
        u128::from(back.ms_since(given)) <= SOON.as_millis()
    }

    pub(super) async fn opening(&self, topics: &Topics) -> Result<Opening, Refusal> {
        match self.expected.take(topics).await {
            Some(opening) => Ok(opening),
            None => self.read_opening(topics).await,
        }
    }

    async fn read_opening(&self, topics: &Topics) -> Result<Opening, Refusal> {
        let Topics { worker, reported, capacity } = topics;
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
        let (mut loaded, held) = future::try_join(self.load_by_id(&reported), self.held_tasks(worker)).await?;
        let others: Vec<TaskId> = held.into_iter().filter(|task| reported.binary_search(task).is_err()).collect();
        loaded.extend(self.load_by_id(&others).await?);
        Ok(loaded)
    }
}
