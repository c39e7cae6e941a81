//! Runs jobs: photos, networks and the four job kinds. The only package that knows libtorch.
//!
//! A worker is two kinds of processes. The worker itself ([`session`]) talks to the coordinator and computes nothing, so that
//! nothing can keep it from renewing its leases. Under it, an executor for each slot ([`executor`]) runs one task at a time
//! ([`jobs`]); it may hang, abort or be killed, and is replaced.

pub mod aten;
pub mod batches;
pub mod config;
pub mod dataset;
pub mod device;
pub mod evaluation;
pub mod executor;
pub(crate) mod https;
pub mod jobs;
pub(crate) mod memory;
pub mod models;
pub mod objects;
pub(crate) mod out_of_memory;
pub mod report;
pub mod session;
pub mod training;
