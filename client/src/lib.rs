//! The typed client of a sortinghat coordinator: it submits and follows jobs, uploads photos and reads results.
//!
//! ```no_run
//! # async fn example() -> Result<(), sortinghat_client::ClientError> {
//! use sortinghat_client::{Client, Endpoint};
//! let client = Client::connect(Endpoint::local("http://127.0.0.1:7878")).await?;
//! for model in client.list_models().await? {
//!     println!("{}: {}", model.name, model.summary);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every call is repeated for some seconds while the coordinator cannot be reached, so that a restart of the coordinator fails no call.
//! All calls are safe to repeat. [`Client::watch`] tries for longer, and continues after the last event that it has seen.

pub mod archive;
mod artifacts;
mod client;
mod downloads;
mod error;
pub mod folder;
mod job_ids;
mod jobs;
pub mod predictions;
mod queue;
mod retry;
mod uploads;
mod watch;

pub use client::{Client, RESTART_PATIENCE};
pub use downloads::Existing;
pub use error::ClientError;
pub use job_ids::{SHORT_ID_CHARACTERS, short_id, short_id_characters};
pub use jobs::{JobFilter, Submission, idempotency_key};
pub use sortinghat_link::{CertificateFiles, Endpoint, Source};
pub use uploads::{Amount, SourceFile, UploadProgress, hash_file};
pub use watch::{Update, Watch, is_final};
