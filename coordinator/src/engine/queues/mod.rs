//! The queues of the tenants: which ready queues are open, which tasks are at their heads, what a tenant has paused or cancelled (the gate
//! of its queue), and how much may wait (the quota).
//!
//! The room owns four tables: the ready queues that were open at the last look, how long queues have been empty, recent counts for the
//! quota, and the weights of the tenants. The first three are caches. Other rooms use [`Queues`] and, for the gates of several tenants at once, [`Gates`].

mod gates;
mod heads;
mod quota;
mod ready;

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use sortinghat_proto::Tenant;

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
    /// The weights of tenants in fair sharing. A tenant that is not named has the weight 1.
    weights: RwLock<HashMap<Tenant, u32>>,
}

impl Queues {
    /// Creates the room over these records.
    pub(crate) fn new(context: Arc<Context>, records: Records) -> Self {
        let weights = RwLock::new(context.settings.weights.clone());
        Self {
            weights,
            context,
            records,
            last_open: LastOpen::default(),
            empty_queues: EmptyQueues::default(),
            quota: Quota::default(),
        }
    }
}
