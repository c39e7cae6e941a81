//! Refusals: why a call or a job cannot be done, and the one mapping of refusals to gRPC and back.

use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    limits,
    v1::{ErrorCode, Failure, FailureClass},
    words,
};

/// Why a request was refused, or why a job failed through its own fault: a code for programs, the field at fault, and a sentence for
/// people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The field or the file at fault; empty if neither is.
    pub field: String,
    /// What happened, to which thing, and what to do next. It reaches users of the API, so it names no command line.
    pub message: String,
    /// The first faults that were found, if `field` has parts of which several may be at fault; empty otherwise. A status lists the first
    /// [`limits::MAX_VIOLATIONS`] of them.
    pub violations: Vec<Violation>,
}

/// One of several faults of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field at fault, such as `ingest.source.files[7].path`.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub message: String,
}

impl Refusal {
    /// A refusal with a code and a sentence, and no field.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, field: String::new(), message: message.into(), violations: Vec::new() }
    }

    /// A refusal because `field` is missing, malformed or out of range. The sentence says what is allowed.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message).at(field)
    }

    /// A refusal because the named thing does not exist for this tenant.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The same refusal, with `field` as the field at fault.
    pub fn at(self, field: impl Into<String>) -> Self {
        Self { field: field.into(), ..self }
    }

    /// The gRPC status of this refusal, with the request to try the call again after `pause`.
    pub fn with_retry_after(self, pause: Duration) -> Status {
        status(grpc_code(self.code), self, Some(pause))
    }

    /// The gRPC status `UNAUTHENTICATED`: the caller has not proved who it is.
    pub fn unauthenticated(message: impl Into<String>) -> Status {
        status(Code::Unauthenticated, Self::new(ErrorCode::PermissionDenied, message), None)
    }

    /// Whose fault the refusal is.
    pub fn class(&self) -> FailureClass {
        class_of(self.code)
    }
}

impl ErrorCode {
    /// The word for the code: "NOT_FOUND".
    pub fn word(self) -> &'static str {
        self.as_str_name().trim_start_matches("ERROR_CODE_")
    }
}

/// Whose fault a failure with this code is.
fn class_of(code: ErrorCode) -> FailureClass {
    match code {
        ErrorCode::StorageUnavailable
        | ErrorCode::StorageUnusable
        | ErrorCode::SourceUnavailable
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
        | ErrorCode::VersionUnsupported
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
        | ErrorCode::VersionUnsupported
        | ErrorCode::DeadlineExceeded => Code::FailedPrecondition,
        ErrorCode::OutOfMemory | ErrorCode::ResourceExhausted => Code::ResourceExhausted,
        ErrorCode::StorageUnavailable | ErrorCode::SourceUnavailable => Code::Unavailable,
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

/// If a limit is reached, the status says when to try again, see [`retry_after`].
impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let pause = (refusal.code == ErrorCode::ResourceExhausted).then_some(PAUSE_AT_A_LIMIT);
        status(grpc_code(refusal.code), refusal, pause)
    }
}

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "sortinghat";
/// The metadata in which a server says when to try again, in whole milliseconds. The key is gRPC's own (gRFC A6), so that clients in
/// other languages honour it by themselves.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";
/// When to try again after a limit was reached, if nothing better is known.
const PAUSE_AT_A_LIMIT: Duration = Duration::from_secs(1);

/// The only place that writes details. They are a `google.rpc.Status`, as gRPC's richer error model has it, with our [`Failure`] beside
/// the details that every client knows: `ErrorInfo`, and `RetryInfo` and `BadRequest` where they apply.
///
/// A status travels in HTTP headers, for which some clients have no more than 8 KiB. So all texts in it are short.
fn status(grpc: Code, refusal: Refusal, pause: Option<Duration>) -> Status {
    let refusal = Refusal { message: words::shortened(&refusal.message, limits::MAX_REFUSAL_BYTES), ..refusal };
    let message = refusal.message.clone();
    let info = pb::ErrorInfo { reason: refusal.code.word().into(), domain: DOMAIN.into(), ..pb::ErrorInfo::default() };
    let mut details = vec![any(tonic_types::ErrorInfo::TYPE_URL, &info)];
    if let Some(pause) = pause {
        let info = pb::RetryInfo { retry_delay: prost_types::Duration::try_from(pause).ok() };
        details.push(any(tonic_types::RetryInfo::TYPE_URL, &info));
    }
    details.extend(bad_request(&refusal).map(|violations| any(tonic_types::BadRequest::TYPE_URL, &violations)));
    details.push(Any::from_msg(&Failure::from(refusal)).expect("memory takes every message"));
    let details = pb::Status { code: grpc.into(), message: message.clone(), details };
    let mut status = Status::with_details(grpc, message, details.encode_to_vec().into());
    if let Some(pause) = pause {
        status.metadata_mut().insert(RETRY_PUSHBACK, (pause.as_millis() as u64).into());
    }
    status
}

fn any(type_url: &str, message: &impl prost::Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

/// The fields at fault, if the request is.
fn bad_request(refusal: &Refusal) -> Option<pb::BadRequest> {
    let violation = |field: &str, description: &str| pb::bad_request::FieldViolation {
        field: field.to_owned(),
        description: description.to_owned(),
        ..pb::bad_request::FieldViolation::default()
    };
    let short = |text: &str| words::shortened(text, limits::MAX_VIOLATION_BYTES);
    let field_violations: Vec<_> = match refusal.violations.as_slice() {
        [] if refusal.code != ErrorCode::InvalidArgument || refusal.field.is_empty() => return None,
        [] => vec![violation(&refusal.field, &refusal.message)],
        several => several
            .iter()
            .take(limits::MAX_VIOLATIONS)
            .map(|fault| violation(&short(&fault.field), &short(&fault.message)))
            .collect(),
    };
    Some(pb::BadRequest { field_violations })
}

/// How long to wait before the same call is tried again; `None` if the server does not ask for it. The refused call has had no effect.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let ms = status.metadata().get(RETRY_PUSHBACK)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

/// The [`Failure`] in the details of a status of this service. The bare status of a proxy or of the transport has no such details; its
/// failure is made from the gRPC code and the message.
pub fn failure_of_status(status: &Status) -> Failure {
    if let Some(failure) = failure_in(status.details()) {
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

/// The only place that reads details.
fn failure_in(details: &[u8]) -> Option<Failure> {
    let details = pb::Status::decode(details).ok()?.details;
    details.iter().find_map(|detail| detail.to_msg::<Failure>().ok()).filter(|failure| failure.code != 0)
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
