//! Errors, told apart by what a caller can do about them.

use std::{io, path::PathBuf};

use sortinghat_proto::{Digest, Refusal, failure_of_status, manifest::DocumentError, retry_after};
use tonic::{Code, Status};

/// Why a call failed. The variants are told apart by what a caller can do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("{url:?} cannot be used as the address of a server: {reason}")]
    BadEndpoint {
        /// As it was given, without secrets.
        url: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// No server answers at the address.
    #[error("no server answers at {url}: {reason}")]
    Unreachable {
        /// The server's address.
        url: String,
        /// The error of the system.
        reason: String,
    },
    /// The connection was lost, and the server did not come back within the time for retries.
    #[error("the connection to the server was lost and did not come back: {reason}")]
    Lost {
        /// The error of the transport.
        reason: String,
    },
    /// The server refused. The refusal has a code for programs and a sentence for people.
    #[error("{0}")]
    Refused(Refusal),
    /// The content of an object does not match its digest.
    #[error("object {digest} arrived damaged: {reason}")]
    CorruptObject {
        /// The object.
        digest: Digest,
        /// How the content differs.
        reason: String,
    },
    /// A stored document cannot be read by this version.
    #[error("object {digest} cannot be read: {source}")]
    Document {
        /// The object.
        digest: Digest,
        /// Why.
        source: DocumentError,
    },
    /// A file or a folder of this machine cannot be read or written.
    #[error("failed to {action} {path}: {source}")]
    File {
        /// What failed: "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file changed after it was hashed and before it was uploaded.
    #[error("{path} changed during its upload: try again when no program writes to it")]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// The server's answer violates the protocol.
    #[error("the server's answer violates the protocol: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The error that a status stands for: a lost connection, or a refusal.
    pub(crate) fn of(status: Status) -> Self {
        if status.details().is_empty() && is_transient(&status) {
            return Self::Lost { reason: status.message().to_owned() };
        }
        let failure = failure_of_status(&status);
        let code = failure.code();
        Self::Refused(Refusal::new(code, failure.message).at(failure.field))
    }

    pub(crate) fn reading(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action: "read", path, source }
    }

    pub(crate) fn writing(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action: "write", path, source }
    }
}

/// Whether the same call may succeed a little later: the server, the network or the store was unavailable, or the server is busy and
/// says when to try again.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::ResourceExhausted => retry_after(status).is_some(),
        Code::Unavailable | Code::DeadlineExceeded => true,
        // A connection that breaks during a call shows as one of these codes. The server's own statuses have details; these have none.
        Code::Unknown | Code::Cancelled | Code::Internal => status.details().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_field_and_is_not_tried_again() {
        let status = Status::from(Refusal::invalid("finetune.epochs", "epochs must be 1 to 1000, not 0"));
        assert!(!is_transient(&status));
        let ClientError::Refused(refusal) = ClientError::of(status) else { panic!("not a refusal") };
        assert_eq!(refusal.field, "finetune.epochs");
    }

    #[test]
    fn a_broken_connection_is_a_lost_one_and_not_a_refusal() {
        assert!(matches!(ClientError::of(Status::unknown("h2 protocol error")), ClientError::Lost { .. }));
        assert!(matches!(ClientError::of(Status::unavailable("tcp connect error")), ClientError::Lost { .. }));
    }
}
