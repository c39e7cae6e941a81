//! Waking waiting workers when there are tasks for them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Dispatch;
use crate::{
    engine::{
        error::EngineError,
        records::{QueueName, keys},
    },
    store::Range,
};

/// For how many tasks of one queue one look wakes workers.
const TASKS_PER_LOOK: usize = 256;
/// The pause before the next look, if more tasks and more workers wait.
const PAUSE: Duration = Duration::from_millis(10);

impl Dispatch {
    /// Wakes waiting workers whenever there are tasks for them, until `stop` is cancelled.
    pub(crate) async fn wake_workers(&self, stop: &CancellationToken) {
        let mut ready = self.records.store.hints().listen([keys::READY]);
        let poll = Duration::from_millis(self.context.settings.poll_ms);
        let mut has_more = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = ready.heard() => {}
                () = self.workers.waiting.unlooked() => {}
                () = tokio::time::sleep(if has_more { PAUSE } else { poll }) => {}
            }
            // The sweeps report a failing store. The next look finds the same tasks.
            has_more = self.wake_for_ready_tasks().await.unwrap_or_default();
        }
    }

    /// Wakes workers for the ready tasks. Returns whether more tasks and more workers wait than one look handles.
    async fn wake_for_ready_tasks(&self) -> Result<bool, EngineError> {
        if self.workers.waiting.is_empty() {
            return Ok(false);
        }
        let queues = self.queues.unpaused_queues().await?;
        let first = |queue: &QueueName| Range::first(queue.index(), TASKS_PER_LOOK);
        let tasks = self.records.store.ranges(queues.iter().map(first).collect()).await?;
        let mut has_more = false;
        for (queue, tasks) in queues.iter().zip(tasks).filter(|(_, tasks)| !tasks.is_empty()) {
            has_more |= self.workers.waiting.wake(tasks.len(), queue.demand()) && tasks.len() == TASKS_PER_LOOK;
        }
        Ok(has_more)
    }
}
