//! Why the coordinator cannot start or go on.

use std::{io, net::SocketAddr, path::PathBuf};

use sortinghat_proto::Refusal;
use tokio::task::JoinError;

use crate::{auth::CredentialsError, config::ObjectStoreUrl, objects::ObjectError, store::StoreError};

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
    /// Two coordinators cannot share a data folder.
    #[error(
        "another coordinator{} uses {path}: stop it, or give this one its own --data-dir",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    AlreadyRunning {
        /// The data folder.
        path: PathBuf,
        /// The other's process id, if it could be read.
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
    /// The tokens file.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate or its key.
    #[error("failed to use the TLS certificate and key: {0}")]
    Tls(tonic::transport::Error),
    /// The queue's store.
    #[error("failed to open the queue's store: {0}")]
    Store(#[from] StoreError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The objects are another queue's, and would be removed: that one refers to others.
    #[error(
        "the objects in {url} belong to another queue, which would remove what only this one refers to: use another \
         --object-store, or remove the object `queue-id` from this one if the other queue is gone for good"
    )]
    ForeignObjects {
        /// Where they are.
        url: ObjectStoreUrl,
    },
    /// A store answered a question at the start with an error.
    #[error("failed to find out which queue the objects belong to: {0}")]
    Owner(Refusal),
    /// The address cannot be listened on.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("the server ended: {0}")]
    Serve(String),
}

impl AppError {
    /// What happens by itself has ended although nobody asked it to: no lease would ever run out any more.
    pub(super) fn sweeps_ended(ended: Result<(), JoinError>) -> Self {
        Self::Serve(match ended {
            Ok(()) => "its sweeps ended".to_owned(),
            Err(error) => format!("its sweeps ended with a defect: {error}"),
        })
    }

    /// The server ended although nobody asked it to.
    pub(super) fn ended_early(ended: Result<Result<(), tonic::transport::Error>, JoinError>) -> Self {
        Self::Serve(match ended {
            Ok(Ok(())) => "its listener was closed".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        })
    }
}
