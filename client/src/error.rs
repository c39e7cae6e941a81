//! What can go wrong, as a caller can act on it.

use std::{io, path::PathBuf};

use sortinghat_proto::{Digest, Refusal, failure_of_status, manifest::DocumentError, retry_after};
use tonic::{Code, Status};

/// What went wrong, as a caller can act on it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("{url:?} cannot be used as the address of a server: {reason}")]
    BadEndpoint {
        /// As it was given.
        url: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// Nobody answers there.
    #[error("no server answers at {url}: {reason}")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// The server was reached before and did not come back within the time for retries.
    #[error("the connection to the server was lost and did not come back: {reason}")]
    Lost {
        /// What the transport says.
        reason: String,
    },
    /// The server refused, with a reason for programs and one for people.
    #[error("{0}")]
    Refused(Refusal),
    /// An object's content is not what its digest says.
    #[error("object {digest} arrived damaged: {reason}")]
    CorruptObject {
        /// The object.
        digest: Digest,
        /// How it differs.
        reason: String,
    },
    /// A stored document cannot be read by this version.
    #[error("object {digest} cannot be understood: {source}")]
    Document {
        /// The object.
        digest: Digest,
        /// Why.
        source: DocumentError,
    },
    /// A file or folder of this machine cannot be read or written.
    #[error("failed to {action} {path}: {source}")]
    File {
        /// What was tried: "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file changed between being hashed and being uploaded.
    #[error("{path} changed while it was uploaded: try again when nothing writes to it")]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// The server's answer breaks the protocol.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The error that a status is: lost contact, or a refusal.
    pub(crate) fn of(status: Status) -> Self {
        if status.details().is_empty() && is_transient(&status) {
            return Self::Lost { reason: status.message().to_owned() };
        }
        let failure = failure_of_status(&status);
        Self::Refused(Refusal { code: failure.code(), field: failure.field, message: failure.message })
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

/// Whether the same call may succeed a little later: the server, the network or its store was away, or the server is busy and says
/// when to come back.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::ResourceExhausted => retry_after(status).is_some(),
        Code::Unavailable | Code::DeadlineExceeded => true,
        // A connection that breaks under a call shows as one of these, without the details that the server's own have.
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
    fn a_broken_connection_is_lost_contact_and_not_a_refusal() {
        assert!(matches!(ClientError::of(Status::unknown("h2 protocol error")), ClientError::Lost { .. }));
        assert!(matches!(ClientError::of(Status::unavailable("tcp connect error")), ClientError::Lost { .. }));
    }
}
