//! Leases and epochs, and workers that die.

use std::sync::{Arc, atomic::Ordering};

use sortinghat_coordinator::store::{Clock as _, ManualClock};
use sortinghat_proto::{
    JobId, JobKind,
    v1::{self, AttemptOutcome, ErrorCode, JobState},
};

use crate::world::{LEASE_MS, START, Worker, World, checkpoint, crash, finetune, ingest, success};

#[tokio::test]
async fn the_task_of_a_dead_worker_goes_to_another_worker_and_is_committed_once() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut dead = Worker::new("dead", 1);
    let first = dead.start(&world.engine).await;
    assert_eq!(world.pass(LEASE_MS - 1).await.expired, 0, "the lease is not over yet");
    assert_eq!(world.pass(1).await.expired, 1);
    world.pass(1_000).await;
    let mut other = Worker::new("other", 1);
    let second = other.start(&world.engine).await;
    assert!(second.epoch > first.epoch);
    assert_eq!(second.attempt, 2);

    let stale = dead.end(&world.engine, success(b"late")).await;
    assert_eq!(stale.acknowledged.len(), 1, "the dead worker need not report it again");
    assert_eq!(world.state(&id).await, JobState::Running, "the late outcome changes nothing");
    other.end(&world.engine, success(b"in time")).await;
    let job = world.job(&id).await;
    let manifest = job.output.expect("it succeeded").manifest;
    assert_eq!(manifest, Some(sortinghat_proto::ObjectRef::of(b"in time").into()));
    let outcomes: Vec<AttemptOutcome> = job.attempts.iter().map(|attempt| attempt.outcome()).collect();
    assert_eq!(outcomes, [AttemptOutcome::Lost, AttemptOutcome::Succeeded]);
}

#[tokio::test]
async fn a_worker_whose_beats_change_keeps_its_lease_and_a_worker_that_hangs_loses_it() {
    let world = World::new().await;
    world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    for _ in 0..20 {
        worker.poll(&world.engine).await;
        assert_eq!(world.pass(LEASE_MS / 2).await.expired, 0);
    }
    let hung_since = world.clock.now();
    worker.poll_without_beats(&world.engine).await;
    while world.pass(LEASE_MS / 2).await.expired == 0 {
        worker.poll_without_beats(&world.engine).await;
    }
    let kept_ms = world.clock.now().ms_since(hung_since);
    let stall_bound_ms = JobKind::Ingest.stall_bound_ms();
    assert!(kept_ms > stall_bound_ms, "not before the bound of the job's kind: {kept_ms} ms");
    assert!(kept_ms < stall_bound_ms + 3 * LEASE_MS, "but soon after the bound: {kept_ms} ms");
    worker.poll_without_beats(&world.engine).await;
    assert!(worker.request.leases.is_empty(), "the worker is told to stop");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_held_leaves_time_for_another_held_message() {
    let world = World::new().await;
    world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    let held_ms = LEASE_MS / 3;
    for age_ms in (0..LEASE_MS / 2).step_by(250) {
        world.clock.advance_ms(age_ms);
        worker.request.wait_ms = u32::try_from(held_ms).expect("seconds");
        let answer = worker.poll(&world.engine).await;
        let left_ms = u64::from(answer.leases[0].ttl_ms) - held_ms;
        assert!(left_ms > held_ms + LEASE_MS / 5, "{age_ms} ms after a renewal: {left_ms} ms are left");
    }
}

#[tokio::test]
async fn a_job_fails_as_poison_after_three_deaths_without_a_checkpoint_between_them() {
    let world = World::new().await;
    let poison = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    for _ in 0..3 {
        worker.start(&world.engine).await;
        worker.end(&world.engine, crash()).await;
        world.pass(2_000).await;
    }
    let job = world.job(&poison).await;
    assert_eq!(job.failure.expect("it failed").code(), ErrorCode::Poison);
    worker.poll(&world.engine).await;
    assert!(worker.request.leases.is_empty(), "there is no fourth attempt");

    let dataset = world.submit(ingest()).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"d")).await;
    assert_eq!(world.state(&dataset).await, JobState::Succeeded);
    let training = world.submit(finetune("stamps@1")).await;
    let submitted = world.job(&training).await.created_unix_ms;
    for attempt in 0..10_u8 {
        let assignment = worker.start(&world.engine).await;
        assert_eq!(assignment.submitted_unix_ms, submitted, "every attempt is told the same time");
        let newest = attempt.checked_sub(1).map(|last| sortinghat_proto::ObjectRef::of(&[last]).into());
        assert_eq!(assignment.checkpoint, newest, "the attempt goes on from the newest checkpoint");
        worker.request.leases[0].events = vec![checkpoint(1, &[attempt])];
        worker.end(&world.engine, crash()).await;
        world.pass(2_000).await;
    }
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    assert_eq!(world.state(&training).await, JobState::Succeeded);
}

#[tokio::test]
async fn no_lease_expires_while_the_object_store_is_unavailable() {
    let world = World::new().await;
    let ended = world.submit(ingest()).await;
    let running = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 2);
    worker.start(&world.engine).await;
    world.objects.away.store(true, Ordering::SeqCst);
    let lease = worker.request.leases.iter_mut().find(|lease| lease.task_id.starts_with(ended.as_str()));
    lease.expect("it runs both").outcome = Some(v1::TaskOutcome { outcome: Some(success(b"d")) });
    for _ in 0..6 {
        assert!(worker.poll(&world.engine).await.acknowledged.is_empty(), "the outcome cannot be committed yet");
        assert_eq!(world.pass(LEASE_MS / 2).await.expired, 0, "neither this lease nor the other one may expire");
    }
    world.objects.away.store(false, Ordering::SeqCst);
    assert_eq!(worker.poll(&world.engine).await.acknowledged.len(), 1);
    assert_eq!(world.state(&ended).await, JobState::Succeeded);
    assert_eq!(world.state(&running).await, JobState::Running);
}

#[tokio::test]
async fn no_lease_expires_within_the_grace_after_a_start_and_then_it_counts_as_infrastructure() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let clock = Arc::new(ManualClock::new(START));
    let world = World::embedded(&path, clock.clone());
    world.settle().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    drop(world);
    clock.advance_ms(LEASE_MS * 100);
    let world = World::embedded(&path, clock);
    assert_eq!(world.sweep().await.expired, 0, "the worker may still be alive");
    assert_eq!(world.pass(LEASE_MS).await.expired, 1);
    let job = world.job(&id).await;
    let failure = job.attempts[0].failure.clone().expect("it says why");
    assert_eq!(
        failure.code(),
        ErrorCode::StorageUnavailable,
        "the failure counts as infrastructure: {}",
        failure.message
    );
}

#[tokio::test]
async fn a_coordinator_that_restarts_goes_on_with_all_jobs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let clock = Arc::new(ManualClock::new(START));
    let world = World::embedded(&path, clock.clone());
    world.settle().await;
    let running = world.submit(ingest()).await;
    let blocked = world.submit(finetune(&format!("job:{running}"))).await;
    let mut worker = Worker::new("w1", 1);
    let assignment = worker.start(&world.engine).await;
    drop(world);

    let world = World::embedded(&path, clock.clone());
    clock.advance_ms(LEASE_MS * 2);
    world.sweep().await;
    worker.poll(&world.engine).await;
    assert_eq!(world.pass(LEASE_MS - 1).await.expired, 0, "the worker came back in time");
    assert_eq!(worker.request.leases[0].epoch, assignment.epoch, "it is still the same lease");
    worker.end(&world.engine, success(b"m")).await;
    drop(world);

    let world = World::embedded(&path, clock);
    assert_eq!(world.state(&running).await, JobState::Succeeded);
    world.sweep().await;
    let next = worker.start(&world.engine).await;
    assert_eq!(next.job_id, blocked.as_str(), "the child was told after the restart");
    assert_eq!(next.dataset_name, "stamps@1");
}

#[tokio::test]
async fn leases_expire_although_a_later_sweep_fails_again_and_again() {
    let world = World::new().await;
    world.submit(ingest()).await;
    Worker::new("dead", 1).start(&world.engine).await;
    let unreadable = JobId::new(1, 1).to_string();
    world.plant(&format!("remains:{unreadable}"), "unreadable", vec![("remains".into(), unreadable)]).await;
    for _ in 0..4 {
        let refusal = world.engine.sweep().await.expect_err("a record is unreadable");
        assert_eq!(refusal.code(), ErrorCode::Internal);
        world.clock.advance_ms(LEASE_MS);
    }
    assert_eq!(Worker::new("other", 1).start(&world.engine).await.attempt, 2);
}
