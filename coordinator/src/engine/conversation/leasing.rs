//! Leasing ready tasks to a worker. The room `dispatch` makes the plan. The plan is committed here, in a joint commit with the worker's
//! reports.

use futures::future;

use super::Conversation;
use crate::engine::{
    changes::{Holding, JointCommit},
    context::MAX_TRIES,
    dispatch::Plan,
    error::EngineError,
    workers::Claimant,
};

impl Conversation {
    /// Leases up to `capacity` tasks to a worker, and returns them. From then on the index of tasks that the worker holds lists them,
    /// whether or not the answer reaches the worker. `first` is the first plan, if it was made already. The changes that wait in `joint`
    /// are committed with the first plan. Only an unavailable store is an error, since a worker's reports must not fail because a task
    /// cannot be claimed.
    pub(super) async fn claim(
        &self,
        claimant: &Claimant,
        capacity: usize,
        mut first: Option<Result<Option<Plan<'_>>, EngineError>>,
        joint: &mut JointCommit,
    ) -> Result<Vec<Holding>, EngineError> {
        if capacity == 0 {
            return Ok(Vec::new());
        }
        let mut lost_races = 0;
        for _ in 0..MAX_TRIES {
            let plan = match first.take() {
                Some(plan) => plan?,
                None => {
                    let now = async { Ok(self.records.store.now().await?) };
                    let ready = self.dispatch.ready(claimant, capacity, lost_races);
                    let (ready, now) = future::try_join(ready, now).await?;
                    self.dispatch.plan(claimant, capacity, ready, &[], now).await?
                }
            };
            let Some(mut plan) = plan else { return Ok(Vec::new()) };
            let outcomes = joint.commit_with(&self.changes, std::mem::take(&mut plan.changes)).await?;
            let claimed = self.dispatch.committed(claimant, plan, outcomes);
            if !claimed.tasks.is_empty() {
                return Ok(claimed.tasks);
            }
            lost_races += usize::from(claimed.raced);
        }
        // Other claims took the tasks first in every try. The worker's next message tries again.
        Ok(Vec::new())
    }
}
