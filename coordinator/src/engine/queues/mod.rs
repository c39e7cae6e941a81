//! The queues of the tenants: which are open, what is at their heads, what a tenant has paused or cancelled, and how much may wait.

mod gates;
mod heads;
mod quota;
mod ready;

use std::sync::Arc;

use super::{context::Context, records::Records};

use quota::Quota;
use ready::{EmptyQueues, LastOpen};

pub(crate) use gates::{BulkCancellation, Gate, Gates, QueueRecord, queue_batch};

/// The queues of all tenants.
pub(crate) struct Queues {
    context: Arc<Context>,
    records: Records,
    last_open: LastOpen,
    empty_queues: EmptyQueues,
    quota: Quota,
}

impl Queues {
    /// The queues of these records.
    pub(crate) fn new(context: Arc<Context>, records: Records) -> Self {
        Self {
            context,
            records,
            last_open: LastOpen::default(),
            empty_queues: EmptyQueues::default(),
            quota: Quota::default(),
        }
    }
}
