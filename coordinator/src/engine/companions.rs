//! Changes of different origin that go into one call of the store, so that they share its sync.

use sortinghat_proto::Refusal;

use super::{
    Shared,
    change::{Holding, Prepared},
};

/// Changes that wait for others to go along with.
#[derive(Default)]
pub(super) struct Companions {
    waiting: Vec<(usize, Prepared)>,
    /// Of each change whether it is known to be applied.
    applied: Vec<bool>,
}

impl Companions {
    /// These changes; where there is nothing to change, that counts as applied.
    pub(super) fn of(changes: Vec<Option<Prepared>>) -> Self {
        let applied = changes.iter().map(Option::is_none).collect();
        let waiting = changes.into_iter().enumerate().filter_map(|(place, change)| Some((place, change?)));
        Self { waiting: waiting.collect(), applied }
    }

    /// Applies `others`, and before them, unless that was tried before, the companions; tells of each of the others what there is
    /// now if it is known to be applied.
    pub(super) async fn commit_with(
        &mut self,
        shared: &Shared,
        others: Vec<Prepared>,
    ) -> Result<Vec<Option<Holding>>, Refusal> {
        let (places, mut changes): (Vec<usize>, Vec<Prepared>) = self.waiting.drain(..).unzip();
        changes.extend(others);
        let mut applied = shared.commit_all(changes).await?;
        let others = applied.split_off(places.len());
        for (place, applied) in places.into_iter().zip(applied) {
            self.applied[place] = applied.is_some();
        }
        Ok(others)
    }

    /// Of each companion whether it is known to be applied.
    pub(super) async fn outcomes(mut self, shared: &Shared) -> Result<Vec<bool>, Refusal> {
        self.commit_with(shared, Vec::new()).await?;
        Ok(self.applied)
    }
}
