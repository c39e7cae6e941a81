//! Dispatch: which ready task goes to which worker. The room plans claims, leaves a task to a better worker for a moment, wakes waiting
//! workers, and preempts running tasks.
//!
//! A plan changes nothing. The room `conversation` commits it, together with a worker's reports.
//!
//! The room owns three tables: the claims under way in this process, the tasks that are deferred to better workers, and since when the heads
//! of queues wait. Its face is [`Dispatch`].

mod claim;
mod preemption;
mod preference;
mod round;
mod waking;

use std::sync::Arc;

use sortinghat_proto::time::UnixMs;

use super::{changes::Changes, context::Context, queues::Queues, records::Records, workers::Workers};

use preemption::WaitingHeads;
use preference::DeferredTasks;
use round::Claims;

pub(crate) use claim::{MAX_CLAIMS, Plan, Ready};

/// Finds tasks for workers, and workers for tasks.
pub(crate) struct Dispatch {
    context: Arc<Context>,
    records: Records,
    changes: Arc<Changes>,
    queues: Arc<Queues>,
    workers: Arc<Workers>,
    claims: Claims,
    deferred: DeferredTasks,
    waiting_heads: WaitingHeads,
}

impl Dispatch {
    /// Creates the room over these queues and workers.
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
            deferred: DeferredTasks::default(),
            waiting_heads: WaitingHeads::default(),
        }
    }

    /// Forgets the tasks that are deferred to better workers long ago.
    pub(crate) fn forget_deferred(&self, now: UnixMs) {
        self.deferred.forget(now);
    }
}
