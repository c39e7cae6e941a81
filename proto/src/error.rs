//! Refusals: why a call or a job cannot be done, and the one mapping of refusals to gRPC.

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};

use crate::v1::{ErrorCode, Failure, FailureClass};

/// Why a request was refused, or why a job failed through its own fault: a code for programs, the field at fault, and a sentence for
/// people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The field or the file at fault; empty if neither is.
    pub field: String,
    /// What happened, to which thing, and what to do next.
    pub message: String,
}

impl Refusal {
    /// A refusal with a code and a sentence, and no field.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, field: String::new(), message: message.into() }
    }

    /// A refusal because `field` is missing, malformed or out of range. The sentence says what is allowed.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidArgument, field: field.into(), message: message.into() }
    }

    /// A refusal because the named thing does not exist for this tenant.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The gRPC status of this refusal, with the request to try the call again after `pause`.
    pub fn with_retry_after(self, pause: Duration) -> Status {
        let (code, message) = (grpc_code(self.code), self.message.clone());
        let mut status = Status::with_details(code, message, Failure::from(self).encode_to_vec().into());
        status.metadata_mut().insert(RETRY_PUSHBACK, (pause.as_millis() as u64).into());
        status
    }

    /// Whose fault the refusal is.
    pub fn class(&self) -> FailureClass {
        class_of(self.code)
    }
}

/// Whose fault a failure with this code is.
fn class_of(code: ErrorCode) -> FailureClass {
    match code {
        ErrorCode::StorageUnavailable
        | ErrorCode::StorageUnusable
        | ErrorCode::ResourceExhausted
        | ErrorCode::Internal
        | ErrorCode::Unspecified => FailureClass::Infrastructure,
        ErrorCode::ProcessDied | ErrorCode::Poison => FailureClass::Suspect,
        ErrorCode::OutOfMemory => FailureClass::OutOfMemory,
        ErrorCode::InvalidArgument
        | ErrorCode::NotFound
        | ErrorCode::IdempotencyConflict
        | ErrorCode::WrongState
        | ErrorCode::UnusableData
        | ErrorCode::WeightsUnavailable
        | ErrorCode::Diverged
        | ErrorCode::CorruptObject
        | ErrorCode::Cancelled
        | ErrorCode::ParentFailed
        | ErrorCode::PermissionDenied
        | ErrorCode::DeadlineExceeded => FailureClass::User,
    }
}

/// The gRPC code that a refusal travels under.
fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::IdempotencyConflict => Code::AlreadyExists,
        ErrorCode::WrongState
        | ErrorCode::UnusableData
        | ErrorCode::WeightsUnavailable
        | ErrorCode::Diverged
        | ErrorCode::Poison
        | ErrorCode::ParentFailed
        | ErrorCode::StorageUnusable
        | ErrorCode::DeadlineExceeded => Code::FailedPrecondition,
        ErrorCode::OutOfMemory | ErrorCode::ResourceExhausted => Code::ResourceExhausted,
        ErrorCode::StorageUnavailable => Code::Unavailable,
        ErrorCode::CorruptObject => Code::DataLoss,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::ProcessDied | ErrorCode::Internal | ErrorCode::Unspecified => Code::Internal,
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            failure_class: refusal.class().into(),
            code: refusal.code.into(),
            message: refusal.message,
            field: refusal.field,
        }
    }
}

/// The one mapping to gRPC: the details of the status are an encoded [`Failure`]. If a limit is reached, the status also says when to
/// try again, see [`retry_after`].
impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal.code {
            ErrorCode::ResourceExhausted => refusal.with_retry_after(PAUSE_AT_A_LIMIT),
            code => {
                let message = refusal.message.clone();
                Self::with_details(grpc_code(code), message, Failure::from(refusal).encode_to_vec().into())
            }
        }
    }
}

/// The metadata in which a server says when to try again, in whole milliseconds. The key is gRPC's own (gRFC A6), so that clients in
/// other languages honour it by themselves.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";
/// When to try again after a limit was reached, if nothing better is known.
const PAUSE_AT_A_LIMIT: Duration = Duration::from_secs(1);

/// How long to wait before the same call is tried again; `None` if the server does not ask for it. The refused call has had no effect.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let ms = status.metadata().get(RETRY_PUSHBACK)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

/// The [`Failure`] in the details of a status of this service. The bare status of a proxy or of the transport has no such details; its
/// failure is made from the gRPC code and the message.
pub fn failure_of_status(status: &Status) -> Failure {
    if let Ok(failure) = Failure::decode(status.details())
        && failure.code != 0
    {
        return failure;
    }
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        Code::Unauthenticated | Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::ResourceExhausted => ErrorCode::ResourceExhausted,
        Code::Unavailable | Code::DeadlineExceeded => ErrorCode::StorageUnavailable,
        _ => ErrorCode::Internal,
    };
    Failure {
        failure_class: class_of(code).into(),
        code: code.into(),
        message: status.message().to_owned(),
        field: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_trip_through_a_status() {
        let refusal = Refusal::invalid("finetune.epochs", "epochs must be 1 to 1000, not 0");
        let status = Status::from(refusal.clone());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(failure_of_status(&status), Failure::from(refusal));
    }

    #[test]
    fn a_limit_that_is_reached_says_when_to_come_back_and_other_refusals_do_not() {
        let full = Refusal::new(ErrorCode::ResourceExhausted, "full");
        assert_eq!(retry_after(&full.clone().into()), Some(PAUSE_AT_A_LIMIT));
        let status = full.clone().with_retry_after(Duration::from_millis(70));
        assert_eq!((status.code(), retry_after(&status)), (Code::ResourceExhausted, Some(Duration::from_millis(70))));
        assert_eq!(failure_of_status(&status), Failure::from(full));
        assert_eq!(retry_after(&Refusal::not_found("nothing").into()), None);
        let mut never = Status::unavailable("gRFC A6: do not retry");
        never.metadata_mut().insert(RETRY_PUSHBACK, "-1".parse().expect("a value"));
        assert_eq!(retry_after(&never), None);
    }

    #[test]
    fn a_bare_status_of_a_proxy_becomes_a_failure_of_the_right_class() {
        let failure = failure_of_status(&Status::unavailable("connection refused"));
        assert_eq!(failure.failure_class(), FailureClass::Infrastructure);
        assert_eq!(failure.message, "connection refused");
    }
}
