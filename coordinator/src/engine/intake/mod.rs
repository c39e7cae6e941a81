//! Accepting jobs: submissions are validated, their names are resolved to versions, and each becomes a job in one batch.

mod resolve;
mod resubmit;
mod submission;
mod submit;

use std::sync::Arc;

use super::{
    artifacts::Artifacts, collection::Collection, context::Context, jobs::Jobs, queues::Queues, records::Records,
};

pub use submission::Submission;

/// Accepts the jobs of all tenants.
pub(crate) struct Intake {
    pub(super) context: Arc<Context>,
    pub(super) records: Records,
    pub(super) queues: Arc<Queues>,
    pub(super) collection: Arc<Collection>,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) jobs: Arc<Jobs>,
}
