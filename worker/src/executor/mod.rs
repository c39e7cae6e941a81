//! The executor process, which computes, and its supervisor in the worker, which survives it.
//!
//! The two talk over a socket pair that the executor inherits as its standard input (libtorch prints on standard output):
//! length-delimited [`sortinghat_proto::executor::v1`] messages. The executor ends when the socket closes.

mod child;
mod frames;
mod log;
mod process;
mod supervisor;

pub use frames::FrameError;
pub use process::{ExecutorError, run};
pub(crate) use supervisor::{ExecutorProgram, SlotCommand, SlotReport, Supervisor};
