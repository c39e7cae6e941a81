use sortinghat_proto::{
    Digest, failure_of_status,
    v1::{
        CancelJobRequest, CancelJobsRequest, ErrorCode, FindMissingObjectsRequest, GetJobRequest, GetQueueRequest,
        ListJobsRequest, ListWorkersRequest, PauseQueueRequest, ReadObjectRequest, RetryJobRequest, WatchJobRequest,
    },
};
use tonic::{Code, Status};

use crate::harness::{ByHand, Coordinator};

/// A coordinator for two tenants, a worker and an admin, whose tokens are their names.
async fn coordinator() -> Coordinator {
    let line = |token: &str, tenant: &str, role: &str| {
        let sha256 = Digest::of(token.as_bytes());
        format!("[[tokens]]\nsha256 = '{sha256}'\ntenant = '{tenant}'\nrole = '{role}'\n")
    };
    let tokens = [
        line("alice", "team-a", "user"),
        line("bob", "team-b", "user"),
        line("worker", "machines", "worker"),
        line("root", "operators", "admin"),
    ];
    Coordinator::start_with_tokens(&tokens.concat()).await
}

fn assert_code<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) {
    assert_eq!(result.expect_err("must be refused").code(), code);
}

#[tokio::test]
async fn a_tenant_sees_nothing_of_another_tenant() {
    let coordinator = coordinator().await;
    let (mut alice, mut bob) = (coordinator.client_with("alice").await, coordinator.client_with("bob").await);
    let job_id = alice.submit_ingest("stamps").await;
    let photo = Digest::of(b"photo").to_string();

    assert_code(bob.jobs.get_job(GetJobRequest { job_id: job_id.clone() }).await, Code::NotFound);
    assert_code(bob.jobs.cancel_job(CancelJobRequest { job_id: job_id.clone() }).await, Code::NotFound);
    assert_code(bob.jobs.watch_job(WatchJobRequest { job_id, after_sequence: 0 }).await, Code::NotFound);
    assert!(bob.jobs.list_jobs(ListJobsRequest::default()).await.expect("allowed").into_inner().jobs.is_empty());
    assert_code(bob.artifacts.read_object(ReadObjectRequest { digest: photo.clone() }).await, Code::NotFound);
    let asked = FindMissingObjectsRequest { digests: vec![photo.clone()] };
    let missing = bob.artifacts.find_missing_objects(asked).await.expect("allowed").into_inner().missing;
    assert_eq!(missing, [photo]);
}

#[tokio::test]
async fn a_tenant_cannot_pause_count_retry_or_cancel_for_another_tenant() {
    let coordinator = coordinator().await;
    let (mut alice, mut bob) = (coordinator.client_with("alice").await, coordinator.client_with("bob").await);
    let job_id = alice.submit_ingest("stamps").await;

    let named = CancelJobsRequest { job_ids: vec![job_id.clone()], ..CancelJobsRequest::default() };
    assert_code(bob.jobs.cancel_jobs(named).await, Code::NotFound);
    let all = bob.jobs.cancel_jobs(CancelJobsRequest::default()).await.expect("allowed").into_inner();
    assert_eq!((all.matching, all.more), (0, false));
    bob.jobs.pause_queue(PauseQueueRequest {}).await.expect("allowed");
    let queue = bob.jobs.get_queue(GetQueueRequest {}).await.expect("allowed").into_inner().queue.expect("a queue");
    assert!(queue.counts.is_empty() && queue.oldest_queued_unix_ms == 0, "{queue:?}");

    let mut worker = ByHand::new(coordinator.client_with("worker").await);
    let lease = worker.take().await;
    assert_eq!(lease.assignment.expect("a new lease").job_id, job_id, "the job of alice does not wait for bob's queue");
    alice.jobs.cancel_job(CancelJobRequest { job_id: job_id.clone() }).await.expect("it exists");
    assert_code(bob.jobs.retry_job(RetryJobRequest { job_id, ..Default::default() }).await, Code::NotFound);
    let mut machine = coordinator.client_with("worker").await;
    assert_code(machine.jobs.pause_queue(PauseQueueRequest {}).await, Code::PermissionDenied);
}

#[tokio::test]
async fn a_worker_may_run_tasks_but_not_submit_jobs_and_a_user_the_reverse() {
    let coordinator = coordinator().await;
    let (mut alice, mut worker) = (coordinator.client_with("alice").await, coordinator.client_with("worker").await);
    let request = alice.ingest_request("stamps").await;
    let status = worker.jobs.submit_job(request).await.expect_err("workers submit nothing");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(failure_of_status(&status).code(), ErrorCode::PermissionDenied);
    assert!(status.message().contains("JobService/SubmitJob"), "{}", status.message());
    assert_code(ByHand::new(alice).synchronize(vec![], 1, 0).await, Code::PermissionDenied);
    ByHand::new(worker).synchronize(vec![], 1, 0).await.expect("a worker may");
}

#[tokio::test]
async fn a_call_without_a_known_token_is_refused() {
    let coordinator = coordinator().await;
    for mut stranger in [coordinator.client().await, coordinator.client_with("guess").await] {
        let status = stranger.jobs.list_jobs(ListJobsRequest::default()).await.expect_err("unknown");
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(failure_of_status(&status).code(), ErrorCode::PermissionDenied);
    }
}

#[tokio::test]
async fn users_see_workers_but_not_the_tasks_of_other_tenants() {
    let coordinator = coordinator().await;
    let mut alice = coordinator.client_with("alice").await;
    alice.submit_ingest("stamps").await;
    let mut worker = ByHand::new(coordinator.client_with("worker").await);
    let lease = worker.take().await;
    worker.confirm(&lease).await;
    let task = lease.key.expect("a lease has a key").task_id;

    for (token, expected) in [("alice", vec![task.clone()]), ("bob", vec![]), ("root", vec![task])] {
        let mut client = coordinator.client_with(token).await;
        let workers = client.workers.list_workers(ListWorkersRequest {}).await.expect("allowed").into_inner().workers;
        assert_eq!(workers.len(), 1, "{token}");
        assert_eq!(workers[0].running_tasks, expected, "{token}");
    }
}
