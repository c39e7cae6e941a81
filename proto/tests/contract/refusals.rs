//! Refusals over gRPC: the status, its details, and who is at fault.

use std::time::Duration;

use proptest::{prelude::*, sample::select};
use prost::Message as _;
use sortinghat_proto::{
    Refusal, Violation, failure_of_status, limits, retry_after,
    v1::{ErrorCode, Failure, FailureClass},
    words,
};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{StatusExt as _, pb};

use crate::config;

/// Every code that may be sent.
fn codes() -> Vec<ErrorCode> {
    (1..).map_while(|number| ErrorCode::try_from(number).ok()).collect()
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (select(codes()), ".{0,40}", ".{0,200}").prop_map(|(code, field, message)| Refusal::new(code, message).at(field))
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
    fn details_that_hold_no_failure_do_not_hide_the_status(details in prop::collection::vec(any::<u8>(), 0..40)) {
        let status = Status::with_details(Code::NotFound, "gone", details.into());
        prop_assert_eq!((failure_of_status(&status).code(), failure_of_status(&status).message), (ErrorCode::NotFound, "gone".into()));
    }

    #[test]
    fn a_status_fits_into_the_headers_that_every_client_reads(code in select(codes()), text in ".{0,4000}", faults in 0..20_usize) {
        let fault = Violation { field: text.clone(), message: text.clone() };
        let refusal = Refusal { violations: vec![fault; faults], ..Refusal::new(code, text.clone()).at("a.field") };
        let status = refusal.with_retry_after(Duration::from_secs(1));
        let headers = status.clone().into_http::<()>().into_parts().0.headers;
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        prop_assert!(bytes < 8 << 10, "{bytes} bytes");
        prop_assert_eq!(failure_of_status(&received(&status)).message, words::shortened(&text, limits::MAX_REFUSAL_BYTES));
    }
}

/// The details of a status, as any client of gRPC's richer error model reads them.
fn rich(status: &Status) -> pb::Status {
    pb::Status::decode(status.details()).expect("details are a google.rpc.Status")
}

#[test]
fn the_details_are_those_that_clients_of_any_language_know_beside_ours() {
    let status = received(&Refusal::invalid("finetune.epochs", "epochs must be 1 to 1000, not 0").into());
    let details = rich(&status);
    assert_eq!((details.code, details.message.as_str()), (3, status.message()), "some clients compare them");
    let urls: Vec<&str> = details.details.iter().map(|detail| detail.type_url.as_str()).collect();
    let kinds = ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "sortinghat.v1.Failure"];
    assert_eq!(urls, kinds.map(|kind| format!("type.googleapis.com/{kind}")));
    let info = status.get_details_error_info().expect("it is there");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_ARGUMENT", "sortinghat"));
    let [fault] =
        <[_; 1]>::try_from(status.get_details_bad_request().expect("it is there").field_violations).expect("one");
    assert_eq!(
        (fault.field.as_str(), fault.description.as_str()),
        ("finetune.epochs", "epochs must be 1 to 1000, not 0")
    );

    let busy =
        received(&Refusal::new(ErrorCode::ResourceExhausted, "full").with_retry_after(Duration::from_millis(70)));
    let retry = busy.get_details_retry_info().expect("it is there").retry_delay;
    assert_eq!((retry, retry_after(&busy)), (Some(Duration::from_millis(70)), Some(Duration::from_millis(70))));
    assert!(busy.get_details_bad_request().is_none(), "the request is not at fault");
}

#[test]
fn each_of_several_faults_is_a_violation_of_its_own_up_to_a_bound() {
    let fault = |number: usize| Violation { field: format!("files[{number}].path"), message: "is empty".into() };
    let violations = (0..20).map(fault).collect();
    let refusal = Refusal { violations, ..Refusal::invalid("ingest.source", "20 faults") };
    let listed = received(&refusal.into()).get_details_bad_request().expect("it is there").field_violations;
    let fields: Vec<String> = listed.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, (0..limits::MAX_VIOLATIONS).map(|number| fault(number).field).collect::<Vec<_>>());
}

#[test]
fn a_caller_who_is_not_known_is_told_so_by_the_grpc_code() {
    let status = received(&Refusal::unauthenticated("a token is required"));
    assert_eq!(
        (status.code(), failure_of_status(&status).code()),
        (Code::Unauthenticated, ErrorCode::PermissionDenied)
    );
    assert_eq!(rich(&status).code, i32::from(Code::Unauthenticated));
}

#[test]
fn every_code_is_refused_under_a_grpc_code_and_with_a_class() {
    assert_eq!(codes().len(), 21);
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
