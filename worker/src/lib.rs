//! Runs jobs: photos, networks and the job kinds. The only package that knows libtorch.
//!
//! A worker is two kinds of processes. The worker itself ([`session`]) talks to the coordinator and computes nothing, so that
//! nothing can keep it from renewing its leases. Under it, an executor for each slot ([`executor`]) runs one task at a time
//! ([`jobs`]); it may hang, abort or be killed, and is replaced. It is confined, and has no key: the worker's [`broker`] fetches and stores
//! objects for it.
//!
//! The rooms stand on floors, and imports go down only. From the ground to the top:
//!
//! 1. `aten`, `memory`, `out_of_memory`, [`randomness`]: what every other room may use and what itself uses none
//! 2. [`device`], [`fetch`], [`objects`]: what computes; how URLs are fetched; how a job reads and writes objects
//! 3. [`config`], [`dataset`], [`models`], [`task`]: the command line; which photo has which class and side; the networks and their
//!    weights; what one task is and has at hand
//! 4. [`prediction`]: from batches of pixels to class probabilities, with test-time augmentation
//! 5. [`evaluation`], [`regression`], [`training`]: what predictions say about a model; a regression on the features of a network;
//!    fastai's `fine_tune`
//! 6. [`batches`], [`report`]: photos decoded ahead of the network; the page that tells an evaluation
//! 7. [`broker`], [`jobs`]: what the worker fetches and stores for its executors; the job kinds
//! 8. [`executor`]: the process that runs one task at a time, and its supervision
//! 9. [`session`]: the conversation with the coordinator

pub mod aten;
pub mod batches;
pub mod broker;
pub mod config;
pub mod dataset;
pub mod device;
pub mod evaluation;
pub mod executor;
pub mod fetch;
pub mod jobs;
pub(crate) mod memory;
mod meters;
pub mod models;
pub mod objects;
pub(crate) mod out_of_memory;
pub mod prediction;
pub mod randomness;
pub mod regression;
pub mod report;
pub mod session;
pub mod task;
pub mod training;
