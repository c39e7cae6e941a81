//! The job kinds, one module each, and the registry: the one place that knows which module runs which kind.
//!
//! A kind is a function of its validated spec and a [`JobContext`], run on the executor's main thread. It reads and writes
//! objects, reports progress, and returns the manifest of what it made. It holds no state of its own between tasks except
//! in [`WarmModel`].

mod audit;
mod classify;
mod dataset;
mod evaluate;
mod features;
mod finetune;
mod gather;
mod ingest;
mod network;
mod predict;
mod pretrained;
mod repeats;
mod warm;

pub use warm::WarmModel;

use sortinghat_proto::JobSpec;

use crate::task::{Done, JobContext, JobError};

/// Runs the context's task to its end.
///
/// # Errors
/// [`JobError`]; nothing of a failed task is visible, since only its manifest's digest would make it so.
pub fn run(context: &JobContext, model: &mut WarmModel) -> Result<Done, JobError> {
    match &context.task().spec {
        JobSpec::Ingest(spec) => ingest::run(spec, context),
        JobSpec::Finetune(spec) => {
            model.release();
            finetune::run(spec, context).map(Done::Made)
        }
        JobSpec::Evaluate(spec) => evaluate::run(spec, context, model),
        JobSpec::Classify(spec) => classify::run(spec, context, model),
        JobSpec::Audit(spec) => {
            model.release();
            audit::run(spec, context).map(Done::Made)
        }
        JobSpec::Gather(spec) => gather::run(spec, context).map(Done::Made),
    }
}
