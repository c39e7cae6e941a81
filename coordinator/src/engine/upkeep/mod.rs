//! The upkeep: everything that must happen as time goes on. Leases expire, delayed tasks become ready, children are told that their parents
//! have ended, deadlines pass, bulk cancellations reach their jobs, and jobs that ended long ago and sessions of workers that are silent for long are forgotten.
//!
//! Sweeps do all of this in small rounds. Any coordinator may run them at any time, and they may be interrupted anywhere.
//!
//! The room owns two tables: the grace of leases after an outage, and where retention reads on. Its face is [`Upkeep`], with `run` and
//! `sweep`.

mod deadlines;
mod deletion;
mod dependents;
mod retention;
mod sessions;
mod sweeps;

use std::sync::Arc;

use super::{
    changes::Changes, collection::Collection, context::Context, dispatch::Dispatch, jobs::Jobs, queues::Queues,
    records::Records, workers::Workers,
};

use retention::NextLook;
use sweeps::ExpiryGrace;

pub use sweeps::Swept;

/// Runs the sweeps for all tenants.
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
    pub(super) next_expiry: NextLook,
}
