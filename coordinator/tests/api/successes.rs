use sortinghat_proto::{
    ObjectRef,
    manifest::{self, UploadManifest, UploadedFile},
    v1::{AttemptOutcome, GetJobRequest, Job, JobState},
};

use crate::harness::{ByHand, Client, Coordinator, source_of};

async fn job(client: &mut Client, job_id: &str) -> Job {
    let request = GetJobRequest { job_id: job_id.to_owned() };
    client.jobs.get_job(request).await.expect("it exists").into_inner().job.expect("a job")
}

#[tokio::test]
async fn a_success_is_taken_only_if_its_manifest_is_what_the_task_makes_of_what_it_has_read() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let mut worker = ByHand::new(coordinator.client().await);
    let other = manifest::encode(&UploadManifest::of(vec![UploadedFile::new("b.png", ObjectRef::of(b"photo"))]));
    let other = client.upload(&other).await;
    let of_other = serde_json::json!({ "format": "sortinghat.dataset/1", "source": other }).to_string();
    let of_other = client.upload(of_other.as_bytes()).await;
    let photo = client.upload(b"photo").await;
    let none = |_: ObjectRef| None;
    type Forgery<'a> = &'a dyn Fn(ObjectRef) -> Option<ObjectRef>;
    let cases: [(Forgery, &str); 4] = [
        (&|source| Some(source), "it is sortinghat.upload/1, and not a sortinghat.dataset/1 document"),
        (&|_| Some(of_other.clone()), "it does not name object"),
        (&|_| Some(photo.clone()), "it is no document"),
        (&none, ""),
    ];
    for (forged, says) in cases {
        let id = client.submit_ingest("stamps").await;
        let lease = worker.take().await;
        let Some(manifest) = forged(source_of(&lease)) else {
            worker.finish(&lease).await;
            assert_eq!(job(&mut client, &id).await.state(), JobState::Succeeded);
            continue;
        };
        worker.report_success(&lease, manifest).await;
        let job = job(&mut client, &id).await;
        assert_eq!(job.state(), JobState::Queued, "it is tried again");
        let failure = job.attempts[0].failure.clone().expect("why");
        assert_eq!(job.attempts[0].outcome(), AttemptOutcome::Crashed);
        assert!(failure.message.contains(says), "{}", failure.message);
        client.jobs.cancel_job(sortinghat_proto::v1::CancelJobRequest { job_id: id }).await.expect("it waits");
    }
}
