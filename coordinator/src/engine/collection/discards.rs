//! Removing checkpoints that no attempt goes on from any more: older ones, and the newest one of a task that has succeeded. They are the
//! largest objects by far, so they do not wait for a pass.
//!
//! The commit that makes a checkpoint superfluous enters it into an index, from which any coordinator removes it. The newest checkpoint of a
//! job that failed or was cancelled stays, since a retry goes on from there. If two jobs make the same checkpoint, bit by bit, one may
//! remove it from under the other, which then begins anew after a crash.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use sortinghat_proto::{Digest, JobId, Tenant};
use tokio_util::sync::CancellationToken;

use super::{Collection, inventory::ObjectInventory, pass::SKEW_PART};
use crate::{
    engine::{
        error::EngineError,
        records::{self, JobRecord, expectation, keys},
    },
    queue::State,
    store::{Batch, Range},
};

/// How many checkpoints are looked at together.
const CHECKPOINTS_PER_STEP: usize = 64;
/// How many jobs of which a job is a retry are looked at.
const MAX_RETRIES_FOLLOWED: usize = 100;
/// How long to wait at most, since a hint may be lost.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long to wait after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Changes whenever entries of the index are removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct DiscardingRecord {
    rounds: u64,
}

impl Collection {
    /// Removes superfluous checkpoints as they come, until `stop` is cancelled. Without an inventory they are only forgotten.
    pub(crate) async fn run_discards(&self, inventory: Option<Arc<dyn ObjectInventory>>, stop: CancellationToken) {
        let rounds = async {
            let mut hints = self.records.store.hints().listen([keys::DISCARDED]);
            loop {
                if let Err(error) = self.discard(inventory.as_deref()).await {
                    self.context.log_throttle.error(&error, "superfluous checkpoints cannot be removed now");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
                tokio::select! {
                    () = hints.heard() => {}
                    () = tokio::time::sleep(LONGEST_PAUSE) => {}
                }
            }
        };
        tokio::select! {
            () = rounds => {}
            () = stop.cancelled() => {}
        }
    }

    /// Removes the checkpoints that are superfluous now. Returns how many were removed.
    pub(crate) async fn discard(&self, inventory: Option<&dyn ObjectInventory>) -> Result<usize, EngineError> {
        let mut removed = 0;
        loop {
            let key = keys::DISCARDING.to_owned();
            let record = self.records.read::<DiscardingRecord>(key.clone()).await?;
            let entries = self.records.store.range(Range::first(keys::DISCARDED, CHECKPOINTS_PER_STEP)).await?;
            if entries.is_empty() {
                return Ok(removed);
            }
            for entry in &entries {
                if let (Some(inventory), Some((tenant, job, digest))) = (inventory, keys::checkpoint_of_entry(entry)) {
                    removed += usize::from(self.discard_one(inventory, &tenant, &job, &digest).await?);
                }
            }
            let next = DiscardingRecord { rounds: record.as_ref().map_or(0, |record| record.value.rounds) + 1 };
            let removals = entries.into_iter().map(|entry| (keys::DISCARDED.to_owned(), entry));
            let batch = Batch {
                checks: vec![(key.clone(), expectation(&record))],
                writes: vec![(key, records::encode(&next))],
                removals: removals.collect(),
                ..Batch::default()
            };
            // If another coordinator was faster, it has removed the same.
            self.records.apply_one(batch).await?;
        }
    }

    /// Removes a checkpoint if it is superfluous, and returns whether it was. One that cannot be removed, because its job's record cannot
    /// be read or for any other reason that lies in it alone, holds up no other: it stays until nothing refers to it.
    async fn discard_one(
        &self,
        inventory: &dyn ObjectInventory,
        tenant: &Tenant,
        job: &JobId,
        digest: &Digest,
    ) -> Result<bool, EngineError> {
        match self.is_superfluous(inventory, tenant, job, digest).await {
            Ok(true) => inventory.remove(tenant, digest).await?,
            Ok(false) => return Ok(false),
            Err(error @ EngineError::Unreadable { .. }) => {
                self.context.log_throttle.error(&error, "the checkpoints of a job stay");
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        metrics::counter!("sortinghat_checkpoints_removed_total").increment(1);
        Ok(true)
    }

    /// Whether a checkpoint that a job has made can be removed. It cannot if an attempt may go on from it: of the job, or of the jobs of
    /// which the job is a retry. An object that is older than the job is not of its making, whatever a worker says.
    async fn is_superfluous(
        &self,
        inventory: &dyn ObjectInventory,
        tenant: &Tenant,
        job: &JobId,
        digest: &Digest,
    ) -> Result<bool, EngineError> {
        // What a forgotten job has left is not referred to any more, so that a pass removes it.
        let Some(made_by) = self.records.read::<JobRecord>(keys::job(job)).await? else { return Ok(false) };
        let oldest = made_by.value.created.0.saturating_sub(self.half_grace_ms() / SKEW_PART);
        let mut next = Some(made_by);
        for _ in 0..MAX_RETRIES_FOLLOWED {
            let Some(user) = next else { break };
            let task = &user.value.progress.task.task;
            let is_checkpoint = task.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.digest == *digest);
            if is_checkpoint && !matches!(task.state, State::Succeeded { .. }) {
                return Ok(false);
            }
            next = match &user.value.links.retry_of {
                Some(earlier) => self.records.read::<JobRecord>(keys::job(earlier)).await?,
                None => None,
            };
        }
        if next.is_some() {
            // Jobs remain that were not looked at.
            return Ok(false);
        }
        let found = inventory.find(tenant, digest).await?;
        Ok(found.is_some_and(|object| object.written.0 >= oldest))
    }
}
