//! Changes of different origin that go into one call of the store, so that they share its sync.

use super::{
    Changes,
    commit::{Holding, Prepared},
};
use crate::engine::error::EngineError;

/// What a worker reported, waiting for the leases that the worker gets in the same call of the store.
#[derive(Default)]
pub(crate) struct JointCommit {
    waiting: Vec<(usize, Prepared)>,
    /// Of each change whether it is known to be applied.
    applied: Vec<bool>,
}

impl JointCommit {
    /// These changes wait. Where there is nothing to change, that counts as applied.
    pub(crate) fn of(changes: Vec<Option<Prepared>>) -> Self {
        let applied = changes.iter().map(Option::is_none).collect();
        let waiting = changes.into_iter().enumerate().filter_map(|(place, change)| Some((place, change?)));
        Self { waiting: waiting.collect(), applied }
    }

    /// Applies `others`, and before them in the same call the changes that still wait. Returns for each of the others the task and its job
    /// as they are now, if that change is known to be applied.
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

    /// Applies the changes that still wait, and returns for each of all changes whether it is known to be applied.
    pub(crate) async fn outcomes(mut self, changes: &Changes) -> Result<Vec<bool>, EngineError> {
        self.commit_with(changes, Vec::new()).await?;
        Ok(self.applied)
    }
}
