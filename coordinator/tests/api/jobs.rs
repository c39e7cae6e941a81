use futures::TryStreamExt as _;
use sortinghat_proto::{
    ObjectRef, failure_of_status,
    manifest::{self, UploadManifest, UploadedFile},
    v1::{
        CancelJobRequest, CancelJobsRequest, ErrorCode, GetJobRequest, GetQueueRequest, Job, JobState, ListJobsRequest,
        RetryJobRequest, StateCount, SubmitJobRequest, SubmitJobsRequest, WatchJobRequest, WatchJobResponse,
        job_event::Event, submit_verdict::Verdict, watch_job_response::Update,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{ByHand, Client, Coordinator, collecting, ingest_of};

async fn get(client: &mut Client, job_id: &str) -> Job {
    let request = GetJobRequest { job_id: job_id.to_owned() };
    client.jobs.get_job(request).await.expect("it exists").into_inner().job.expect("a job")
}

async fn submit_refused(client: &mut Client, request: SubmitJobRequest) -> Status {
    client.jobs.submit_job(request).await.expect_err("must be refused")
}

#[tokio::test]
async fn a_submitted_job_waits_for_a_worker_is_listed_and_can_be_cancelled() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let id = client.submit_ingest("stamps").await;
    assert_eq!(get(&mut client, &id).await.state(), JobState::Queued);

    let listed = client.jobs.list_jobs(ListJobsRequest::default()).await.expect("allowed").into_inner();
    assert_eq!(listed.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&id]);
    let others = ListJobsRequest { kind: "classify".to_owned(), ..ListJobsRequest::default() };
    assert!(client.jobs.list_jobs(others).await.expect("allowed").into_inner().jobs.is_empty());

    let cancel = CancelJobRequest { job_id: id.clone() };
    client.jobs.cancel_job(cancel.clone()).await.expect("it exists");
    assert_eq!(get(&mut client, &id).await.state(), JobState::Cancelled);
    client.jobs.cancel_job(cancel).await.expect("cancelling twice changes nothing");
}

#[tokio::test]
async fn jobs_that_are_cancelled_in_bulk_end_and_are_counted_and_can_be_retried() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let ids = [client.submit_ingest("stamps").await, client.submit_ingest("coins").await];
    let asked = client.jobs.cancel_jobs(CancelJobsRequest::default()).await.expect("allowed").into_inner();
    assert_eq!((asked.matching, asked.more), (2, false));
    for job_id in &ids {
        let request = WatchJobRequest { job_id: job_id.clone(), after_sequence: 0 };
        let watch = client.jobs.watch_job(request).await.expect("it exists").into_inner();
        watch.try_collect::<Vec<_>>().await.expect("it ends with the job");
        assert_eq!(get(&mut client, job_id).await.state(), JobState::Cancelled);
    }
    let queue =
        client.jobs.get_queue(GetQueueRequest::default()).await.expect("allowed").into_inner().queue.expect("a queue");
    assert_eq!(queue.counts, [StateCount { state: JobState::Cancelled.into(), jobs: 2 }]);
    let again = RetryJobRequest { job_id: ids[0].clone(), idempotency_key: "again".to_owned() };
    let first = client.jobs.retry_job(again.clone()).await.expect("it was cancelled").into_inner();
    let second = client.jobs.retry_job(again).await.expect("the same").into_inner();
    assert_eq!((first.existed, second.existed), (false, true));
    let job = first.job.expect("a job");
    assert_eq!((&job.retry_of, job.state()), (&ids[0], JobState::Queued));
    assert_eq!(second.job.map(|job| job.id), Some(job.id));
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_another_spec_under_it_is_refused() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let request = SubmitJobRequest { idempotency_key: "ci-1".to_owned(), ..client.ingest_request("stamps").await };
    let first = client.jobs.submit_job(request.clone()).await.expect("accepted").into_inner();
    let second = client.jobs.submit_job(request).await.expect("accepted").into_inner();
    assert_eq!((first.existed, second.existed), (false, true));
    assert_eq!(first.job.expect("a job").id, second.job.expect("a job").id);

    let other = SubmitJobRequest { idempotency_key: "ci-1".to_owned(), ..client.ingest_request("coins").await };
    let status = submit_refused(&mut client, other).await;
    assert_eq!(failure_of_status(&status).code(), ErrorCode::IdempotencyConflict);
}

#[tokio::test]
async fn a_job_whose_photos_were_not_uploaded_is_refused_with_the_field() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let status = submit_refused(&mut client, ingest_of("stamps", ObjectRef::of(b"never uploaded"))).await;
    let failure = failure_of_status(&status);
    assert_eq!((status.code(), failure.code()), (Code::NotFound, ErrorCode::NotFound));
    assert_eq!(failure.field, "ingest.source");
}

/// The fields at fault if a job is submitted with this upload manifest.
async fn faults(client: &mut Client, manifest: &[u8]) -> Vec<String> {
    let source = client.upload(manifest).await;
    let status = submit_refused(client, ingest_of("stamps", source)).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let faults = status.get_details_bad_request().expect("the request is at fault").field_violations;
    faults.into_iter().map(|fault| fault.field).collect()
}

#[tokio::test]
async fn an_upload_manifest_with_faults_is_refused_with_the_place_of_each() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let photo = client.upload(b"photo").await;
    let manifest = |files: &[(&str, &ObjectRef)]| {
        let file = |(path, object): &(&str, &ObjectRef)| UploadedFile::new(*path, (*object).clone());
        manifest::encode(&UploadManifest::of(files.iter().map(file).collect()))
    };
    let never = ObjectRef::of(b"never uploaded");
    let longer = ObjectRef { size_bytes: photo.size_bytes + 1, ..photo.clone() };
    let cases = [
        (manifest(&[]), vec!["ingest.source.files"]),
        (
            manifest(&[("", &photo), ("/a", &photo), ("../b", &photo), ("c", &photo), ("c", &photo)]),
            vec![
                "ingest.source.files[0].path",
                "ingest.source.files[1].path",
                "ingest.source.files[2].path",
                "ingest.source.files[4].path",
            ],
        ),
        (
            manifest(&[("a", &photo), ("b", &never), ("c", &longer)]),
            vec!["ingest.source.files[1].digest", "ingest.source.files[2].digest"],
        ),
        (
            manifest::encode(&UploadManifest::of(vec![UploadedFile {
                unread: Some("locked".into()),
                ..UploadedFile::new("/a", never.clone())
            }])),
            vec!["ingest.source.files[0].path"],
        ),
        (b"a photo, and no list".to_vec(), vec!["ingest.source"]),
        (br#"{"format": "sortinghat.upload/2", "files": []}"#.to_vec(), vec!["ingest.source"]),
        (br#"{"format": "sortinghat.upload/1", "files": [{"path": "a"}]}"#.to_vec(), vec!["ingest.source"]),
    ];
    for (manifest, expected) in cases {
        assert_eq!(faults(&mut client, &manifest).await, expected);
    }
}

#[tokio::test]
async fn an_object_that_was_missing_is_found_once_it_is_uploaded_and_looked_for_again_once_it_may_be_gone() {
    let coordinator = Coordinator::start_with(collecting()).await;
    let mut client = coordinator.client().await;
    let list = manifest::encode(&UploadManifest::of(vec![UploadedFile::new("a.png", ObjectRef::of(b"a photo"))]));
    let source = client.upload(&list).await;
    submit_refused(&mut client, ingest_of("stamps", source.clone())).await;
    let photo = client.upload(b"a photo").await;
    let job = client.jobs.submit_job(ingest_of("stamps", source.clone())).await.expect("it is there").into_inner().job;
    client.jobs.cancel_job(CancelJobRequest { job_id: job.expect("a job").id }).await.expect("it exists");
    client.await_removal(&photo.digest).await;
    // The list is removed together with the photo. While that goes on, the upload is told to come back.
    while client.try_upload(&list).await.is_err() {
        tokio::task::yield_now().await;
    }
    let status = submit_refused(&mut client, ingest_of("stamps", source)).await;
    assert!(status.message().contains("was not uploaded"), "{status}");
}

#[tokio::test]
async fn values_out_of_range_are_refused_with_the_field() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let good = client.ingest_request("stamps").await;
    let cases = [
        (SubmitJobRequest { priority: 11, ..good.clone() }, "priority"),
        (SubmitJobRequest { idempotency_key: "k".repeat(129), ..good.clone() }, "idempotency_key"),
        (SubmitJobRequest { idempotency_key: "a b\n".to_owned(), ..good.clone() }, "idempotency_key"),
        (SubmitJobRequest { parents: vec!["nonsense".to_owned()], ..good.clone() }, "parents"),
        (SubmitJobRequest { spec: None, ..good }, "spec"),
    ];
    for (request, field) in cases {
        let status = submit_refused(&mut client, request).await;
        let failure = failure_of_status(&status);
        assert_eq!(status.code(), Code::InvalidArgument, "{failure:?}");
        assert!(failure.field.starts_with(field), "{field}: {failure:?}");
    }
    let page = ListJobsRequest { page_size: 1001, ..ListJobsRequest::default() };
    client
        .jobs
        .list_jobs(page)
        .await
        .expect("a page that is asked to be larger has as many entries as a page may have");
}

#[tokio::test]
async fn each_of_many_jobs_has_its_own_verdict() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let good = client.ingest_request("stamps").await;
    let bad = SubmitJobRequest { priority: 11, ..good.clone() };
    let jobs = SubmitJobsRequest { jobs: vec![good.clone(), bad, good.clone()] };
    let verdicts = client.jobs.submit_jobs(jobs).await.expect("a call of its own").into_inner().verdicts;
    let accepted: Vec<bool> =
        verdicts.iter().map(|verdict| matches!(verdict.verdict, Some(Verdict::Accepted(_)))).collect();
    assert_eq!(accepted, [true, false, true]);

    let too_many = SubmitJobsRequest { jobs: vec![good; 1001] };
    let status = client.jobs.submit_jobs(too_many).await.expect_err("too many");
    assert_eq!(failure_of_status(&status).field, "jobs");
}

#[tokio::test]
async fn jobs_are_paged_newest_first_and_none_is_missed() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.push(client.submit_ingest("stamps").await);
    }
    submitted.sort();
    submitted.reverse();
    let mut seen = Vec::new();
    let mut request = ListJobsRequest { page_size: 2, ..ListJobsRequest::default() };
    loop {
        let page = client.jobs.list_jobs(request.clone()).await.expect("allowed").into_inner();
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, submitted);
}

fn event_sequences(updates: &[WatchJobResponse]) -> Vec<u64> {
    let events = updates.iter().filter_map(|update| match &update.update {
        Some(Update::Event(event)) => Some(event.sequence),
        _ => None,
    });
    events.collect()
}

#[tokio::test]
async fn a_watcher_sees_every_event_until_the_job_ends_and_can_go_on_from_anywhere() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let id = client.submit_ingest("stamps").await;
    let watch = WatchJobRequest { job_id: id.clone(), after_sequence: 0 };
    let updates = client.jobs.watch_job(watch).await.expect("it exists").into_inner();

    let mut worker = ByHand::new(coordinator.client().await);
    let lease = worker.take().await;
    worker.finish(&lease).await;

    let updates: Vec<WatchJobResponse> = updates.try_collect().await.expect("the stream ends with the job");
    let sequences = event_sequences(&updates);
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    let last = updates.iter().rev().find_map(|update| match &update.update {
        Some(Update::Event(event)) => event.event.clone(),
        _ => None,
    });
    let Some(Event::StateChanged(change)) = last else { panic!("the last event is the end: {last:?}") };
    assert_eq!(change.state(), JobState::Succeeded);
    assert_eq!(get(&mut client, &id).await.output.expect("an output").name, "stamps@1");

    let late = WatchJobRequest { job_id: id, after_sequence: 2 };
    let rest = client.jobs.watch_job(late).await.expect("it exists").into_inner();
    let rest: Vec<WatchJobResponse> = rest.try_collect().await.expect("the stream ends at once");
    assert_eq!(event_sequences(&rest), sequences[2..]);
}

#[tokio::test]
async fn unknown_and_malformed_ids_have_different_codes() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    for (id, code) in [("00000000000000000000000000", Code::NotFound), ("nonsense", Code::InvalidArgument)] {
        let status = client.jobs.get_job(GetJobRequest { job_id: id.to_owned() }).await.expect_err(id);
        assert_eq!(status.code(), code, "{id}");
    }
}
