//! The one conversation with workers: they say what they are doing, and the answer says what they should be doing.
//!
//! A message's reports are recorded and tasks for its free slots are leased in one commit, so that both share a sync of the store.

mod assignment;
mod leasing;
mod message;
mod prefetch;
mod recording;
mod reports;
mod synchronize;

use std::sync::Arc;

use super::{
    changes::Changes, collection::Collection, context::Context, dispatch::Dispatch, queues::Queues, records::Records,
    workers::Workers,
};

use prefetch::Prefetch;

/// Talks with all workers.
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
    /// The conversation with these workers.
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
