//! Programs of two versions meet. `docs/versions.md` states the policy.

use std::{net::SocketAddr, path::PathBuf};

use sortinghat_proto::{
    failure_of_status, limits,
    protocol::{OLDEST_PROTOCOL, PROTOCOL, PROTOCOL_KEY},
    v1::{
        ErrorCode, GetQueueRequest, SynchronizeRequest, job_service_client::JobServiceClient,
        worker_service_client::WorkerServiceClient,
    },
};
use sortinghat_tests::{Deployment, Options, Programs, photos, start_coordinator};
use tonic::{Code, Request, Status};

/// A call whose caller says this of the contract that it speaks.
fn request<T>(message: T, declared: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(declared) = declared {
        request.metadata_mut().insert(PROTOCOL_KEY, declared.parse().expect("ASCII"));
    }
    request
}

/// A client's call and a worker's.
async fn calls(address: SocketAddr, declared: Option<&str>) -> [Result<(), Status>; 2] {
    let url = format!("http://{address}");
    let mut client = JobServiceClient::connect(url.clone()).await.expect("it serves");
    let mut worker = WorkerServiceClient::connect(url).await.expect("it serves");
    let message = SynchronizeRequest {
        worker_id: "w1".to_owned(),
        session_secret: vec![7; limits::SESSION_SECRET_BYTES],
        sequence: 1,
        description: Some(sortinghat_proto::v1::WorkerDescription { slots: 1, ..Default::default() }),
        ..SynchronizeRequest::default()
    };
    let queue = client.get_queue(request(GetQueueRequest::default(), declared)).await;
    let synchronized = worker.synchronize(request(message, declared)).await;
    [queue.map(|_| ()), synchronized.map(|_| ())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_and_a_worker_that_are_too_old_or_too_new_are_told_so_in_one_sentence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let start = || start_coordinator(&folder.path().join("data"), listen, &folder.path().join("log"), |_| {});
    let (_coordinator, address) = tokio::task::block_in_place(start);
    let number = |number: u32| number.to_string();
    for served in [None, Some(number(OLDEST_PROTOCOL)), Some(number(PROTOCOL))] {
        for answer in calls(address, served.as_deref()).await {
            answer.unwrap_or_else(|status| panic!("{served:?}: {status}"));
        }
    }
    for (refused, says) in [
        (OLDEST_PROTOCOL - 1, "this program is too old for the server"),
        (PROTOCOL + 1, "the server is too old for this program"),
    ] {
        for answer in calls(address, Some(&number(refused))).await {
            let status = answer.expect_err("it is refused");
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert_eq!(failure_of_status(&status).code(), ErrorCode::VersionUnsupported);
            assert!(status.message().starts_with(says) && !status.message().contains(". "), "{}", status.message());
        }
    }
}

/// The folder with programs of another version, which `make test-skew` builds.
const OLD_PROGRAMS: &str = "SORTINGHAT_OLD_PROGRAMS";

#[test]
fn programs_of_another_commit_work_with_those_of_today_in_both_directions() {
    let Some(folder) = std::env::var_os(OLD_PROGRAMS).map(PathBuf::from) else {
        eprintln!("SKIPPED: {OLD_PROGRAMS} is not set; `make test-skew OLD=COMMIT` builds such programs and sets it");
        return;
    };
    let (old, new) = (Programs::of(&folder), Programs::default());
    for (which, programs) in [
        ("an old worker and an old hat", Programs { coordinator: new.coordinator.clone(), ..old.clone() }),
        ("an old coordinator", Programs { coordinator: old.coordinator, ..new }),
    ] {
        eprintln!("{which}, the rest of today:");
        let deployment = Deployment::start(Options { programs, ..Options::default() });
        let hat = deployment.hat();
        photos::write_classes(&deployment.folder().join("photos"), 8, 32);
        hat.ok(["ingest", "shapes", "photos"]);
        let network =
            ["--backbone", "resnet18", "--weights", "none", "--size", "32", "--batch-size", "8", "--epochs", "1"];
        hat.ok(["finetune", "shapes@1"].iter().chain(&network));
        hat.ok(["classify", "shapes/1", "photos", "--out", "predictions.jsonl"]);
        let predictions = std::fs::read_to_string(deployment.folder().join("predictions.jsonl")).expect("written");
        assert_eq!(predictions.lines().filter(|line| line.contains("\"probability\"")).count(), 24, "{which}");
        eprintln!("  ingested, trained and classified");
    }
}
