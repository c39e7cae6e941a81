//! The rules of the queue, once, and pure: no clock, no I/O, no randomness of its own.
//!
//! [`transition()`] takes a task, an event and the time, and returns the task after it or why it may not happen. Everything
//! else (events in order, index entries, a job's state) follows from tasks before and after.

mod capability;
mod division;
mod invariants;
mod job;
mod order;
mod retry;
mod task;
mod transition;
pub mod wire;

pub use capability::Capabilities;
pub use division::{Division, Role};
pub use invariants::{Violation, check_step};
pub use job::{Phase, TaskCounts};
pub use order::{ClaimOrder, Heads, Pick, Share, Turns};
pub use retry::backoff_ms;
pub use task::{Event, Lease, Outcome, Output, State, Task, Token};
pub use transition::{Effect, Rejection, Rules, cancelled_by_user, deadline_passed, transition};
