//! Commits, one after the other. A caller who finds nobody else at it commits where it is: to wake another thread, and to be
//! woken by it, takes nearly as long as a sync. What queues up meanwhile one thread commits together.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use tokio::sync::{oneshot, watch};

use super::{MonotoneTime, Open, State, blocking::Blocking, changes::Changes, files::Files, view::View};
use crate::store::{Batch, Hints, StoreError, Verdict};

/// Batches of one commit; more would only make the first ones wait.
const MAX_GROUP_BATCHES: usize = 4096;

/// Who commits next, and what waits for that.
pub(super) struct Commits {
    writer: Arc<Mutex<Writer>>,
    blocking: Blocking,
    /// Requests that wait.
    waiting: Arc<AtomicUsize>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// Batches of one call, and where their verdicts go.
struct Request {
    batches: Vec<Batch>,
    reply: oneshot::Sender<Vec<Verdict>>,
}

/// What it takes to commit.
pub(super) struct Writer {
    pub(super) open: Open,
    /// `None` after a failure, until they could be opened again.
    pub(super) files: Option<Files>,
    pub(super) state: watch::Sender<State>,
    pub(super) time: Arc<MonotoneTime>,
    pub(super) hints: Arc<Hints>,
}

impl Commits {
    /// Starts the thread that commits what waits.
    pub(super) fn start(writer: Writer) -> io::Result<Self> {
        let (writer, waiting) = (Arc::new(Mutex::new(writer)), Arc::<AtomicUsize>::default());
        let (requests, queue) = mpsc::channel();
        let run = {
            let (writer, waiting) = (writer.clone(), waiting.clone());
            move || run(&writer, &waiting, &queue)
        };
        let blocking = Blocking::start()?;
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(run)?;
        Ok(Self { writer, blocking, waiting, requests: Some(requests), thread: Some(thread) })
    }

    /// The verdicts on batches, once they are durable.
    pub(super) async fn commit(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        match self.commit_here(&batches) {
            Some(verdicts) => Ok(verdicts),
            None => self.send(batches)?.await.map_err(|_| StoreError::Closed),
        }
    }

    /// Commits nothing, which opens the files again if the disk has failed. Nobody waits for that.
    pub(super) fn probe(&self) {
        // A writer that is gone opens nothing.
        let _ = self.send(Vec::new());
    }

    /// Commits batches where the caller is; `None` if others wait or are at it.
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
        // Closing the queue ends the thread after its last commit; the files' lock goes with it.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

/// Commits what waits until every sender is gone, and then closes the files. Ends at once if a commit has panicked.
fn run(writer: &Mutex<Writer>, waiting: &AtomicUsize, queue: &mpsc::Receiver<Request>) {
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
            // A caller that has gone away reads what became of its batch when it comes back.
            let _ = request.reply.send(verdicts);
        }
    }
    let Ok(mut writer) = writer.lock() else { return };
    if let Some(Err(error)) = writer.files.take().map(Files::close) {
        tracing::warn!(%error, "the logs of the queue's store are left for the next start");
    }
}

impl Writer {
    /// Commits the batches of many calls together, and returns the verdicts of each.
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

    /// The verdicts; `None` after a failure.
    fn write(&mut self, group: &[&[Batch]]) -> Option<Vec<Vec<Verdict>>> {
        let files = self.files.as_mut()?;
        match write(group, files, &self.time) {
            Ok(verdicts) => {
                self.state.send_replace(State::Open(Arc::new(files.view().clone())));
                Some(verdicts)
            }
            Err(error) => {
                metrics::counter!("sortinghat_store_commit_failures_total").increment(1);
                tracing::error!(%error, "the queue's store failed to commit: opening its files again");
                self.reopen();
                None
            }
        }
    }

    /// Opens the files again before anybody hears of the failure, so that a read tells for good what became of their batches. Nobody
    /// begins to read meanwhile: what failed could appear after somebody was told that it did not happen.
    fn reopen(&mut self) {
        self.state.send_replace(State::Opening);
        // Closed first: the tables are locked while they are open.
        self.files = None;
        let state = match (self.open)() {
            Ok(files) => {
                let view = files.view().clone();
                self.files = Some(files);
                State::Open(Arc::new(view))
            }
            Err(error) => {
                tracing::error!(%error, "the queue's files cannot be opened again yet: the next call tries it");
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

/// Commits what the batches change, and returns their verdicts.
fn write(group: &[&[Batch]], files: &mut Files, time: &MonotoneTime) -> Result<Vec<Vec<Verdict>>, redb::Error> {
    let (changes, verdicts) = apply(group, files.view())?;
    if group.iter().all(|batches| batches.is_empty()) {
        files.probe()?;
    }
    files.commit(&Changes { time: time.now().0, ..changes })?;
    Ok(verdicts)
}

/// What the batches change, and their verdicts.
fn apply<'g>(group: &[&'g [Batch]], before: &View) -> Result<(Changes<'g>, Vec<Vec<Verdict>>), redb::Error> {
    let mut changes = Changes { last_version: before.recent.last_version, ..Changes::default() };
    let mut verdicts = Vec::with_capacity(group.len());
    for batches in group {
        let of_call: Result<Vec<_>, _> = batches.iter().map(|batch| changes.apply(batch, before)).collect();
        verdicts.push(of_call?);
    }
    Ok((changes, verdicts))
}
