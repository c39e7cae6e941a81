//! Commands for many jobs at once: bulk cancellation, pausing a queue, and the quota.

use futures::FutureExt as _;
use sortinghat_coordinator::engine::Settings;
use sortinghat_proto::{
    JobId, Refusal,
    v1::{self, ErrorCode, JobState},
};

use crate::{
    shards::{divide, tasks},
    world::{Worker, World, crash, finetune, ingest, request, settings, success},
};

async fn cancel(world: &World, request: v1::CancelJobsRequest) -> v1::CancelJobsResponse {
    world.engine.cancel_many(&world.tenant, request).await.expect("a valid filter")
}

async fn states(world: &World, ids: &[JobId]) -> Vec<JobState> {
    let mut states = Vec::new();
    for id in ids {
        states.push(world.state(id).await);
    }
    states
}

#[tokio::test]
async fn a_bulk_cancellation_reaches_a_thousand_jobs_in_rounds_and_spares_later_jobs() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        ids.push(world.submit(ingest()).await);
    }
    let asked = cancel(&world, v1::CancelJobsRequest::default()).await;
    assert_eq!((asked.matching, asked.more), (1_000, false));
    world.clock.advance_ms(2);
    let later = world.submit(ingest()).await;
    let rounds = [world.sweep().await.cancelled, world.sweep().await.cancelled];
    assert!(rounds.iter().all(|reached| (1..1_000).contains(reached)), "{rounds:?}");
    while world.engine.queue(&world.tenant).await.expect("it answers").cancellations > 0 {
        world.sweep().await;
    }
    assert!(states(&world, &ids).await.iter().all(|state| *state == JobState::Cancelled));
    assert_eq!(world.state(&later).await, JobState::Queued);
}

#[tokio::test]
async fn no_matching_job_starts_after_a_bulk_cancellation_although_the_sweep_has_not_reached_it() {
    let world = World::new().await;
    let named = world.submit(ingest()).await;
    cancel(&world, v1::CancelJobsRequest { kind: "ingest".into(), ..Default::default() }).await;
    let mut worker = Worker::new("w1", 4);
    worker.poll(&world.engine).await;
    worker.poll(&world.engine).await;
    assert!(worker.request.leases.is_empty(), "there is nothing to run");
    assert_eq!(world.state(&named).await, JobState::Cancelled, "the claim that met the job has cancelled it");
}

#[tokio::test]
async fn a_matching_job_that_runs_is_stopped_and_one_that_crashes_before_is_not_tried_again() {
    let world = World::new().await;
    let stopped = world.submit(ingest()).await;
    world.clock.advance_ms(1);
    let crashed = world.submit(ingest()).await;
    let mut workers = [Worker::new("w1", 1), Worker::new("w2", 1)];
    for worker in &mut workers {
        worker.start(&world.engine).await;
    }
    let asked = cancel(&world, v1::CancelJobsRequest { states: vec![JobState::Running.into()], ..Default::default() });
    assert_eq!(asked.await.matching, 2);
    workers[1].end(&world.engine, crash()).await;
    assert_eq!(world.state(&crashed).await, JobState::Cancelled);
    world.sweep().await;
    assert!(workers[0].poll(&world.engine).await.leases[0].cancel, "the worker is told");
    workers[0].end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    assert_eq!(world.state(&stopped).await, JobState::Cancelled);
}

#[tokio::test]
async fn a_filter_spares_jobs_that_do_not_match_and_counting_changes_nothing() {
    let world = World::new().await;
    let dataset = world.submit(ingest()).await;
    let model = world.submit(finetune(&format!("job:{dataset}"))).await;
    world.clock.advance_ms(1_000);
    let young = world.submit(ingest()).await;
    let old_ingests = v1::CancelJobsRequest {
        kind: "ingest".into(),
        states: vec![JobState::Queued.into()],
        created_before_unix_ms: world.now().to_wire(),
        ..v1::CancelJobsRequest::default()
    };
    let counted = cancel(&world, v1::CancelJobsRequest { count_only: true, ..old_ingests.clone() }).await;
    world.sweep().await;
    assert_eq!((counted.matching, world.state(&dataset).await), (1, JobState::Queued));
    cancel(&world, old_ingests).await;
    world.sweep().await;
    assert_eq!(states(&world, &[dataset, young.clone()]).await, [JobState::Cancelled, JobState::Queued]);
    world.sweep().await;
    assert_eq!(world.state(&model).await, JobState::Cancelled, "its parent was cancelled");
    let named = v1::CancelJobsRequest { job_ids: vec![young.to_string()], ..Default::default() };
    assert_eq!(cancel(&world, named).await.matching, 1);
    assert_eq!(world.state(&young).await, JobState::Cancelled);
    let ended = v1::CancelJobsRequest { states: vec![JobState::Failed.into()], ..Default::default() };
    let refused = world.engine.cancel_many(&world.tenant, ended).await.expect_err("they have ended");
    assert_eq!(Refusal::from(refused).field, "states");
}

#[tokio::test]
async fn a_paused_queue_starts_no_job_and_lets_running_jobs_go_on() {
    let world = World::new().await;
    let running = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 2);
    worker.start(&world.engine).await;
    let paused = world.engine.pause_queue(&world.tenant).await.expect("it answers");
    assert_eq!(paused.paused_since_unix_ms, world.now().to_wire());
    let waiting = world.submit(ingest()).await;
    worker.poll(&world.engine).await;
    assert_eq!(states(&world, &[running.clone(), waiting.clone()]).await, [JobState::Running, JobState::Queued]);
    worker.end(&world.engine, success(b"m")).await;
    worker.poll(&world.engine).await;
    assert_eq!(states(&world, &[running, waiting.clone()]).await, [JobState::Succeeded, JobState::Queued]);
    world.engine.resume_queue(&world.tenant).await.expect("it answers");
    assert_eq!(worker.start(&world.engine).await.job_id, waiting.as_str());
}

#[tokio::test]
async fn a_paused_queue_keeps_no_other_tenant_waiting() {
    let world = World::new().await;
    for _ in 0..200 {
        world.submit(ingest()).await;
    }
    world.engine.pause_queue(&world.tenant).await.expect("it answers");
    let other = "other".parse().expect("a tenant");
    let submission = request(ingest()).try_into().expect("valid");
    let job = world.engine.submit(&other, submission).await.expect("accepted").job.expect("a job");
    let mut worker = Worker::new("w1", 1);
    assert_eq!(worker.start(&world.engine).await.job_id, job.id);
}

#[tokio::test]
async fn the_queue_says_how_many_jobs_are_in_each_state_and_since_when_the_oldest_waits() {
    let world = World::new().await;
    let done = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    let first_waiting = world.now();
    let waiting = world.submit(ingest()).await;
    world.submit(finetune(&format!("job:{waiting}"))).await;
    worker.end(&world.engine, success(b"m")).await;
    assert_eq!(world.state(&done).await, JobState::Succeeded);
    let count = |queue: &v1::Queue, state: JobState| {
        queue.counts.iter().find(|count| count.state() == state).map_or(0, |count| count.jobs)
    };
    // The worker's last poll may have claimed the next job.
    let queue = world.engine.queue(&world.tenant).await.expect("it answers");
    assert_eq!(count(&queue, JobState::Running) + count(&queue, JobState::Queued), 1);
    assert_eq!((count(&queue, JobState::Blocked), count(&queue, JobState::Succeeded)), (1, 1));
    world.clock.advance_ms(10);
    world.submit(ingest()).await;
    let queue = world.engine.queue(&world.tenant).await.expect("it answers");
    assert!(queue.oldest_queued_unix_ms >= first_waiting.to_wire());
}

#[tokio::test]
async fn a_bulk_cancellation_ends_divided_jobs_with_all_of_their_shards() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 300).await;
    worker.start(&world.engine).await;
    cancel(&world, v1::CancelJobsRequest::default()).await;
    let mut other = Worker::new("w2", 8);
    other.poll(&world.engine).await;
    assert!(other.request.leases.is_empty(), "no shard starts any more");
    world.sweep().await;
    let job = world.job(&id).await;
    assert_eq!((job.state(), tasks(&job).cancelled, job.cancel_requested), (JobState::Running, 299, true));
    assert!(worker.poll(&world.engine).await.leases[0].cancel, "the worker is told");
    worker.end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    world.sweep().await;
    let job = world.job(&id).await;
    assert_eq!(
        (job.state(), job.failure.map(|failure| failure.code())),
        (JobState::Cancelled, Some(ErrorCode::Cancelled))
    );
}

#[tokio::test]
async fn a_shard_that_crashes_after_a_bulk_cancellation_ends_the_job_without_a_finish() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 1).await;
    worker.start(&world.engine).await;
    cancel(&world, v1::CancelJobsRequest::default()).await;
    worker.end(&world.engine, crash()).await;
    assert_eq!(world.state(&id).await, JobState::Cancelled);
    assert!(worker.poll(&world.engine).await.leases.is_empty(), "there is no finish");
}

#[tokio::test]
async fn a_paused_queue_holds_the_shards_of_a_divided_job_until_it_is_resumed() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 2).await;
    world.engine.pause_queue(&world.tenant).await.expect("it answers");
    worker.poll(&world.engine).await;
    assert!(worker.request.leases.is_empty());
    world.engine.resume_queue(&world.tenant).await.expect("it answers");
    assert_eq!(worker.start(&world.engine).await.job_id, id.as_str());
}

#[tokio::test]
async fn no_job_is_cancelled_by_id_if_one_of_the_ids_does_not_exist() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let job_ids = vec![id.to_string(), JobId::new(1, 1).to_string()];
    let named = v1::CancelJobsRequest { job_ids, ..Default::default() };
    let refused = world.engine.cancel_many(&world.tenant, named).await.expect_err("one is unknown");
    assert_eq!((refused.code(), world.state(&id).await), (ErrorCode::NotFound, JobState::Queued));
}

#[tokio::test]
async fn a_tenant_that_has_reached_its_quota_is_refused_and_another_tenant_is_not() {
    let world = World::with(Settings { max_waiting_jobs_per_tenant: 3, ..settings() }).await;
    let keyed = v1::SubmitJobRequest { idempotency_key: "first".into(), ..request(ingest()) };
    let first = world.accept(keyed.clone()).await.expect("accepted");
    world.submit(ingest()).await;
    world.submit(ingest()).await;
    let refused = world.accept(request(ingest())).await.expect_err("three wait");
    assert_eq!(refused.code, ErrorCode::ResourceExhausted);
    assert!(sortinghat_proto::retry_after(&refused.into()).is_some(), "it says when to come back");
    assert_eq!(world.accept(keyed).await.expect("accepted before").id, first.id);
    let submission = request(ingest()).try_into().expect("valid");
    world.engine.submit(&"other".parse().expect("a tenant"), submission).await.expect("has room of its own");
}

#[tokio::test]
async fn a_full_queue_refuses_every_tenant_and_tells_none_how_much_other_tenants_have() {
    let world = World::with(Settings { max_waiting_tasks: 2, ..settings() }).await;
    world.submit(ingest()).await;
    world.submit(ingest()).await;
    let submission = request(ingest()).try_into().expect("valid");
    let refused = world.engine.submit(&"other".parse().expect("a tenant"), submission).await.expect_err("two wait");
    assert_eq!(refused.code(), ErrorCode::ResourceExhausted);
    assert!(!refused.to_string().contains(|letter: char| letter.is_ascii_digit()), "{refused}");
}

#[tokio::test]
async fn states_in_another_order_or_repeated_are_the_same_bulk_cancellation() {
    let world = World::new().await;
    let (queued, running) = (JobState::Queued.into(), JobState::Running.into());
    for states in [vec![queued, running], vec![running, queued], [queued, running].repeat(1_000)] {
        cancel(&world, v1::CancelJobsRequest { states, ..Default::default() }).await;
    }
    assert_eq!(world.engine.queue(&world.tenant).await.expect("it answers").cancellations, 1);
}

#[tokio::test]
async fn a_bulk_cancellation_that_cannot_go_on_keeps_no_other_tenant_waiting() {
    let world = World::new().await;
    world.plant("queue:broken", "unreadable", vec![("cancelling".into(), "broken".into())]).await;
    let id = world.submit(ingest()).await;
    cancel(&world, v1::CancelJobsRequest::default()).await;
    assert_eq!(world.sweep().await.cancelled, 1);
    assert_eq!(world.state(&id).await, JobState::Cancelled);
}

#[tokio::test]
async fn while_a_bulk_cancellation_goes_on_other_tenants_get_their_turns() {
    let world = World::new().await;
    world.submit_many(&world.tenant, &request(ingest()), 200).await;
    cancel(&world, v1::CancelJobsRequest::default()).await;
    let other = "other".parse().expect("a tenant");
    world.submit_many(&other, &request(ingest()), 3).await;
    for name in ["w1", "w2", "w3"] {
        assert_eq!(Worker::new(name, 1).start(&world.engine).await.tenant, "other");
    }
}

#[tokio::test]
async fn waiting_workers_are_woken_when_a_queue_is_resumed_and_not_by_a_bulk_cancellation() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut ready = world.listen("ready");
    let mut is_woken = || ready.heard().now_or_never().is_some();
    cancel(&world, v1::CancelJobsRequest::default()).await;
    world.engine.pause_queue(&world.tenant).await.expect("it answers");
    world.sweep().await;
    assert_eq!(world.state(&id).await, JobState::Cancelled);
    assert!(!is_woken());
    world.engine.resume_queue(&world.tenant).await.expect("it answers");
    assert!(is_woken());
}
