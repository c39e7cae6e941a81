//! The one thread that writes: it takes what has queued up meanwhile, logs it as one commit, and answers all.

use std::sync::{Arc, mpsc};

use tokio::sync::{oneshot, watch};

use super::{MonotoneTime, Open, State, changes::Changes, files::Files, view::View};
use crate::store::{Batch, Hints, Verdict};

/// Batches of one commit; more would only make the first ones wait.
const MAX_GROUP_BATCHES: usize = 4096;

/// Batches of one call, and where their verdicts go.
pub(super) struct Request {
    pub(super) batches: Vec<Batch>,
    pub(super) reply: oneshot::Sender<Vec<Verdict>>,
}

/// The writer's own things.
pub(super) struct Writer {
    pub(super) open: Open,
    /// `None` after a failure, until they could be opened again.
    pub(super) files: Option<Files>,
    pub(super) state: watch::Sender<State>,
    pub(super) time: Arc<MonotoneTime>,
    pub(super) hints: Arc<Hints>,
}

impl Writer {
    /// Works until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Request>) {
        while let Ok(first) = queue.recv() {
            let mut size = first.batches.len();
            let mut group = vec![first];
            while size < MAX_GROUP_BATCHES
                && let Ok(request) = queue.try_recv()
            {
                size += request.batches.len();
                group.push(request);
            }
            metrics::histogram!("sortinghat_store_group_batches").record(size as f64);
            self.commit(group);
        }
        if let Some(Err(error)) = self.files.map(Files::close) {
            tracing::warn!(%error, "the logs of the queue's store are left for the next start");
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        if self.files.is_none() {
            self.reopen();
        }
        let verdicts = self
            .write(&group)
            .unwrap_or_else(|| group.iter().map(|request| vec![Verdict::Unknown; request.batches.len()]).collect());
        for (request, verdicts) in group.into_iter().zip(verdicts) {
            self.hint(&request.batches, &verdicts);
            // A caller that has gone away reads what became of its batch when it comes back.
            let _ = request.reply.send(verdicts);
        }
    }

    /// The verdicts; `None` after a failure.
    fn write(&mut self, group: &[Request]) -> Option<Vec<Vec<Verdict>>> {
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
fn write(group: &[Request], files: &mut Files, time: &MonotoneTime) -> Result<Vec<Vec<Verdict>>, redb::Error> {
    let (changes, verdicts) = apply(group, files.view())?;
    if group.iter().all(|request| request.batches.is_empty()) {
        files.probe()?;
    }
    files.commit(&Changes { time: time.now().0, ..changes })?;
    Ok(verdicts)
}

/// What the batches change, and their verdicts.
fn apply<'g>(group: &'g [Request], before: &View) -> Result<(Changes<'g>, Vec<Vec<Verdict>>), redb::Error> {
    let mut changes = Changes { last_version: before.recent.last_version, ..Changes::default() };
    let mut verdicts = Vec::with_capacity(group.len());
    for request in group {
        let of_request: Result<Vec<_>, _> = request.batches.iter().map(|batch| changes.apply(batch, before)).collect();
        verdicts.push(of_request?);
    }
    Ok((changes, verdicts))
}
