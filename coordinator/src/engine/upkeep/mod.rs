//! What happens by itself as time goes on: leases run out, retries become due, children hear of their parents, deadlines pass, bulk
//! cancellations go on, and jobs that ended long ago are forgotten.

mod deadlines;
mod dependents;
mod retention;
mod sweeps;

use std::sync::Arc;

use super::{
    changes::Changes, collection::Collection, context::Context, dispatch::Dispatch, jobs::Jobs, queues::Queues,
    records::Records, workers::Workers,
};

use retention::NextLook;
use sweeps::ExpiryGrace;

pub use sweeps::Swept;

/// Moves time on for all tenants.
pub(crate) struct Upkeep {
    pub(super) context: Arc<Context>,
    pub(super) records: Records,
    pub(super) changes: Arc<Changes>,
    pub(super) queues: Arc<Queues>,
    pub(super) workers: Arc<Workers>,
    pub(super) collection: Arc<Collection>,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) expiry: ExpiryGrace,
    pub(super) next_look: NextLook,
}
