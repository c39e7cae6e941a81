//! The executor process, which computes, and its supervisor in the worker, which survives it.
//!
//! The two exchange length-delimited [`sortinghat_proto::executor::v1`] messages over a socket pair. The executor inherits its end as
//! standard input, because libtorch prints on standard output. The executor ends when the socket closes. The first byte on the socket
//! brings a second one, over which the executor asks for objects.
//!
//! The executor confines itself ([`sandbox`]) and has no key of the worker's; the worker takes whatever comes from it for hostile. It
//! serves one tenant: a task of another one runs in a new process.

mod child;
mod environment;
mod frames;
mod log;
mod process;
pub mod sandbox;
mod scratch;
mod supervisor;
mod usage;

pub(crate) use child::ExecutorProgram;
pub use frames::FrameError;
pub use process::{ExecutorError, run, take_sockets};
pub(crate) use scratch::remove_abandoned;
pub(crate) use supervisor::{SlotCommand, SlotReport, Supervisor};
