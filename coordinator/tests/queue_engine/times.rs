//! Start times and deadlines of jobs.

use sortinghat_proto::{
    time::UnixMs,
    v1::{self, AttemptOutcome, ErrorCode, JobState},
};

use crate::{
    shards::{count, tasks},
    world::{Worker, World, finetune, ingest, request, success},
};

fn timed(world: &World, not_before_ms: u64, deadline_ms: u64) -> v1::SubmitJobRequest {
    let from_now = |ms: u64| if ms == 0 { 0 } else { world.now().plus_ms(ms).to_wire() };
    v1::SubmitJobRequest {
        not_before_unix_ms: from_now(not_before_ms),
        deadline_unix_ms: from_now(deadline_ms),
        ..request(ingest())
    }
}

#[tokio::test]
async fn a_job_with_a_start_time_is_given_to_no_worker_before_that_time() {
    let world = World::new().await;
    let job = world.accept(timed(&world, 5_000, 0)).await.expect("accepted");
    let mut worker = Worker::new("w1", 1);
    world.pass(4_999).await;
    assert!(worker.poll(&world.engine).await.leases.is_empty());
    assert_eq!(world.pass(1).await.released, 1);
    assert_eq!(worker.start(&world.engine).await.job_id, job.id);
}

#[tokio::test]
async fn a_job_that_waits_past_its_deadline_fails_and_its_children_with_it() {
    let world = World::new().await;
    let job = world.accept(timed(&world, 0, 3_000)).await.expect("accepted");
    let id = job.id.parse().expect("a job id");
    let child = world.submit(finetune(&format!("job:{}", job.id))).await;
    assert_eq!(world.pass(2_999).await.overdue, 0);
    assert_eq!(world.pass(1).await.overdue, 1);
    let failed = world.job(&id).await;
    assert_eq!(failed.state(), JobState::Failed);
    assert_eq!(failed.failure.expect("it says why").code(), ErrorCode::DeadlineExceeded);
    world.sweep().await;
    assert_eq!(world.state(&child).await, JobState::Cancelled);
    assert_eq!(world.sweep().await.overdue, 0, "the deadline counts once");
}

#[tokio::test]
async fn an_unreadable_job_does_not_stop_the_deadlines_of_other_jobs() {
    let world = World::new().await;
    let unreadable = world.accept(timed(&world, 0, 1_000)).await.expect("accepted").id;
    let late = world.accept(timed(&world, 0, 2_000)).await.expect("accepted").id.parse().expect("a job id");
    world.spoil(&format!("job:{unreadable}")).await;
    world.clock.advance_ms(2_000);
    world.engine.sweep().await.expect_err("a record is unreadable");
    assert_eq!(world.state(&late).await, JobState::Failed);
}

#[tokio::test]
async fn a_job_that_runs_past_its_deadline_is_stopped_and_fails_because_of_it() {
    let world = World::new().await;
    let id = world.accept(timed(&world, 0, 3_000)).await.expect("accepted").id.parse().expect("a job id");
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    world.pass(3_000).await;
    assert_eq!(world.state(&id).await, JobState::Running);
    assert!(worker.poll(&world.engine).await.leases[0].cancel, "the worker is told");
    worker.end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    let job = world.job(&id).await;
    assert_eq!((job.state(), job.attempts[0].outcome()), (JobState::Failed, AttemptOutcome::Cancelled));
    let failure = job.failure.expect("it says why");
    assert_eq!((failure.code(), failure.failure_class()), (ErrorCode::DeadlineExceeded, v1::FailureClass::User));
}

#[tokio::test]
async fn a_job_that_ends_in_time_is_not_affected_by_its_deadline() {
    let world = World::new().await;
    let id = world.accept(timed(&world, 0, 3_000)).await.expect("accepted").id.parse().expect("a job id");
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    assert_eq!(world.pass(5_000).await.overdue, 0);
    assert_eq!(world.state(&id).await, JobState::Succeeded);
}

#[tokio::test]
async fn a_past_deadline_is_refused_unless_the_job_was_accepted_before() {
    let world = World::new().await;
    let keyed = v1::SubmitJobRequest { idempotency_key: "nightly".into(), ..timed(&world, 0, 1_000) };
    let job = world.accept(keyed.clone()).await.expect("accepted");
    world.pass(2_000).await;
    assert_eq!(world.accept(keyed).await.expect("the same job").id, job.id);
    let late = v1::SubmitJobRequest { deadline_unix_ms: UnixMs(1).to_wire(), ..request(ingest()) };
    assert_eq!(world.accept(late).await.expect_err("too late").field, "deadline_unix_ms");
}

#[tokio::test]
async fn a_divided_job_past_its_deadline_stops_all_of_its_shards_and_fails_because_of_it() {
    let world = World::new().await;
    let id = world.accept(timed(&world, 0, 3_000)).await.expect("accepted").id.parse().expect("a job id");
    let mut worker = Worker::new("w1", 1);
    count(&world, &mut worker, 300).await;
    worker.start(&world.engine).await;
    assert_eq!(world.pass(3_000).await.overdue, 1);
    let job = world.job(&id).await;
    assert_eq!((job.state(), tasks(&job).cancelled), (JobState::Running, 299), "one shard still runs");
    assert!(worker.poll(&world.engine).await.leases[0].cancel, "the worker is told");
    assert_eq!(world.sweep().await.overdue, 0, "the deadline counts once");
    worker.end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    world.sweep().await;
    let job = world.job(&id).await;
    assert_eq!(job.state(), JobState::Failed);
    assert_eq!(job.failure.expect("it says why").code(), ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn a_deadline_also_stops_a_divided_job_during_its_finish() {
    let world = World::new().await;
    let id = world.accept(timed(&world, 0, 3_000)).await.expect("accepted").id.parse().expect("a job id");
    let mut worker = Worker::new("w1", 1);
    count(&world, &mut worker, 1).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"shard")).await;
    worker.poll(&world.engine).await;
    assert_eq!(world.pass(3_000).await.overdue, 1);
    assert!(worker.poll(&world.engine).await.leases[0].cancel, "the worker is told");
    worker.end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    let job = world.job(&id).await;
    assert_eq!(job.failure.expect("it says why").code(), ErrorCode::DeadlineExceeded);
}
