//! Parsing a worker's reports on its leases.

use sortinghat_proto::{
    ObjectRef, Refusal, TaskId, WorkerId,
    v1::{self, task_outcome},
};

use crate::{
    engine::{context::bounded, workers::LeaseName},
    queue::{Outcome, Output, Token},
};

/// A worker's report on one lease, parsed.
#[derive(Debug)]
pub(super) struct LeaseReport {
    pub(crate) task: TaskId,
    pub(crate) token: Token,
    pub(crate) progress: Option<v1::Progress>,
    pub(crate) beat: u64,
    /// Sorted by sequence.
    pub(crate) events: Vec<v1::AttemptEvent>,
    pub(crate) outcome: Option<Outcome>,
}

impl LeaseReport {
    /// The name of the lease that the report is about.
    pub(crate) fn name(&self) -> LeaseName {
        (self.task.clone(), self.token.epoch)
    }

    /// The same name on the wire.
    pub(crate) fn key(&self) -> v1::LeaseKey {
        v1::LeaseKey { task_id: self.task.to_string(), epoch: self.token.epoch }
    }

    /// Parses a report from `worker`.
    pub(crate) fn parse(wire: v1::LeaseReport, worker: &WorkerId) -> Result<Self, Refusal> {
        let mut events = wire.events;
        events.sort_by_key(|event| event.sequence);
        Ok(Self {
            task: wire.task_id.parse()?,
            token: Token { epoch: wire.epoch, worker: worker.clone() },
            progress: wire.progress.map(|progress| v1::Progress {
                phase: bounded(progress.phase),
                unit: bounded(progress.unit),
                ..progress
            }),
            beat: wire.beat,
            events,
            outcome: wire.outcome.map(parse_outcome),
        })
    }
}

/// Parses an outcome. An outcome that cannot be read ends the attempt, too, since otherwise the worker would repeat it for ever.
fn parse_outcome(wire: v1::TaskOutcome) -> Outcome {
    use task_outcome::Outcome as Wire;
    match wire.outcome {
        Some(Wire::Succeeded(succeeded)) => match succeeded.manifest.map(ObjectRef::try_from) {
            Some(Ok(manifest)) => Outcome::Succeeded(Output::Made { manifest, summary: bounded(succeeded.summary) }),
            None | Some(Err(_)) => Outcome::Crashed("the worker reported success without a manifest".to_owned()),
        },
        Some(Wire::Failed(failure)) => {
            Outcome::Failed(v1::Failure { message: bounded(failure.message), field: bounded(failure.field), ..failure })
        }
        Some(Wire::Crashed(cause)) => Outcome::Crashed(bounded(cause)),
        Some(Wire::Returned(reason)) => Outcome::Returned(bounded(reason)),
        Some(Wire::Cancelled(v1::TaskCancelled {})) => Outcome::Cancelled,
        Some(Wire::Divided(v1::TaskDivided { items })) => Outcome::Succeeded(Output::Counted { items }),
        None => Outcome::Crashed("the worker reported an outcome that this coordinator does not know".to_owned()),
    }
}
