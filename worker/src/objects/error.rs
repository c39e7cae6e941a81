use std::io;

use sortinghat_proto::{Digest, manifest::DocumentError, v1::ErrorCode};

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
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
    #[error("failed to {action}: {reason}")]
    Unavailable {
        /// What was tried, as in "read object sha256:...".
        action: String,
        /// What is wrong with the store.
        reason: String,
        /// Whether another try may help.
        is_transient: bool,
    },
    /// Nothing was found where pretrained weights should be.
    #[error("there are no weights for {what}: {reason}")]
    NoWeights {
        /// The backbone or the repository asked for.
        what: String,
        /// Why not, and whom to ask.
        reason: String,
    },
    /// This machine failed: its memory, or the disk of the cache.
    #[error("failed to {action}: {reason}")]
    Machine {
        /// What was tried.
        action: String,
        /// What the operating system said.
        reason: String,
    },
    /// The worker does not answer, or does not serve this. That is a defect, or the process is about to end.
    #[error("the worker did not {action}: {reason}")]
    Refused {
        /// What was tried.
        action: String,
        /// Why not.
        reason: String,
    },
    /// The operator does not allow the tenant to gather photos from the web.
    #[error("{reason}")]
    NotAllowed {
        /// What to do.
        reason: String,
    },
    /// Who finds photos could not be asked.
    #[error("failed to search for photos: {reason}")]
    Provider {
        /// What went wrong.
        reason: String,
        /// Whether another try may help.
        is_transient: bool,
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
            Self::Missing { .. } | Self::Corrupt { .. } | Self::Document { .. } | Self::TooLarge { .. } => {
                ErrorCode::CorruptObject
            }
            Self::Unavailable { is_transient: true, .. } => ErrorCode::StorageUnavailable,
            Self::Unavailable { is_transient: false, .. } => ErrorCode::StorageUnusable,
            Self::NoWeights { .. } => ErrorCode::WeightsUnavailable,
            Self::Machine { .. } => ErrorCode::ResourceExhausted,
            Self::Refused { .. } => ErrorCode::Internal,
            Self::NotAllowed { .. } => ErrorCode::PermissionDenied,
            Self::Provider { is_transient: true, .. } => ErrorCode::SourceUnavailable,
            Self::Provider { is_transient: false, .. } => ErrorCode::UnusableData,
            Self::Stopped(_) => ErrorCode::Cancelled,
        }
    }

    /// The object that is missing or damaged, if that is the error.
    pub fn lost(&self) -> Option<&Digest> {
        match self {
            Self::Missing { digest } | Self::Corrupt { digest, .. } => Some(digest),
            _ => None,
        }
    }

    /// Whether the object is at fault, and not its store.
    pub(crate) fn is_about_the_object(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Corrupt { .. } | Self::Document { .. } | Self::TooLarge { .. })
    }

    /// Whether another try may help.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { is_transient: true, .. })
    }

    /// This machine failed.
    pub(super) fn machine(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Machine { action: action.into(), reason: error.to_string() }
    }
}
