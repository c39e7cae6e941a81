//! Why the coordinator cannot start or go on.

use std::{io, net::SocketAddr, path::PathBuf};

use tokio::task::JoinError;

use crate::{
    auth::CredentialsError, config::ObjectStoreUrl, engine::EngineError, objects::ObjectError, store::StoreError,
};

/// Why the coordinator cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data folder cannot be used.
    #[error("failed to use the data folder {path}: {source}")]
    DataDir {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another coordinator uses the data folder.
    #[error(
        "another coordinator{} uses {path}: stop it, or give this one its own --data-dir",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    AlreadyRunning {
        /// The data folder.
        path: PathBuf,
        /// The other coordinator's process id, if it could be read.
        pid: Option<u32>,
    },
    /// A file that the configuration names cannot be read.
    #[error("failed to read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tokens file cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate, its key, or the authorities of callers cannot be used.
    #[error("failed to use the files for TLS: {reason}")]
    Tls {
        /// Which part cannot be used, and why.
        reason: String,
    },
    /// The queue's store cannot be opened.
    #[error("failed to open the queue's store: {0}")]
    Store(#[from] StoreError),
    /// The object store cannot be used.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The objects belong to another queue. Each of the two queues would remove objects to which only the other one refers.
    #[error(
        "the objects in {url} belong to another queue, which would remove the objects that only this queue refers to: use another \
         --object-store, or, if the other queue is gone for good, remove the object `queue-id` from this one"
    )]
    ForeignObjects {
        /// The object store.
        url: ObjectStoreUrl,
    },
    /// A store failed while the owner of the objects was looked up.
    #[error("failed to find out which queue the objects belong to: {0}")]
    Owner(EngineError),
    /// The coordinator cannot listen on the address.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server ended although nobody stopped it.
    #[error("the server ended: {0}")]
    Serve(String),
}

impl AppError {
    /// The error for sweeps that ended although nobody stopped them. Without sweeps, no lease would ever expire.
    pub(super) fn sweeps_ended(ended: Result<(), JoinError>) -> Self {
        Self::Serve(match ended {
            Ok(()) => "its sweeps ended".to_owned(),
            Err(error) => format!("its sweeps ended with a defect: {error}"),
        })
    }

    /// The error for a server that ended although nobody stopped it.
    pub(super) fn ended_early(ended: Result<Result<(), tonic::transport::Error>, JoinError>) -> Self {
        Self::Serve(match ended {
            Ok(Ok(())) => "its listener was closed".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        })
    }
}
