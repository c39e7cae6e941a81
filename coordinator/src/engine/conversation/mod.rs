//! The conversation with workers. A worker's message says what the worker is doing, and the answer says what it should be doing.
//!
//! This is the only room that commits leases. It records the reports of a message and leases tasks for the worker's free slots in one joint
//! commit, so that both share a sync of the store.
//!
//! The room owns one table, the prefetches under way, which only [`Prefetch`] knows. Its face is [`Conversation`], with `synchronize` and
//! `list_workers`.

mod assignment;
mod leasing;
mod message;
mod outputs;
mod prefetch;
mod recording;
mod reports;
mod session;
mod synchronize;

use std::sync::Arc;

use super::{
    changes::Changes, collection::Collection, context::Context, dispatch::Dispatch, queues::Queues, records::Records,
    workers::Workers,
};

use prefetch::Prefetch;

/// The conversation with all workers.
pub(crate) struct Conversation {
    context: Arc<Context>,
    records: Records,
    changes: Arc<Changes>,
    queues: Arc<Queues>,
    workers: Arc<Workers>,
    collection: Arc<Collection>,
    dispatch: Arc<Dispatch>,
    prefetch: Arc<Prefetch>,
}

impl Conversation {
    /// Creates the room over these workers.
    pub(crate) fn new(
        context: Arc<Context>,
        records: Records,
        changes: Arc<Changes>,
        queues: Arc<Queues>,
        workers: Arc<Workers>,
        collection: Arc<Collection>,
        dispatch: Arc<Dispatch>,
    ) -> Self {
        let prefetch = Prefetch::new(records.clone(), changes.clone(), dispatch.clone(), context.settings.reads_ahead);
        let prefetch = Arc::new(prefetch);
        Self { context, records, changes, queues, workers, collection, dispatch, prefetch }
    }
}
