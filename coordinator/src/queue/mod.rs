//! The rules of the queue, as pure functions without a clock, I/O or randomness of their own.
//!
//! [`transition()`] takes a task, an event and the time. It returns the task after the event, or the reason why the event may not happen.
//! Everything else (the order of events, index entries, a job's state) follows from the tasks before and after.

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
