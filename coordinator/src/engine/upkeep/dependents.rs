//! Telling the children of a job that the job has ended. This goes in rounds, and may begin again anywhere.

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::{JobId, TaskId, time::UnixMs, v1::JobState};

use super::Upkeep;
use crate::{
    engine::{
        changes::{Change, Loaded},
        error::EngineError,
        records::{self, Failures, JobRecord, Versioned, keys},
    },
    queue::{Event, State},
    store::{Batch, Expectation, Range},
};

/// How many parents one round handles.
const PARENTS_PER_ROUND: usize = 32;
/// How many children of one parent one round tells.
const CHILDREN_PER_ROUND: usize = 128;
/// How many children are told concurrently, so that they share the syncs of the store.
const CHILDREN_AT_A_TIME: usize = 64;

impl Upkeep {
    /// Tells children of ended jobs, which unblocks or cancels them. Returns how many were told.
    pub(super) async fn tell_dependents(&self, now: UnixMs) -> Result<usize, EngineError> {
        let parents = self.records.store.range(Range::first(keys::ENDED_PARENTS, PARENTS_PER_ROUND)).await?;
        let (mut told, mut failures) = (0, Failures::default());
        for parent in parents.iter().filter_map(|id| id.parse::<JobId>().ok()) {
            told += failures.pass(self.tell_children(&parent, now).await)?;
        }
        failures.or(told)
    }

    async fn tell_children(&self, parent: &JobId, now: UnixMs) -> Result<usize, EngineError> {
        // The parent must be read before its children. A child that is added later writes the parent, and then the batch below does not
        // apply.
        let Some(record) = self.records.read::<JobRecord>(keys::job(parent)).await? else { return Ok(0) };
        let children = self.records.store.range(Range::first(keys::children(parent), CHILDREN_PER_ROUND)).await?;
        if children.is_empty() {
            return self.finish(&record).await.map(|()| 0);
        }
        let tasks = children.iter().filter_map(|id| Some(TaskId::new(id.parse().ok()?, 0)));
        let loaded = self.changes.tasks.load(&tasks.collect::<Vec<_>>()).await?;
        // Each change is about one child only, so they may run concurrently.
        let told: Vec<_> = loaded.iter().map(|child| self.tell(parent, child, now)).collect();
        let told: Vec<bool> = stream::iter(told).buffered(CHILDREN_AT_A_TIME).try_collect().await?;
        // If the first task of a child is not there any more, the child was forgotten or is in its finish. It need not be told, and must
        // not keep its parent in the index.
        let there: HashSet<String> = loaded.iter().map(|child| child.job.value.id.to_string()).collect();
        let gone = children.into_iter().filter(|child| !there.contains(child));
        let gone: Vec<_> = gone.map(|child| (keys::children(parent), child)).collect();
        if !gone.is_empty() {
            self.strike_out(&record, gone).await?;
        }
        Ok(told.into_iter().filter(|told| *told).count())
    }

    /// Tells one child, and removes it from the parent's list in the same batch. `false` if another change came between. Then the next
    /// round tries again.
    async fn tell(&self, parent: &JobId, loaded: &Loaded, now: UnixMs) -> Result<bool, EngineError> {
        let mut change = Change::new(loaded, now);
        if loaded.task().task.state == State::Blocked {
            let parents = self.records.jobs(loaded.job.value.links.parents.iter().cloned()).await?;
            // The outputs are taken over now and not when the child runs, since a parent may be forgotten by then.
            parents.iter().for_each(|parent| change.take_over(&parent.value));
            if let Some(event) = news_of(&parents) {
                change.happen(&event, &self.context.rules)?;
            }
        }
        change.remove(keys::children(parent), loaded.job.value.id.to_string());
        match change.prepare()? {
            Some(prepared) => self.changes.commit(prepared).await,
            None => Ok(true),
        }
    }

    /// Removes a parent whose children were all told from the index.
    async fn finish(&self, parent: &Versioned<JobRecord>) -> Result<(), EngineError> {
        self.strike_out(parent, vec![(keys::ENDED_PARENTS.to_owned(), parent.value.id.to_string())]).await
    }

    /// Removes index entries that the parent does not need any more. The parent's record is written although it does not change, so that
    /// this batch and the acceptance of a new child at the same moment exclude each other.
    async fn strike_out(
        &self,
        parent: &Versioned<JobRecord>,
        entries: Vec<(String, String)>,
    ) -> Result<(), EngineError> {
        let key = keys::job(&parent.value.id);
        let batch = Batch {
            checks: vec![(key.clone(), Expectation::Version(parent.version))],
            writes: vec![(key, records::encode(&parent.value))],
            removals: entries,
            ..Batch::default()
        };
        self.records.apply_one(batch).await.map(drop)
    }
}

/// What a blocked child is told about its parents: that one has failed, that all have succeeded, or nothing yet. The batch need not check
/// the parents, since a job that has ended does not change its state. A parent that does not exist any more has succeeded, since otherwise
/// the child would have been told before.
fn news_of(parents: &[Versioned<JobRecord>]) -> Option<Event> {
    let has_failed =
        |parent: &&Versioned<JobRecord>| matches!(parent.value.state(), JobState::Failed | JobState::Cancelled);
    if let Some(failed) = parents.iter().find(has_failed) {
        return Some(Event::ParentFailed(failed.value.id.to_string()));
    }
    let all_succeeded = parents.iter().all(|parent| parent.value.state() == JobState::Succeeded);
    all_succeeded.then_some(Event::ParentsSucceeded)
}
