//! Telling the children of a job that it has ended. Chunked, and safe to begin again anywhere.

use sortinghat_proto::{JobId, Refusal, TaskId, time::UnixMs, v1::JobState};

use super::{
    Shared,
    change::Change,
    keys,
    load::Versioned,
    records::{self, JobRecord},
    reports::defect,
};
use crate::{
    queue::{Event, State},
    store::{Batch, Expectation, Range},
};

/// Parents of one round.
const PARENTS_PER_ROUND: usize = 32;
/// Children of one parent in one round.
const CHILDREN_PER_ROUND: usize = 128;

impl Shared {
    /// Unblocks or cancels children of jobs that have ended; returns how many were told.
    pub(super) async fn tell_dependents(&self, now: UnixMs) -> Result<usize, Refusal> {
        let parents = self.store.range(Range::first(keys::ENDED_PARENTS, PARENTS_PER_ROUND)).await?;
        let mut told = 0;
        for parent in parents.iter().filter_map(|id| id.parse::<JobId>().ok()) {
            told += self.tell_children(&parent, now).await?;
        }
        Ok(told)
    }

    async fn tell_children(&self, parent: &JobId, now: UnixMs) -> Result<usize, Refusal> {
        // Read before the children: a child that comes later changes it, and the batch below then fails.
        let Some(record) = self.read::<JobRecord>(keys::job(parent)).await? else { return Ok(0) };
        let children = self.store.range(Range::first(keys::children(parent), CHILDREN_PER_ROUND)).await?;
        if children.is_empty() {
            return self.finish(&record).await.map(|()| 0);
        }
        let mut told = 0;
        for child in children.iter().filter_map(|id| id.parse::<JobId>().ok()) {
            told += usize::from(self.tell(parent, &child, now).await?);
        }
        Ok(told)
    }

    /// Tells one child, and takes it from the parent's list in the same batch. `false` if another change came between; the
    /// next round tries again.
    async fn tell(&self, parent: &JobId, child: &JobId, now: UnixMs) -> Result<bool, Refusal> {
        let loaded = self.load(&[TaskId::new(child.clone(), 0)]).await?;
        let Some(loaded) = loaded.first() else { return Ok(false) };
        let mut change = Change::new(loaded, now);
        if loaded.task.value.task.state == State::Blocked
            && let Some(event) = self.news_of_parents(&loaded.job.value.parents).await?
        {
            change.happen(&event, &self.rules).map_err(defect)?;
        }
        change.remove(keys::children(parent), child.to_string());
        match change.prepare()? {
            Some(prepared) => self.commit(prepared).await,
            None => Ok(true),
        }
    }

    /// What a blocked child should hear: a parent has failed, all have succeeded, or nothing yet. What has ended stays ended, so
    /// that no check of the parents is needed.
    async fn news_of_parents(&self, parents: &[JobId]) -> Result<Option<Event>, Refusal> {
        let keys: Vec<String> = parents.iter().map(keys::job).collect();
        let parents = self.read_all::<JobRecord>(&keys).await?;
        let states: Vec<(String, JobState)> =
            parents.into_iter().flatten().map(|job| (job.value.id.to_string(), job.value.state())).collect();
        let has_failed = |state: &JobState| matches!(state, JobState::Failed | JobState::Cancelled);
        if let Some((failed, _)) = states.iter().find(|(_, state)| has_failed(state)) {
            return Ok(Some(Event::ParentFailed(failed.clone())));
        }
        let all_succeeded = states.iter().all(|(_, state)| *state == JobState::Succeeded);
        Ok(all_succeeded.then_some(Event::ParentsSucceeded))
    }

    /// Every child was told. The parent's record is written although it does not change, so that a child which is accepted at
    /// the same moment and this batch exclude each other.
    async fn finish(&self, parent: &Versioned<JobRecord>) -> Result<(), Refusal> {
        let key = keys::job(&parent.value.id);
        let batch = Batch {
            checks: vec![(key.clone(), Expectation::Version(parent.version))],
            writes: vec![(key, records::encode(&parent.value))],
            removals: vec![(keys::ENDED_PARENTS.to_owned(), parent.value.id.to_string())],
            ..Batch::default()
        };
        self.apply_one(batch).await.map(drop)
    }
}
