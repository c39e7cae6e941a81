//! Giving ready tasks to a worker.

use sortinghat_proto::{Refusal, TaskId, WorkerId};

use super::{MAX_TRIES, Shared, change::Change, keys};
use crate::{queue::Event, store::Range};

/// Tasks that one call may claim.
const MAX_CLAIMS: usize = 64;

impl Shared {
    /// Leases up to `capacity` tasks to a worker, the first ones of the ready order, and returns how many. They are found
    /// in its index of held tasks from then on, whether or not the answer reaches it.
    pub(super) async fn claim(&self, worker: &WorkerId, host: &str, capacity: usize) -> Result<usize, Refusal> {
        let range = Range::first(keys::READY, capacity.min(MAX_CLAIMS));
        if capacity == 0 || self.store.range(range.clone()).await?.is_empty() {
            return Ok(0);
        }
        let _one_at_a_time = self.claiming.lock().await;
        for _ in 0..MAX_TRIES {
            let entries = self.store.range(range.clone()).await?;
            if entries.is_empty() {
                return Ok(0);
            }
            let ids: Vec<TaskId> = entries.iter().filter_map(|entry| keys::task_of_entry(entry)).collect();
            let claimed = self.claim_these(worker, host, &ids).await?;
            if claimed > 0 {
                return Ok(claimed);
            }
        }
        // Others took them all, time and again; the next poll tries again.
        Ok(0)
    }

    async fn claim_these(&self, worker: &WorkerId, host: &str, ids: &[TaskId]) -> Result<usize, Refusal> {
        let now = self.store.now().await?;
        let mut changes = Vec::with_capacity(ids.len());
        for loaded in &self.load(ids).await? {
            let mut change = Change::new(loaded, now);
            host.clone_into(&mut change.host);
            // It may have been taken since the index was read.
            if change.happen(&Event::Claim(worker.clone()), &self.rules).is_ok() {
                changes.extend(change.prepare()?);
            }
        }
        let applied = self.commit_all(changes).await?;
        Ok(applied.into_iter().filter(|applied| *applied).count())
    }
}
