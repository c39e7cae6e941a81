//! Which ready task goes to which worker: planning claims, leaving tasks to better workers, waking workers, and preemption.

mod claim;
mod preemption;
mod preference;
mod round;
mod waking;

use std::sync::Arc;

use sortinghat_proto::time::UnixMs;

use super::{changes::Changes, context::Context, queues::Queues, records::Records, workers::Workers};

use preemption::WaitingHeads;
use preference::LeftTasks;
use round::Claims;

pub(crate) use claim::{MAX_CLAIMS, Plan, Ready};

/// Finds tasks for workers and workers for tasks.
pub(crate) struct Dispatch {
    context: Arc<Context>,
    records: Records,
    changes: Arc<Changes>,
    queues: Arc<Queues>,
    workers: Arc<Workers>,
    claims: Claims,
    left: LeftTasks,
    waiting_heads: WaitingHeads,
}

impl Dispatch {
    /// The dispatch between these queues and workers.
    pub(crate) fn new(
        context: Arc<Context>,
        records: Records,
        changes: Arc<Changes>,
        queues: Arc<Queues>,
        workers: Arc<Workers>,
    ) -> Self {
        Self {
            context,
            records,
            changes,
            queues,
            workers,
            claims: Claims::default(),
            left: LeftTasks::default(),
            waiting_heads: WaitingHeads::default(),
        }
    }

    /// Forgets tasks that were left to better workers long ago.
    pub(crate) fn forget_left(&self, now: UnixMs) {
        self.left.forget(now);
    }
}
