//! The intake of jobs: it validates submissions, resolves the names in them to versions, and makes each submission a job in one batch. It
//! also resubmits jobs that failed or were cancelled.
//!
//! The room owns no table. Its face is [`Intake`], with `submit`, `submit_many` and `retry`, and [`Submission`].

mod doors;
mod resolve;
mod resubmit;
mod submission;
mod submit;

use std::sync::Arc;

use super::{
    artifacts::Artifacts, collection::Collection, context::Context, jobs::Jobs, queues::Queues, records::Records,
};

pub(crate) use doors::Doors;
pub use submission::Submission;

/// Accepts the jobs of all tenants.
pub(crate) struct Intake {
    pub(super) context: Arc<Context>,
    pub(super) records: Records,
    pub(super) queues: Arc<Queues>,
    pub(super) collection: Arc<Collection>,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) doors: Doors,
}
