//! The executor process, which computes, and its supervisor in the worker, which survives it.
//!
//! The two exchange length-delimited [`sortinghat_proto::executor::v1`] messages over a socket pair. The executor inherits its end as
//! standard input, because libtorch prints on standard output. The executor ends when the socket closes.

mod child;
mod frames;
mod log;
mod process;
mod supervisor;

pub(crate) use child::ExecutorProgram;
pub use frames::FrameError;
pub use process::{ExecutorError, run};
pub(crate) use supervisor::{SlotCommand, SlotReport, Supervisor};
