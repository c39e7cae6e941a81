use sortinghat_proto::{
    Digest, failure_of_status,
    v1::{
        CancelJobRequest, CancelJobsRequest, ErrorCode, ExplainJobRequest, Failure, FindMissingObjectsRequest,
        GetJobRequest, GetQueueRequest, JobState, LeaseReport, ListJobsRequest, ListWorkersRequest, PauseQueueRequest,
        ReadObjectRequest, Requirements, ResumeQueueRequest, RetryJobRequest, SubmitJobRequest, TaskOutcome,
        WatchJobRequest, Worker, explain_job_response::Reason, task_outcome::Outcome,
    },
};
use tonic::{Code, Status};

use crate::harness::{ByHand, Coordinator, token};

/// A coordinator for two tenants, with a user, an admin and a worker of each, a worker of both, and an operator. Their tokens are their
/// names.
async fn coordinator() -> Coordinator {
    let tokens = [
        token("alice", "role = 'user'\ntenant = 'team-a'"),
        token("bob", "role = 'user'\ntenant = 'team-b'"),
        token("chief", "role = 'admin'\ntenant = 'team-a'"),
        token("worker", "role = 'worker'\ntenants = ['team-a', 'team-b']"),
        token("worker-a", "role = 'worker'\ntenants = ['team-a']"),
        token("worker-b", "role = 'worker'\ntenants = ['team-b']"),
        token("root", "role = 'operator'"),
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
    bob.jobs.pause_queue(PauseQueueRequest::default()).await.expect("allowed");
    let queue =
        bob.jobs.get_queue(GetQueueRequest::default()).await.expect("allowed").into_inner().queue.expect("a queue");
    assert!(queue.counts.is_empty() && queue.oldest_queued_unix_ms == 0, "{queue:?}");

    let mut worker = ByHand::new(coordinator.client_with("worker").await);
    let lease = worker.take().await;
    assert_eq!(lease.assignment.expect("a new lease").job_id, job_id, "the job of alice does not wait for bob's queue");
    alice.jobs.cancel_job(CancelJobRequest { job_id: job_id.clone() }).await.expect("it exists");
    assert_code(bob.jobs.retry_job(RetryJobRequest { job_id, ..Default::default() }).await, Code::NotFound);
    let mut machine = coordinator.client_with("worker").await;
    assert_code(machine.jobs.pause_queue(PauseQueueRequest::default()).await, Code::PermissionDenied);
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

/// The workers that a caller sees.
async fn workers_seen_by(coordinator: &Coordinator, token: &str) -> Vec<Worker> {
    let mut client = coordinator.client_with(token).await;
    client.workers.list_workers(ListWorkersRequest {}).await.expect("allowed").into_inner().workers
}

#[tokio::test]
async fn a_user_sees_of_the_workers_what_its_own_tenant_has_of_them_and_an_operator_everything() {
    let coordinator = coordinator().await;
    let mut alice = coordinator.client_with("alice").await;
    alice.submit_ingest("stamps").await;
    let mut shared = ByHand::named("shared", coordinator.client_with("worker").await);
    let lease = shared.take().await;
    shared.confirm(&lease).await;
    let task = lease.key.expect("a lease has a key").task_id;
    ByHand::named("only-a", coordinator.client_with("worker-a").await).synchronize(vec![], 1, 0).await.expect("known");

    let told = |workers: Vec<Worker>| -> Vec<(String, String, Vec<String>, Vec<String>)> {
        let told = workers.into_iter().map(|worker| {
            let host = worker.description.expect("described").host;
            (worker.id, host, worker.running_tasks, worker.serves)
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    };
    let worker = |id: &str, host: &str, tasks: &[&String], serves: &[&str]| {
        let text = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<String>>();
        (id.to_owned(), host.to_owned(), tasks.iter().map(ToString::to_string).collect::<Vec<_>>(), text(serves))
    };
    for token in ["alice", "chief"] {
        let seen = [worker("", "", &[&task], &["team-a"]), worker("only-a", "by-hand", &[], &["team-a"])];
        assert_eq!(told(workers_seen_by(&coordinator, token).await), seen, "{token}");
    }
    assert_eq!(told(workers_seen_by(&coordinator, "bob").await), [worker("", "", &[], &["team-b"])]);
    let all =
        [worker("only-a", "by-hand", &[], &["team-a"]), worker("shared", "by-hand", &[&task], &["team-a", "team-b"])];
    assert_eq!(told(workers_seen_by(&coordinator, "root").await), all);
}

#[tokio::test]
async fn a_user_is_not_told_how_many_others_wait_nor_the_names_of_shared_workers() {
    let coordinator = coordinator().await;
    let (mut alice, mut bob) = (coordinator.client_with("alice").await, coordinator.client_with("bob").await);
    let request = bob.ingest_request("stamps").await;
    let needs_cuda = Requirements { device_kind: "cuda".to_owned(), ..Requirements::default() };
    let request = SubmitJobRequest { requirements: Some(needs_cuda), ..request };
    let impossible = bob.jobs.submit_job(request).await.expect("accepted").into_inner().job.expect("a job").id;
    let waiting = bob.submit_ingest("stamps").await;
    alice.submit_ingest("stamps").await;
    let mut shared = ByHand::named("shared", coordinator.client_with("worker").await);
    shared.synchronize(vec![], 0, 0).await.expect("known");

    let explained = bob.jobs.explain_job(ExplainJobRequest { job_id: waiting }).await.expect("its own").into_inner();
    let Some(Reason::Turn(turn)) = explained.reason else { panic!("{explained:?}") };
    assert_eq!((turn.tenants, turn.estimated_wait_ms), (0, None));
    assert!(!explained.sentence.contains("tenant"), "{}", explained.sentence);
    let explained = bob.jobs.explain_job(ExplainJobRequest { job_id: impossible }).await.expect("its own").into_inner();
    let Some(Reason::NoCapableWorker(waits)) = explained.reason else { panic!("{explained:?}") };
    assert!(waits.workers[0].worker_id.is_empty() && waits.workers[0].host.is_empty(), "{waits:?}");
    assert!(explained.sentence.contains("a shared worker has device cpu"), "{}", explained.sentence);
}

#[tokio::test]
async fn a_worker_takes_and_reports_only_tasks_of_the_tenants_that_it_serves() {
    let coordinator = coordinator().await;
    let mut alice = coordinator.client_with("alice").await;
    let job_id = alice.submit_ingest("stamps").await;
    let mut foreign = ByHand::named("foreign", coordinator.client_with("worker-b").await);
    assert!(foreign.synchronize(vec![], 1, 0).await.expect("a worker may call").leases.is_empty());
    let mut own = ByHand::named("own", coordinator.client_with("chief").await);
    let lease = own.take().await;
    let key = lease.key.clone().expect("a lease has a key");
    let failed = Failure { message: "forged".to_owned(), ..Failure::default() };
    let report = LeaseReport {
        task_id: key.task_id.clone(),
        epoch: key.epoch,
        outcome: Some(TaskOutcome { outcome: Some(Outcome::Failed(failed)) }),
        ..LeaseReport::default()
    };
    foreign.synchronize(vec![report.clone()], 0, 0).await.expect("a report that changes nothing");
    // With the id of the other worker it is refused.
    let mut forged = ByHand::named("own", coordinator.client_with("worker-b").await);
    assert_code(forged.synchronize(vec![report], 0, 0).await, Code::PermissionDenied);
    own.confirm(&lease).await;
    let job = alice.jobs.get_job(GetJobRequest { job_id }).await.expect("its own").into_inner().job.expect("a job");
    assert_eq!(job.state(), JobState::Running);
}

#[tokio::test]
async fn an_operator_pauses_the_queue_of_any_tenant_and_a_user_only_its_own() {
    let coordinator = coordinator().await;
    let (mut root, mut bob) = (coordinator.client_with("root").await, coordinator.client_with("bob").await);
    let of = |tenant: &str| PauseQueueRequest { tenant: tenant.to_owned() };
    assert_code(root.jobs.pause_queue(of("")).await, Code::InvalidArgument);
    assert_code(bob.jobs.pause_queue(of("team-a")).await, Code::PermissionDenied);
    root.jobs.pause_queue(of("team-a")).await.expect("allowed");
    bob.jobs.resume_queue(ResumeQueueRequest { tenant: "team-b".to_owned() }).await.expect("its own");
    let paused = async |token: &str| {
        let mut client = coordinator.client_with(token).await;
        let queue = client.jobs.get_queue(GetQueueRequest::default()).await.expect("its own").into_inner().queue;
        queue.expect("a queue").paused_since_unix_ms != 0
    };
    assert!(paused("alice").await && !paused("bob").await);
}
