use std::{io, path::PathBuf};

use sortinghat_objects::{OpenError, Trouble, is_missing};
use sortinghat_proto::{Digest, manifest::DocumentError, v1::ErrorCode};

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object store cannot be opened.
    #[error("failed to open the object store {url}: {source}")]
    Unopenable {
        /// As it was given.
        url: String,
        /// Why.
        source: OpenError,
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
    /// The store failed for longer than a task waits for it, or another try does not help. The message is for tenants; what the store
    /// said, the worker finds out by itself and tells operators.
    #[error("failed to {action} object {digest}: {}", Trouble::of(source).in_words())]
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
    /// The task was told to stop while it waited for the store.
    #[error("stopped while it waited for the object store")]
    Stopped(Stopped),
}

/// Why a task stopped while it waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was cancelled.
    Cancelled,
    /// Another attempt goes on.
    HandedBack,
}

impl ObjectError {
    /// The reason, for programs.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unopenable { .. } => ErrorCode::InvalidArgument,
            Self::Missing { .. } | Self::Corrupt { .. } | Self::Document { .. } | Self::TooLarge { .. } => {
                ErrorCode::CorruptObject
            }
            Self::Unavailable { source, .. } => match Trouble::of(source) {
                Trouble::Unavailable => ErrorCode::StorageUnavailable,
                _ => ErrorCode::StorageUnusable,
            },
            Self::Cache { .. } => ErrorCode::ResourceExhausted,
            Self::Stopped(_) => ErrorCode::Cancelled,
        }
    }

    /// The object that the store does not have, if that is the error.
    pub fn missing(&self) -> Option<&Digest> {
        match self {
            Self::Missing { digest } => Some(digest),
            _ => None,
        }
    }

    /// Whether another try may help.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if Trouble::of(source) == Trouble::Unavailable)
    }

    /// What the store's error means for this object.
    pub(super) fn from_store(action: &'static str, digest: &Digest, source: object_store::Error) -> Self {
        match is_missing(&source) {
            true => Self::Missing { digest: digest.clone() },
            false => Self::Unavailable { action, digest: digest.clone(), source },
        }
    }
}
