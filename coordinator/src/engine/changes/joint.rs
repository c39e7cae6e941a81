//! The joint commit: changes of two origins go into one call of the store, so that they share one sync.

use super::{
    Changes,
    commit::{Holding, Prepared},
};
use crate::engine::error::EngineError;

/// The changes that a worker's reports lead to. They wait to be committed together with the next leases of the worker.
#[derive(Default)]
pub(crate) struct JointCommit {
    waiting: Vec<(usize, Prepared)>,
    /// For each change, whether it is known to be applied.
    applied: Vec<bool>,
}

impl JointCommit {
    /// Lets these changes wait. `None`, where there is nothing to change, counts as applied.
    pub(crate) fn of(changes: Vec<Option<Prepared>>) -> Self {
        let applied = changes.iter().map(Option::is_none).collect();
        let waiting = changes.into_iter().enumerate().filter_map(|(place, change)| Some((place, change?)));
        Self { waiting: waiting.collect(), applied }
    }

    /// Commits the changes that still wait, and `others` after them in the same call. Returns for each of the others the task and its job
    /// as they are now, or `None` if that change is not known to be applied.
    pub(crate) async fn commit_with(
        &mut self,
        changes: &Changes,
        others: Vec<Prepared>,
    ) -> Result<Vec<Option<Holding>>, EngineError> {
        let (places, mut all): (Vec<usize>, Vec<Prepared>) = self.waiting.drain(..).unzip();
        all.extend(others);
        let mut applied = changes.commit_all(all).await?;
        let others = applied.split_off(places.len());
        for (place, applied) in places.into_iter().zip(applied) {
            self.applied[place] = applied.is_some();
        }
        Ok(others)
    }

    /// Commits the changes that still wait, and returns for every change whether it is known to be applied.
    pub(crate) async fn outcomes(mut self, changes: &Changes) -> Result<Vec<bool>, EngineError> {
        self.commit_with(changes, Vec::new()).await?;
        Ok(self.applied)
    }
}
