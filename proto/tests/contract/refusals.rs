//! Refusals over gRPC: the status, its details, and who is at fault.

use std::time::Duration;

use proptest::{prelude::*, sample::select};
use prost::Message as _;
use sortinghat_proto::{
    Refusal, failure_of_status, retry_after,
    v1::{ErrorCode, Failure, FailureClass},
};
use tonic::{Code, Status, metadata::MetadataMap};

use crate::config;

/// Every code that may be sent.
fn codes() -> Vec<ErrorCode> {
    (1..).map_while(|number| ErrorCode::try_from(number).ok()).collect()
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (select(codes()), ".{0,40}", ".{0,200}").prop_map(|(code, field, message)| Refusal { code, field, message })
}

/// What a caller receives of `status`: the HTTP headers that it travels in, read again.
fn received(status: &Status) -> Status {
    let headers = status.clone().into_http::<()>().into_parts().0.headers;
    Status::from_header_map(&headers).expect("a status")
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_refusal_reaches_the_caller_with_code_field_sentence_and_class(refusal in refusal()) {
        let status = received(&refusal.clone().into());
        let failure = failure_of_status(&status);
        prop_assert_eq!(status.message(), &refusal.message);
        prop_assert_eq!(failure.failure_class(), refusal.class());
        prop_assert_eq!((failure.code(), &failure.field, &failure.message), (refusal.code, &refusal.field, &refusal.message));
    }

    #[test]
    fn the_time_after_which_to_try_again_reaches_the_caller_in_whole_milliseconds(refusal in refusal(), ms: u32) {
        let pause = Duration::from_millis(ms.into());
        let status = received(&refusal.clone().with_retry_after(pause));
        prop_assert_eq!(retry_after(&status), Some(pause));
        prop_assert_eq!(failure_of_status(&status), Failure::from(refusal));
    }

    #[test]
    fn details_that_are_no_failure_do_not_hide_the_status(details in prop::collection::vec(any::<u8>(), 0..40)) {
        let status = Status::with_details(Code::NotFound, "gone", details.clone().into());
        let expected = match Failure::decode(&*details) {
            Ok(failure) if failure.code != 0 => failure,
            _ => Failure {
                failure_class: FailureClass::User.into(),
                code: ErrorCode::NotFound.into(),
                message: "gone".into(),
                field: String::new(),
            },
        };
        prop_assert_eq!(failure_of_status(&status), expected);
    }
}

#[test]
fn every_code_is_refused_under_a_grpc_code_and_with_a_class() {
    assert_eq!(codes().len(), 19);
    for code in codes() {
        let refusal = Refusal::new(code, "no");
        assert_ne!(refusal.class(), FailureClass::Unspecified, "{code:?}");
        let status = Status::from(refusal);
        assert!(!matches!(status.code(), Code::Ok | Code::Unknown | Code::Unimplemented), "{code:?}");
        // Only a limit says by itself when to try again.
        assert_eq!(retry_after(&status).is_some(), code == ErrorCode::ResourceExhausted, "{code:?}");
    }
}

#[test]
fn what_may_succeed_later_is_not_the_users_fault() {
    let class = |code| Refusal::new(code, "no").class();
    assert_eq!(class(ErrorCode::StorageUnavailable), FailureClass::Infrastructure);
    assert_eq!(class(ErrorCode::ProcessDied), FailureClass::Suspect);
    assert_eq!(class(ErrorCode::OutOfMemory), FailureClass::OutOfMemory);
    assert_eq!(class(ErrorCode::InvalidArgument), FailureClass::User);
    assert_eq!(Refusal::not_found("no job 1").class(), FailureClass::User);
}

#[test]
fn a_bare_status_of_a_proxy_is_told_by_its_grpc_code() {
    let cases = [
        (Code::OutOfRange, ErrorCode::InvalidArgument),
        (Code::Unauthenticated, ErrorCode::PermissionDenied),
        (Code::ResourceExhausted, ErrorCode::ResourceExhausted),
        (Code::DeadlineExceeded, ErrorCode::StorageUnavailable),
        (Code::Unimplemented, ErrorCode::Internal),
    ];
    for (grpc, code) in cases {
        let status = Status::with_metadata(grpc, "bare", MetadataMap::new());
        let failure = failure_of_status(&status);
        assert_eq!((failure.code(), failure.message.as_str()), (code, "bare"), "{grpc:?}");
        assert_eq!(retry_after(&status), None);
    }
}
