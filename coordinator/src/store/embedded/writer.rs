//! Commits, one at a time. A caller that finds no other commit under way commits on its own thread: waking another thread and being woken
//! by it would take nearly as long as a sync. The calls that arrive in the meantime queue up, and one thread commits them together.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use tokio::sync::{oneshot, watch};

use super::{
    blocking::Blocking,
    changes::Changes,
    files::{CommitError, Files},
    time::MonotoneTime,
    view::View,
};
use crate::store::{Batch, Hints, StoreError, Verdict};

/// The most batches in one commit; more would only make the first ones wait longer.
const MAX_GROUP_BATCHES: usize = 4096;

/// Opens the files as they were left. It is called again after a failure.
pub(super) type Open = Box<dyn Fn() -> Result<Files, redb::Error> + Send>;

/// A lock that is poisoned by a panic: nobody may commit after a commit that panicked half way.
#[expect(
    clippy::disallowed_types,
    reason = "unlike the mutex of parking_lot, this one is poisoned, on which the writer relies"
)]
type PoisonedByPanic<T> = std::sync::Mutex<T>;

/// What readers see of the files.
pub(super) enum State {
    /// They are open; this is the snapshot after the last commit.
    Open(Arc<View>),
    /// They are being opened again after a failure, which tells whether the failed commit took place.
    Opening,
    /// They could not be opened again yet.
    Failed,
}

/// The writer, and the calls that wait for it.
pub(super) struct Commits {
    writer: Arc<PoisonedByPanic<Writer>>,
    blocking: Blocking,
    /// How many requests are queued.
    waiting: Arc<AtomicUsize>,
    /// `None` only while this is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// The batches of one call, and the channel for their verdicts.
struct Request {
    batches: Vec<Batch>,
    reply: oneshot::Sender<Vec<Verdict>>,
}

/// Holds all that is needed to commit.
pub(super) struct Writer {
    pub(super) open: Open,
    /// `None` after a failure, until the files could be opened again.
    pub(super) files: Option<Files>,
    pub(super) state: watch::Sender<State>,
    pub(super) time: Arc<MonotoneTime>,
    pub(super) hints: Arc<Hints>,
    /// Whether the log has no room to grow, which is logged once until a commit succeeds.
    pub(super) is_full: bool,
}

impl Commits {
    /// Starts the thread that commits the queued requests.
    pub(super) fn start(writer: Writer) -> io::Result<Self> {
        let (writer, waiting) = (Arc::new(PoisonedByPanic::new(writer)), Arc::<AtomicUsize>::default());
        let (requests, queue) = mpsc::channel();
        let run = {
            let (writer, waiting) = (writer.clone(), waiting.clone());
            move || run(&writer, &waiting, &queue)
        };
        let blocking = Blocking::start()?;
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(run)?;
        Ok(Self { writer, blocking, waiting, requests: Some(requests), thread: Some(thread) })
    }

    /// Commits batches and returns their verdicts once they are durable.
    pub(super) async fn commit(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        match self.commit_here(&batches) {
            Some(verdicts) => Ok(verdicts),
            None => self.send(batches)?.await.map_err(|_| StoreError::Closed),
        }
    }

    /// Queues an empty commit, which opens the files again if the disk has failed. Nobody waits for it.
    pub(super) fn probe(&self) {
        // If the writer has ended, there is nothing to open.
        let _ = self.send(Vec::new());
    }

    /// Commits batches on the caller's thread. Returns `None` if another commit is under way or queued.
    fn commit_here(&self, batches: &[Batch]) -> Option<Vec<Verdict>> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let mut writer = self.writer.try_lock().ok()?;
        self.blocking.run(|| writer.commit(&[batches])).pop()
    }

    fn send(&self, batches: Vec<Batch>) -> Result<oneshot::Receiver<Vec<Verdict>>, StoreError> {
        let (reply, verdicts) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(Request { batches, reply }).map_err(|_| StoreError::Closed)?;
        Ok(verdicts)
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        // Closing the queue ends the thread after its last commit, which closes the files and releases their lock.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

/// Commits the queued requests until every sender is gone, and then closes the files. Ends at once if a commit has panicked.
fn run(writer: &PoisonedByPanic<Writer>, waiting: &AtomicUsize, queue: &mpsc::Receiver<Request>) {
    while let Ok(first) = queue.recv() {
        let Ok(mut writer) = writer.lock() else { return };
        let mut size = first.batches.len();
        let mut group = vec![first];
        while size < MAX_GROUP_BATCHES
            && let Ok(request) = queue.try_recv()
        {
            size += request.batches.len();
            group.push(request);
        }
        let batches: Vec<&[Batch]> = group.iter().map(|request| request.batches.as_slice()).collect();
        let verdicts = writer.commit(&batches);
        waiting.fetch_sub(group.len(), Ordering::SeqCst);
        for (request, verdicts) in group.into_iter().zip(verdicts) {
            // A caller that has gone away reads the records when it comes back.
            let _ = request.reply.send(verdicts);
        }
    }
    let Ok(mut writer) = writer.lock() else { return };
    if let Some(Err(error)) = writer.files.take().map(Files::close) {
        tracing::warn!(%error, "the logs of the queue's store are left for the next start");
    }
}

impl Writer {
    /// Commits the batches of many calls together, and returns the verdicts of each call.
    fn commit(&mut self, group: &[&[Batch]]) -> Vec<Vec<Verdict>> {
        metrics::histogram!("sortinghat_store_group_batches")
            .record(group.iter().map(|of| of.len()).sum::<usize>() as f64);
        if self.files.is_none() {
            self.reopen();
        }
        let unknown = || group.iter().map(|batches| vec![Verdict::Unknown; batches.len()]).collect();
        let verdicts = self.write(group).unwrap_or_else(unknown);
        for (batches, verdicts) in group.iter().zip(&verdicts) {
            self.hint(batches, verdicts);
        }
        verdicts
    }

    /// The verdicts of each call, or `None` after a failure.
    fn write(&mut self, group: &[&[Batch]]) -> Option<Vec<Vec<Verdict>>> {
        let files = self.files.as_mut()?;
        match write(group, files, &self.time) {
            Ok(verdicts) => {
                self.is_full = false;
                self.state.send_replace(State::Open(Arc::new(files.view().clone())));
                Some(verdicts)
            }
            Err(error) => {
                metrics::counter!("sortinghat_store_commit_failures_total").increment(1);
                match error {
                    // The disk is full, probably for a while. Reads go on.
                    CommitError::NoRoom(error) if !std::mem::replace(&mut self.is_full, true) => {
                        tracing::error!(%error, "the queue's store cannot grow, so nothing can be committed");
                    }
                    CommitError::NoRoom(_) => {}
                    CommitError::Unsure(error) => {
                        tracing::error!(%error, "the queue's store failed to commit: opening its files again");
                        self.reopen();
                    }
                }
                None
            }
        }
    }

    /// Opens the files again before any caller hears of the failure, so that a read tells finally whether a batch was applied. Reads wait
    /// until then: otherwise a batch could appear after a reader was told that it had not been applied.
    fn reopen(&mut self) {
        self.state.send_replace(State::Opening);
        // Open tables are locked, so they are closed first.
        self.files = None;
        let state = match (self.open)() {
            Ok(files) => {
                let view = files.view().clone();
                self.files = Some(files);
                State::Open(Arc::new(view))
            }
            Err(error) => {
                tracing::error!(%error, "the queue's files cannot be opened again yet: the next call tries again");
                State::Failed
            }
        };
        self.state.send_replace(state);
    }

    fn hint(&self, batches: &[Batch], verdicts: &[Verdict]) {
        let applied = batches.iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Applied(_)));
        applied.flat_map(|(batch, _)| &batch.topics).for_each(|topic| self.hints.tell(topic));
    }
}

/// Commits the changes of the batches, and returns the verdicts of each call.
fn write(group: &[&[Batch]], files: &mut Files, time: &MonotoneTime) -> Result<Vec<Vec<Verdict>>, CommitError> {
    let (changes, verdicts) = apply(group, files.view())?;
    if group.iter().all(|batches| batches.is_empty()) {
        files.probe()?;
    }
    files.commit(&Changes { time: time.now().0, ..changes })?;
    Ok(verdicts)
}

/// The changes of all batches together, and the verdicts of each call.
fn apply<'g>(group: &[&'g [Batch]], before: &View) -> Result<(Changes<'g>, Vec<Vec<Verdict>>), redb::Error> {
    let mut changes = Changes { last_version: before.active.last_version, ..Changes::default() };
    let mut verdicts = Vec::with_capacity(group.len());
    for batches in group {
        let of_call: Result<Vec<_>, _> = batches.iter().map(|batch| changes.add(batch, before)).collect();
        verdicts.push(of_call?);
    }
    Ok((changes, verdicts))
}
