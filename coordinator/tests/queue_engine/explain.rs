//! Explaining why a job is in its state.

use sortinghat_coordinator::auth::Sight;
use sortinghat_proto::{
    JobId, Tenant,
    v1::{self, ErrorCode, JobState, explain_job_response::Reason},
};

use crate::world::{Worker, World, crash, finetune, ingest, request, success};

async fn explain(world: &World, job: &JobId) -> (Reason, String) {
    let explained = world.engine.explain(&world.tenant, job, Sight::Everything).await.expect("the job exists");
    assert_eq!(explained.state(), world.state(job).await);
    (explained.reason.expect("there always is a reason"), explained.sentence)
}

#[tokio::test]
async fn without_workers_the_explanation_says_so_and_what_to_do() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let (reason, sentence) = explain(&world, &id).await;
    assert_eq!(reason, Reason::NoWorker(v1::WaitsForAnyWorker {}));
    assert!(sentence.contains("there is none that takes tasks"), "{sentence}");
    let other: Tenant = "other".parse().expect("a tenant");
    assert_eq!(
        world.engine.explain(&other, &id, Sight::Everything).await.expect_err("unseen").code(),
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn a_requirement_that_no_worker_meets_is_named_with_what_the_workers_have() {
    let world = World::new().await;
    Worker::new("w1", 1).poll(&world.engine).await;
    let requirements = Some(v1::Requirements { min_memory_bytes: 64 << 30, ..v1::Requirements::default() });
    let job = world.accept(v1::SubmitJobRequest { requirements, ..request(ingest()) }).await.expect("accepted");
    let (reason, sentence) = explain(&world, &job.id.parse().expect("an id")).await;
    let Reason::NoCapableWorker(waits) = reason else { panic!("{reason:?}") };
    let short = &waits.workers[0].shortfalls[0];
    assert_eq!((waits.workers[0].host.as_str(), short.requirement.as_str()), ("w1-host", "memory"));
    assert_eq!((short.required.as_str(), short.has.as_str()), ("64GiB", ""));
    assert!(sentence.contains("memory=64GiB") && sentence.contains("w1-host"), "{sentence}");
}

#[tokio::test]
async fn a_child_names_the_parents_that_it_waits_for() {
    let world = World::new().await;
    let parent = world.submit(ingest()).await;
    let child = world.submit(finetune(&format!("job:{parent}"))).await;
    let (reason, sentence) = explain(&world, &child).await;
    let Reason::Parents(waits) = reason else { panic!("{reason:?}") };
    assert_eq!((waits.parents[0].job_id.as_str(), waits.parents[0].state()), (parent.as_str(), JobState::Queued));
    assert!(sentence.contains(parent.as_str()) && sentence.contains("queued"), "{sentence}");
}

#[tokio::test]
async fn the_explanation_says_where_a_job_runs_then_when_it_is_tried_again_and_then_how_it_ended() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    world.clock.advance_ms(3_000);
    let (reason, sentence) = explain(&world, &id).await;
    assert!(matches!(reason, Reason::Runs(runs) if runs.attempt.as_ref().is_some_and(|a| a.host == "w1-host")));
    assert!(sentence.contains("w1-host for 3 s"), "{sentence}");
    worker.end(&world.engine, crash()).await;
    let (reason, sentence) = explain(&world, &id).await;
    let Reason::Backoff(backoff) = reason else { panic!("{reason:?}") };
    assert!(backoff.until_unix_ms > 0);
    assert!(sentence.contains("signal 9") && sentence.contains("in "), "{sentence}");
    world.pass(1_000).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    let (reason, sentence) = explain(&world, &id).await;
    assert!(matches!(reason, Reason::Ended(ended) if ended.failure.is_none()));
    assert!(sentence.contains("succeeded"), "{sentence}");
}

#[tokio::test]
async fn the_place_in_the_queue_is_always_told_and_an_estimate_once_durations_were_measured() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let mut ids = Vec::new();
    for _ in 0..4 {
        world.clock.advance_ms(1);
        ids.push(world.submit(ingest()).await);
    }
    worker.start(&world.engine).await;
    let turn = |reason: Reason| match reason {
        Reason::Turn(turn) => turn,
        other => panic!("{other:?}"),
    };
    let (reason, sentence) = explain(&world, &ids[2]).await;
    assert_eq!(turn(reason), v1::WaitsForTurn { place: 2, tenants: 1, slots: 1, ..v1::WaitsForTurn::default() });
    assert!(sentence.contains("place 2") && sentence.contains("no estimate yet"), "{sentence}");
    world.clock.advance_ms(4_000);
    worker.end(&world.engine, success(b"m")).await;
    worker.start(&world.engine).await;
    let (reason, sentence) = explain(&world, &ids[3]).await;
    let waits = turn(reason);
    assert_eq!((waits.place, waits.estimated_wait_ms), (2, Some(6_000)), "half of a running task, and one task ahead");
    assert!(sentence.contains("about 6 s"), "{sentence}");
    let neighbour: Tenant = "neighbour".parse().expect("a tenant");
    world.submit_many(&neighbour, &request(ingest()), 1).await;
    let (reason, _) = explain(&world, &ids[3]).await;
    let waits = turn(reason);
    assert_eq!((waits.tenants, waits.estimated_wait_ms), (2, Some(10_000)), "the slot is shared with another tenant");
}

#[tokio::test]
async fn a_job_of_a_paused_queue_says_since_when_it_is_paused_and_how_to_go_on() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let paused = world.engine.pause_queue(&world.tenant).await.expect("it answers");
    world.clock.advance_ms(240_000);
    let (reason, sentence) = explain(&world, &id).await;
    assert_eq!(reason, Reason::Paused(v1::QueuePaused { since_unix_ms: paused.paused_since_unix_ms }));
    assert!(sentence.contains("4 min") && sentence.contains("until it is resumed"), "{sentence}");
}

#[tokio::test]
async fn a_job_whose_start_time_has_not_come_says_when_it_may_start() {
    let world = World::new().await;
    let not_before_unix_ms = world.now().plus_ms(240_000).to_wire();
    let job = world.accept(v1::SubmitJobRequest { not_before_unix_ms, ..request(ingest()) }).await.expect("accepted");
    let (reason, sentence) = explain(&world, &job.id.parse().expect("an id")).await;
    assert_eq!(reason, Reason::NotBefore(v1::WaitsForTime { not_before_unix_ms }));
    assert!(sentence.contains("in 4 min"), "{sentence}");
}
