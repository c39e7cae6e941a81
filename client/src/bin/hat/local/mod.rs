//! The server and the worker that `hat up` runs on this machine.

pub(crate) mod binaries;
pub(crate) mod cache;
pub(crate) mod data_dir;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod server;
pub(crate) mod supervisor;
