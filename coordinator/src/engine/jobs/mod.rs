//! Jobs as their users see them: shown, listed, watched, explained and cancelled, one or many at a time.
//!
//! The room owns no table. Its face is [`Jobs`]. The rooms above also use it to show jobs and to stop them.

mod bulk_cancel;
mod explain;
mod predictions;
mod stop;
mod view;
mod watch;

use std::sync::Arc;

use super::{changes::Changes, context::Context, queues::Queues, records::Records, workers::Workers};

pub use predictions::PredictionsStream;
pub(crate) use stop::StopCause;
pub use watch::WatchStream;

/// The jobs of all tenants.
pub(crate) struct Jobs {
    pub(super) context: Arc<Context>,
    pub(super) records: Records,
    pub(super) changes: Arc<Changes>,
    pub(super) queues: Arc<Queues>,
    pub(super) workers: Arc<Workers>,
}
