//! Prefetch: the records that a worker's next message will need are read before the message arrives, if possible.
//!
//! A worker whose tasks take hardly any time sends its next message at once, so a prefetch saves it a round trip to the store. A prefetch
//! is as good as a message that has arrived a little earlier: if a record has changed since, its version shows that at the commit, as with
//! any read. The rest of the room uses one door, [`Prefetch::opening`], and need not know whether the result was prefetched.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future;
use parking_lot::Mutex;
use sortinghat_proto::{TaskId, WorkerId, limits::MAX_LEASES_PER_WORKER, time::UnixMs};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    engine::{
        changes::{Changes, Loaded, by_id},
        dispatch::{Dispatch, Ready},
        error::EngineError,
        records::{Failures, Records, keys},
        workers::Claimant,
    },
    store::Range,
};

/// If a task took no longer than this, the records for its worker's next message are prefetched. A prefetch that is older than this is not
/// used.
const SOON: Duration = Duration::from_millis(20);

/// The agenda of a message: the parts of it that say what must be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agenda {
    pub(super) worker: Claimant,
    pub(super) reported: BTreeSet<TaskId>,
    /// How many tasks the worker may claim, if it knows all leases that it holds.
    pub(super) capacity: usize,
}

/// The records that were read for a message.
pub(super) struct Opening {
    /// The time of the store at the read, which counts as the arrival of the message.
    pub(super) arrived: UnixMs,
    /// The tasks that the message reports, and all other tasks that its worker holds. Empty if the message reports nothing.
    pub(super) leases: HashMap<TaskId, Loaded>,
    /// What the worker may claim. `None` if it has no free slot, or the message reports nothing.
    pub(super) ready: Option<Result<Ready, EngineError>>,
}

/// Reads the records that messages need.
pub(super) struct Prefetch {
    records: Records,
    changes: Arc<Changes>,
    dispatch: Arc<Dispatch>,
    /// Whether to prefetch. A store in the same process gains nothing by it.
    reads_ahead: bool,
    /// The prefetches for messages that have not arrived, by worker.
    readings: Mutex<HashMap<WorkerId, Reading>>,
}

struct Reading {
    agenda: Agenda,
    since: Instant,
    opening: JoinHandle<Result<Opening, EngineError>>,
}

/// Whether a task that was leased at `given` and had ended at `ended` took hardly any time.
pub(super) fn took_no_time(given: UnixMs, ended: UnixMs) -> bool {
    u128::from(ended.ms_since(given)) <= SOON.as_millis()
}

impl Prefetch {
    /// Reads through these rooms. Prefetches only if `reads_ahead`.
    pub(super) fn new(records: Records, changes: Arc<Changes>, dispatch: Arc<Dispatch>, reads_ahead: bool) -> Self {
        Self { records, changes, dispatch, reads_ahead, readings: Mutex::default() }
    }

    /// The records for a message with this agenda, prefetched or read now.
    pub(super) async fn opening(&self, agenda: &Agenda) -> Result<Opening, EngineError> {
        match self.prefetched(agenda).await {
            Some(opening) => Ok(opening),
            None => self.read(agenda).await,
        }
    }

    /// Begins to prefetch for the next message of a worker, which probably has this agenda.
    pub(super) fn expect(self: &Arc<Self>, agenda: Agenda) {
        if !self.reads_ahead {
            return;
        }
        let (prefetch, asked) = (self.clone(), agenda.clone());
        let opening = tokio::spawn(async move { prefetch.read(&asked).await });
        let mut readings = self.readings.lock();
        readings.retain(|_, reading| reading.since.elapsed() <= SOON);
        readings.insert(agenda.worker.id.clone(), Reading { agenda, since: Instant::now(), opening });
    }

    /// The records that were prefetched for a message with this agenda; `None` if there are none or they are too old.
    async fn prefetched(&self, agenda: &Agenda) -> Option<Opening> {
        let reading = self.readings.lock().remove(&agenda.worker.id);
        let Reading { agenda: expected, since, opening } = reading?;
        if expected != *agenda || since.elapsed() > SOON {
            return None;
        }
        let mut opening = opening.await.ok()?.ok()?;
        // More tasks may have become ready since the prefetch. If there were too few, they are read again.
        opening.ready = opening.ready.filter(|ready| ready.as_ref().is_ok_and(|ready| ready.suffices(agenda.capacity)));
        Some(opening)
    }

    async fn read(&self, agenda: &Agenda) -> Result<Opening, EngineError> {
        let Agenda { worker, reported, capacity } = agenda;
        let arrived = async { Ok(self.records.store.now().await?) };
        let ready = async {
            let claims_beside = !reported.is_empty() && *capacity > 0;
            Ok(if claims_beside { Some(self.dispatch.ready(worker, *capacity, 0).await) } else { None })
        };
        let (arrived, leases, ready) = future::try_join3(arrived, self.leases(&worker.id, reported), ready).await?;
        Ok(Opening { arrived, leases, ready })
    }

    async fn leases(
        &self,
        worker: &WorkerId,
        reported: &BTreeSet<TaskId>,
    ) -> Result<HashMap<TaskId, Loaded>, EngineError> {
        if reported.is_empty() {
            return Ok(HashMap::new());
        }
        let reported: Vec<TaskId> = reported.iter().cloned().collect();
        let (loaded, held) = future::try_join(self.changes.tasks.load(&reported), self.held_tasks(worker)).await?;
        let mut loaded = by_id(loaded);
        let others: Vec<TaskId> = held.into_iter().filter(|task| reported.binary_search(task).is_err()).collect();
        loaded.extend(by_id(self.load_held(&others).await?));
        Ok(loaded)
    }

    /// The tasks that a worker holds, by its index.
    async fn held_tasks(&self, worker: &WorkerId) -> Result<Vec<TaskId>, EngineError> {
        let entries = self.records.store.range(Range::first(keys::held(worker), MAX_LEASES_PER_WORKER)).await?;
        Ok(entries.iter().filter_map(|entry| keys::task_of_entry(entry)).collect())
    }

    /// Reads all tasks that a worker holds.
    pub(super) async fn held(&self, worker: &WorkerId) -> Result<Vec<Loaded>, EngineError> {
        let tasks = self.held_tasks(worker).await?;
        self.load_held(&tasks).await
    }

    /// Reads tasks that a worker holds and does not report. A task that cannot be decoded must not keep the worker from other work, so it
    /// is left out. A sweep reports it once its lease is over.
    async fn load_held(&self, tasks: &[TaskId]) -> Result<Vec<Loaded>, EngineError> {
        self.changes.tasks.load_readable(tasks, &mut Failures::default()).await
    }
}
