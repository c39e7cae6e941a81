//! Preference: a task is left to a better worker for a moment, if there is one.

use sortinghat_coordinator::auth::Caller;
use sortinghat_proto::{
    Digest, JobId, Refusal,
    limits::MAX_CACHED_MANIFESTS,
    v1::{self, AttemptOutcome},
};

use crate::world::{LEASE_MS, Worker, World, crash, finetune, ingest, settings, success};

/// A world with the dataset `stamps@1`, a polling worker that has the dataset in its cache, and a worker that has not.
async fn world_with_a_cached_dataset() -> (World, Worker, Worker) {
    let world = World::new().await;
    world.submit(ingest()).await;
    let mut holder = Worker::new("holder", 1);
    holder.start(&world.engine).await;
    holder.end(&world.engine, success(b"dataset")).await;
    holder.request.cached = vec![Digest::of(b"dataset").to_string()];
    holder.poll(&world.engine).await;
    (world, holder, Worker::new("other", 1))
}

async fn runs(world: &World, worker: &mut Worker, job: &JobId) -> bool {
    worker.poll(&world.engine).await;
    worker.request.leases.iter().any(|lease| lease.task_id.starts_with(job.as_str()))
}

#[tokio::test]
async fn a_task_is_left_to_an_idle_worker_that_has_its_dataset() {
    let (world, mut holder, mut other) = world_with_a_cached_dataset().await;
    let training = world.submit(finetune("stamps@1")).await;
    assert!(!runs(&world, &mut other, &training).await, "the holder will take it in a moment");
    assert!(runs(&world, &mut holder, &training).await);
    let next = world.submit(finetune("stamps@1")).await;
    assert!(runs(&world, &mut other, &next).await, "the holder is busy now");
}

#[tokio::test]
async fn a_task_is_left_for_a_bounded_time_and_only_once() {
    let (world, _holder, mut other) = world_with_a_cached_dataset().await;
    let training = world.submit(finetune("stamps@1")).await;
    assert!(!runs(&world, &mut other, &training).await);
    world.clock.advance_ms(settings().affinity_ms - 1);
    assert!(!runs(&world, &mut other, &training).await);
    world.clock.advance_ms(1);
    assert!(runs(&world, &mut other, &training).await, "the holder polls, but has not taken it");
}

#[tokio::test]
async fn nothing_is_delayed_where_no_live_and_able_worker_has_the_dataset() {
    let (world, mut holder, mut other) = world_with_a_cached_dataset().await;
    world.clock.advance_ms(LEASE_MS);
    let training = world.submit(finetune("stamps@1")).await;
    assert!(runs(&world, &mut other, &training).await, "the holder is silent");
    other.end(&world.engine, success(b"model")).await;
    holder.request.draining = true;
    holder.poll(&world.engine).await;
    let training = world.submit(finetune("stamps@1")).await;
    assert!(runs(&world, &mut other, &training).await, "the holder drains");
    other.end(&world.engine, success(b"model")).await;
    let unrelated = world.submit(ingest()).await;
    holder.request.draining = false;
    holder.poll_without_beats(&world.engine).await;
    holder.end(&world.engine, success(b"dataset")).await;
    assert!(!runs(&world, &mut other, &unrelated).await, "the idle holder took what needs no dataset");
}

#[tokio::test]
async fn a_worker_takes_the_task_behind_the_one_that_it_leaves() {
    let (world, mut holder, mut other) = world_with_a_cached_dataset().await;
    let training = world.submit(finetune("stamps@1")).await;
    world.clock.advance_ms(1);
    let unrelated = world.submit(ingest()).await;
    assert!(runs(&world, &mut other, &unrelated).await);
    assert!(runs(&world, &mut holder, &training).await);
}

#[tokio::test]
async fn an_input_that_a_parent_made_counts_like_any_other_input() {
    let (world, mut holder, mut other) = world_with_a_cached_dataset().await;
    let dataset = world.submit(ingest()).await;
    let training = world.submit(finetune(&format!("job:{dataset}"))).await;
    assert!(runs(&world, &mut other, &dataset).await);
    other.end(&world.engine, success(b"another dataset")).await;
    holder.request.cached.insert(0, Digest::of(b"another dataset").to_string());
    holder.poll(&world.engine).await;
    world.sweep().await;
    assert!(!runs(&world, &mut other, &training).await);
    assert!(runs(&world, &mut holder, &training).await);
}

#[tokio::test]
async fn after_a_crash_another_machine_is_preferred_for_a_bounded_time() {
    let world = World::new().await;
    let (mut first, mut second) = (Worker::new("first", 1), Worker::new("second", 1));
    for goes_elsewhere in [true, false] {
        let id = world.submit(ingest()).await;
        second.request.free_slots = 0;
        second.poll(&world.engine).await;
        assert!(runs(&world, &mut first, &id).await);
        first.end(&world.engine, crash()).await;
        world.pass(1_000).await;
        second.request.free_slots = u32::from(goes_elsewhere);
        assert!(!runs(&world, &mut first, &id).await, "the task died on this machine");
        if goes_elsewhere {
            assert!(runs(&world, &mut second, &id).await);
            second.end(&world.engine, success(b"m")).await;
            let outcomes: Vec<_> = world.job(&id).await.attempts.iter().map(v1::Attempt::outcome).collect();
            assert_eq!(outcomes, [AttemptOutcome::Crashed, AttemptOutcome::Succeeded]);
        } else {
            for _ in 0..3 {
                world.clock.advance_ms(settings().other_machine_ms / 3 + 1);
                second.request.free_slots = 0;
                second.poll(&world.engine).await;
            }
            assert!(runs(&world, &mut first, &id).await, "the other machine is busy for too long");
        }
    }
}

#[tokio::test]
async fn a_single_worker_is_given_the_task_again_at_once() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut only = Worker::new("only", 1);
    assert!(runs(&world, &mut only, &id).await);
    only.end(&world.engine, crash()).await;
    world.pass(1_000).await;
    assert!(runs(&world, &mut only, &id).await);
}

#[tokio::test]
async fn a_message_that_names_too_many_cached_manifests_is_refused() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    worker.request.cached = vec![String::new(); MAX_CACHED_MANIFESTS + 1];
    let refusal = world.engine.synchronize(&Caller::everyone(), worker.request.clone()).await.expect_err("too many");
    assert_eq!(Refusal::from(refusal).field, "cached");
}
