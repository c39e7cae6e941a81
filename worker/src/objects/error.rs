use std::{io, path::PathBuf};

use sortinghat_proto::{Digest, manifest::DocumentError, v1::ErrorCode};

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object store's URL cannot be used.
    #[error("object store {url:?}: {reason}; use file:///FOLDER or s3://BUCKET/PREFIX")]
    BadUrl {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store does not have the object.
    #[error("object {digest} is not in the object store")]
    Missing {
        /// The object.
        digest: Digest,
    },
    /// The object's content does not match its digest or length.
    #[error("object {digest} is corrupt: {reason}")]
    Corrupt {
        /// The object.
        digest: Digest,
        /// How it was noticed.
        reason: String,
    },
    /// The object is intact but not the document that was expected.
    #[error("object {digest}: {source}")]
    Document {
        /// The object.
        digest: Digest,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// The object is longer than this software reads at once.
    #[error("object {digest} has {size_bytes} bytes; at most {limit_bytes} are allowed here")]
    TooLarge {
        /// The object.
        digest: Digest,
        /// Its length.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The store failed for longer than calls are retried.
    #[error("failed to {action} object {digest}: {source}")]
    Unavailable {
        /// "read", "write".
        action: &'static str,
        /// The object.
        digest: Digest,
        /// What the store said.
        source: object_store::Error,
    },
    /// The cache's folder failed.
    #[error("failed to use the cache at {path}: {source}", path = path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl ObjectError {
    /// The reason, for programs.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadUrl { .. } => ErrorCode::InvalidArgument,
            Self::Missing { .. } | Self::Corrupt { .. } | Self::Document { .. } | Self::TooLarge { .. } => {
                ErrorCode::CorruptObject
            }
            Self::Unavailable { .. } => ErrorCode::StorageUnavailable,
            Self::Cache { .. } => ErrorCode::ResourceExhausted,
        }
    }

    /// What the store's error means for this object.
    pub(super) fn from_store(action: &'static str, digest: &Digest, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::Missing { digest: digest.clone() },
            source => Self::Unavailable { action, digest: digest.clone(), source },
        }
    }
}
