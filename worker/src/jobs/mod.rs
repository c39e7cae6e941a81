//! The four job kinds, one file each, and the one place that knows which file runs which kind.
//!
//! A kind is a function of its validated spec and a [`JobContext`], run on the executor's main thread. It reads and writes
//! objects, reports progress, and returns the manifest of what it made. It holds no state of its own between tasks except
//! in [`WarmModel`].

mod classify;
mod context;
mod dataset;
mod error;
mod evaluate;
mod finetune;
mod ingest;
mod network;
mod parts;
mod predict;
mod stop;
mod task;
mod warm;

pub use context::{JobContext, Machine, Pulse};
pub use error::JobError;
pub(crate) use error::outcome_of;
pub use stop::StopSignal;
pub use task::{Artifact, Part, Task};
pub use warm::WarmModel;

use sortinghat_proto::{JobSpec, ObjectRef};

/// How a task ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It made something.
    Made(JobOutput),
    /// Its job has more items than one task should do; nothing else was done.
    Counted {
        /// How many.
        items: u64,
    },
}

/// What a successful job made, or a shard of one. Everything that the manifest names is in the object store already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOutput {
    /// The manifest.
    pub manifest: ObjectRef,
    /// One line for people: "713 photos in 8 classes".
    pub summary: String,
}

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
    }
}
