//! Workers that are known by a certificate instead of a token.

use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use sortinghat_proto::v1::{ListJobsRequest, SynchronizeResponse};
use sortinghat_tests::certificates::{self, Authority, Certified};
use tokio::{task::JoinHandle, time::Instant};
use tonic::{Code, Status};

use crate::{
    harness::{ByHand, page, token},
    secured::{Secured, certificate, now_s},
};

/// A change is noticed within this time.
const NOTICED: Duration = Duration::from_secs(10);
const GPU_1: &str = "spiffe://lab/gpu-1";

fn alice() -> String {
    token("alice", "role = 'user'\ntenant = 'a'")
}

fn gpu_1() -> String {
    certificate("gpu-1", GPU_1)
}

/// A poll by a worker with this certificate, which the coordinator holds.
async fn held_poll(secured: &Secured, shown: &Certified) -> JoinHandle<Result<SynchronizeResponse, Status>> {
    let mut worker = ByHand::new(secured.client(Some(shown), None));
    worker.synchronize(vec![], 0, 0).await.expect("it is known");
    tokio::spawn(async move { worker.synchronize(vec![], 0, u32::MAX).await })
}

async fn end_of(held: JoinHandle<Result<SynchronizeResponse, Status>>) -> Status {
    let ended = tokio::time::timeout(NOTICED, held).await.expect("the poll ends").expect("no panic");
    ended.expect_err("it is refused")
}

#[tokio::test]
async fn a_worker_is_known_by_its_certificate_and_others_by_their_tokens() {
    let secured = Secured::start(&(alice() + &gpu_1() + &certificate("gpu-2", "gpu-2.lab.example"))).await;
    let shown = secured.authority.worker(&["unlisted.lab.example", GPU_1]);
    let known = secured.who_am_i(&shown).await.expect("it is listed");
    assert_eq!((known.id.as_str(), known.role.as_str(), known.serves), ("gpu-1", "worker", vec!["a".to_owned()]));
    assert_eq!(known.certificate, GPU_1);
    let left_s = u64::try_from(known.expires_unix_ms).expect("after 1970") / 1000 - now_s();
    assert!((23 * 3_600..=24 * 3_600).contains(&left_s), "{left_s}");
    let in_capitals = secured.authority.worker(&["GPU-2.lab.EXAMPLE"]);
    assert_eq!(secured.who_am_i(&in_capitals).await.expect("names of DNS have no case").id, "gpu-2");

    let job_id = secured.client(None, Some("alice")).submit_ingest("stamps").await;
    let mut worker = ByHand::new(secured.client(Some(&shown), None));
    let lease = worker.take().await;
    assert_eq!(lease.assignment.as_ref().expect("a new lease").job_id, job_id);
    worker.confirm(&lease).await;
    let mut worker = secured.client(Some(&shown), None);
    let refused = worker.jobs.list_jobs(ListJobsRequest::default()).await.expect_err("a worker reads no jobs");
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Where both are shown, the token says who calls.
    let mut both = secured.client(Some(&shown), Some("alice"));
    both.jobs.list_jobs(ListJobsRequest::default()).await.expect("alice may");
    let nothing = secured.client(None, None).jobs.list_jobs(ListJobsRequest::default()).await.expect_err("nobody");
    assert!(nothing.message().contains("show a certificate"), "{nothing}");
}

#[tokio::test]
async fn a_certificate_of_nobody_of_two_or_without_a_name_is_refused_with_the_reason() {
    let secured = Secured::start(&(gpu_1() + &certificate("gpu-2", "gpu-2.lab.example"))).await;
    for (names, says) in [
        (&["spiffe://lab/gpu-3", "gpu-3.lab.example"][..], "san = \"gpu-3.lab.example\" or \"spiffe://lab/gpu-3\""),
        (&["spiffe://lab/gpu-1/x"], "not known"),
        (&["*.lab.example"], "not known"),
        (&[], "none"),
        (&[GPU_1, "gpu-2.lab.example"], "names of both gpu-1 and gpu-2"),
    ] {
        let refused = secured.who_am_i(&secured.authority.worker(names)).await.expect_err("nobody");
        assert_eq!(refused.code(), Code::Unauthenticated, "{names:?}: {refused}");
        assert!(refused.message().contains(says), "{names:?}: {refused}");
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_or_that_others_have_made_opens_no_connection() {
    let secured = Secured::start(&gpu_1()).await;
    let expired = secured.authority.worker_until(&[GPU_1], certificates::now() - Duration::from_secs(60));
    let foreign = Authority::new().worker(&[GPU_1]);
    // The certificate of a server is not for showing by clients.
    for shown in [expired, foreign, secured.authority.server()] {
        let refused = secured.who_am_i(&shown).await.expect_err("the handshake fails");
        assert!(refused.details().is_empty(), "the coordinator itself has said nothing: {refused}");
    }
    let pages = secured.coordinator.metrics_address.expect("metrics are served");
    let failed = page(pages, "/metrics").await;
    assert!(failed.contains("sortinghat_tls_handshakes_failed_total"), "{failed}");
}

#[tokio::test]
async fn the_session_of_a_worker_belongs_to_the_identity_of_its_certificate() {
    let as_token = token("gpu-1", "role = 'worker'\ntenants = ['a']");
    let secured = Secured::start(&(gpu_1() + &certificate("gpu-2", "spiffe://lab/gpu-2") + &as_token)).await;
    let shown = secured.authority.worker(&[GPU_1]);
    let mut worker = ByHand::new(secured.client(Some(&shown), None));
    worker.synchronize(vec![], 0, 0).await.expect("its first message");
    worker.switch_to(secured.client(Some(&secured.authority.worker(&["spiffe://lab/gpu-2"])), None));
    let refused = worker.synchronize(vec![], 0, 0).await.expect_err("another identity");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // A newer certificate, and a token with the same id, are the same identity's.
    worker.switch_to(secured.client(Some(&secured.authority.worker(&[GPU_1])), None));
    worker.synchronize(vec![], 0, 0).await.expect("the same identity");
    worker.switch_to(secured.client(None, Some("gpu-1")));
    worker.synchronize(vec![], 0, 0).await.expect("the same identity");
}

#[tokio::test]
async fn what_a_certificate_has_open_ends_when_it_expires_or_its_entry_is_removed() {
    let secured = Secured::start(&(alice() + &gpu_1())).await;
    let shown = secured.authority.worker(&[GPU_1]);
    let brief = secured.authority.worker_until(&[GPU_1], certificates::now() + Duration::from_secs(4));
    let until_removal = held_poll(&secured, &shown).await;
    let mut other = ByHand::named("other", secured.client(Some(&brief), None));
    other.synchronize(vec![], 0, 0).await.expect("it is valid still");
    let until_expiry = tokio::spawn(async move { other.synchronize(vec![], 0, u32::MAX).await });
    let expired = end_of(until_expiry).await;
    assert!(expired.message().contains("the certificate of gpu-1 expired at"), "{expired}");
    secured.list(&alice());
    let removed = end_of(until_removal).await;
    assert!(removed.message().contains("not known"), "{removed}");
}

#[tokio::test]
async fn an_authority_that_is_trusted_no_more_ends_what_its_certificates_have_open() {
    let secured = Secured::start(&gpu_1()).await;
    let held = held_poll(&secured, &secured.authority.worker(&[GPU_1])).await;
    let next = Authority::new();
    secured.trust(&[&next]);
    let ended = end_of(held).await;
    assert!(ended.message().contains("not trusted here any more"), "{ended}");
    secured.who_am_i(&next.worker(&[GPU_1])).await.expect("the new authority is trusted");
}

#[tokio::test]
async fn a_bad_file_of_authorities_keeps_the_last_good_one_and_raises_a_metric() {
    let secured = Secured::start(&gpu_1()).await;
    let pages = secured.coordinator.metrics_address.expect("metrics are served");
    let shown = secured.authority.worker(&[GPU_1]);
    secured.trust(&[]);
    let begun = Instant::now();
    while !page(pages, "/metrics").await.contains(r#"sortinghat_stale_files{files="certificate"} 1"#) {
        secured.who_am_i(&shown).await.expect("the last good file is in use");
        assert!(begun.elapsed() < NOTICED, "the metric is never raised");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    secured.who_am_i(&shown).await.expect("the last good file is in use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_swaps_of_the_authorities_under_load_fail_no_call() {
    let secured = Secured::start(&gpu_1()).await;
    let steady = secured.authority.worker(&[GPU_1]);
    let mut worker = ByHand::new(secured.client(Some(&steady), None));
    let calls = tokio::spawn(async move {
        for calls in 0.. {
            if let Err(refused) = worker.synchronize(vec![], 0, 0).await {
                return (calls, refused);
            }
        }
        unreachable!("it calls until it is refused")
    });
    for _ in 0..100 {
        let guest = Authority::new();
        secured.trust(&[&secured.authority, &guest]);
        raise(Signal::SIGHUP).expect("a signal can be sent to ourselves");
        let (shown, begun) = (guest.worker(&[GPU_1]), Instant::now());
        while secured.who_am_i(&shown).await.is_err() {
            assert!(begun.elapsed() < NOTICED, "the change is never noticed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        secured.who_am_i(&steady).await.expect("it is in every version");
    }
    assert!(!calls.is_finished(), "a call has failed: {:?}", calls.await);
    secured.list(&alice());
    let (calls, refused) = calls.await.expect("no panic");
    assert!(calls > 100 && refused.message().contains("not known"), "{calls} calls, {refused}");
}

#[tokio::test]
async fn a_metric_says_when_the_certificates_expire() {
    let secured = Secured::start(&gpu_1()).await;
    let page = page(secured.coordinator.metrics_address.expect("metrics are served"), "/metrics").await;
    let expiry = |file: &str| {
        let name = format!("sortinghat_certificate_expiry_timestamp_seconds{{file=\"{file}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} is not in {page}")).parse::<f64>().expect("a number") as u64
    };
    let days = (expiry("tls_cert") - now_s()) / (24 * 3_600);
    assert!((89..=90).contains(&days), "{days}");
    assert!(expiry("client_ca") > expiry("tls_cert"));
}
