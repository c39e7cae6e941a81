//! Reading what a worker's message needs, if possible while the message is still on its way.
//!
//! A worker whose tasks take no time is back at once. What its next message needs is read beforehand, as if the message had come a little
//! earlier. If a record has changed since, its version shows it, as with any record that was read. Other rooms see one door,
//! [`Prefetch::opening`], and need not know whether its answer was prefetched.

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

/// A task that took no longer counts as one that takes no time, and what was prefetched is not used for a message that comes later.
const SOON: Duration = Duration::from_millis(20);

/// The parts of a message that say what must be read for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agenda {
    pub(super) worker: Claimant,
    pub(super) reported: BTreeSet<TaskId>,
    /// Tasks that the worker may claim, if it reports any and knows of all that it holds.
    pub(super) capacity: usize,
}

/// What was read for a message.
pub(super) struct Opening {
    /// When the message arrived.
    pub(super) arrived: UnixMs,
    /// The tasks that the message reports, and all others that its worker holds. Empty for a message that reports nothing.
    pub(super) leases: HashMap<TaskId, Loaded>,
    /// What the worker may claim, if it may and the message reports anything.
    pub(super) ready: Option<Result<Ready, EngineError>>,
}

/// Reads what messages need.
pub(super) struct Prefetch {
    records: Records,
    changes: Arc<Changes>,
    dispatch: Arc<Dispatch>,
    /// Whether to read ahead; a store in the same process gains nothing by it.
    reads_ahead: bool,
    /// What is being read for messages that have not arrived.
    readings: Mutex<HashMap<WorkerId, Reading>>,
}

struct Reading {
    agenda: Agenda,
    since: Instant,
    opening: JoinHandle<Result<Opening, EngineError>>,
}

/// Whether a task that was given out then, and had ended then, took no time.
pub(super) fn took_no_time(given: UnixMs, ended: UnixMs) -> bool {
    u128::from(ended.ms_since(given)) <= SOON.as_millis()
}

impl Prefetch {
    /// Reads through these rooms; ahead of messages if `reads_ahead`.
    pub(super) fn new(records: Records, changes: Arc<Changes>, dispatch: Arc<Dispatch>, reads_ahead: bool) -> Self {
        Self { records, changes, dispatch, reads_ahead, readings: Mutex::default() }
    }

    /// What must be read before a message with this agenda is processed.
    pub(super) async fn opening(&self, agenda: &Agenda) -> Result<Opening, EngineError> {
        match self.prefetched(agenda).await {
            Some(opening) => Ok(opening),
            None => self.read(agenda).await,
        }
    }

    /// Begins to read what the next message of a worker will need.
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

    /// What was read for such a message, if the message was expected.
    async fn prefetched(&self, agenda: &Agenda) -> Option<Opening> {
        let reading = self.readings.lock().remove(&agenda.worker.id);
        let Reading { agenda: expected, since, opening } = reading?;
        if expected != *agenda || since.elapsed() > SOON {
            return None;
        }
        let mut opening = opening.await.ok()?.ok()?;
        // A task may have become ready since.
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

    /// The tasks that a worker holds, as its index says.
    async fn held_tasks(&self, worker: &WorkerId) -> Result<Vec<TaskId>, EngineError> {
        let entries = self.records.store.range(Range::first(keys::held(worker), MAX_LEASES_PER_WORKER)).await?;
        Ok(entries.iter().filter_map(|entry| keys::task_of_entry(entry)).collect())
    }

    /// Reads all tasks that a worker holds.
    pub(super) async fn held(&self, worker: &WorkerId) -> Result<Vec<Loaded>, EngineError> {
        let tasks = self.held_tasks(worker).await?;
        self.load_held(&tasks).await
    }

    /// Reads tasks that a worker holds and does not report. A task that cannot be decoded is found by a sweep once its lease is over;
    /// until then it is no reason to have no work for the worker.
    async fn load_held(&self, tasks: &[TaskId]) -> Result<Vec<Loaded>, EngineError> {
        self.changes.tasks.load_readable(tasks, &mut Failures::default()).await
    }
}
