//! What one task is, what it has at hand while it runs, and how it ends. This room knows no job kind.

mod assignment;
mod context;
mod error;
mod outcome;
mod scope;
mod stop;

pub use assignment::{Artifact, Part, Task};
pub use context::{JobContext, Machine, Pulse};
pub use error::JobError;
pub(crate) use outcome::outcome_of;
pub use outcome::{Done, JobOutput};
pub use scope::{Scope, TooLarge};
pub use stop::StopSignal;
