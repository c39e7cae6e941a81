//! Sweeps that run in the background, one round after the other.

use std::time::Duration;

use sortinghat_coordinator::engine::Settings;
use sortinghat_proto::v1::{self, JobState};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::{LEASE_MS, Worker, World, finetune, ingest, request, settings, success};

const PAUSE: Duration = Duration::from_secs(3_600);

/// A world whose sweeps pause so long that every pause shows.
async fn world() -> World {
    World::with(Settings { sweep_ms: PAUSE.as_millis() as u64, ..settings() }).await
}

/// How often the sweeps pause until an index is empty.
async fn pauses_until_empty(world: &World, index: &str) -> u64 {
    assert!(!world.index(index).await.is_empty());
    let stop = CancellationToken::new();
    let (engine, stopped) = (world.engine.clone(), stop.clone());
    let began = Instant::now();
    let sweeps = tokio::spawn(async move { engine.run(stopped).await });
    while !world.index(index).await.is_empty() {
        tokio::time::sleep(PAUSE / 60).await;
    }
    let pauses = began.elapsed().as_secs() / PAUSE.as_secs();
    stop.cancel();
    sweeps.await.expect("they end when they are told to");
    pauses
}

#[tokio::test(start_paused = true)]
async fn many_children_are_told_without_a_pause() {
    let world = world().await;
    let parent = world.submit(ingest()).await;
    world.submit_many(&world.tenant, &request(finetune(&format!("job:{parent}"))), 300).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"dataset")).await;
    assert_eq!(
        pauses_until_empty(&world, &format!("children:{parent}")).await,
        1,
        "only the pause before the first round"
    );
}

#[tokio::test(start_paused = true)]
async fn many_jobs_whose_start_time_has_come_are_released_without_a_pause() {
    let world = world().await;
    let not_before_unix_ms = world.now().plus_ms(1).to_wire();
    let timed = v1::SubmitJobRequest { not_before_unix_ms, ..request(ingest()) };
    world.submit_many(&world.tenant, &timed, 1_200).await;
    world.clock.advance_ms(1);
    assert_eq!(pauses_until_empty(&world, "delayed").await, 1, "only the pause before the first round");
}

#[tokio::test(start_paused = true)]
async fn a_bulk_cancellation_passes_jobs_that_do_not_match_without_a_pause() {
    let world = world().await;
    world.submit_many(&world.tenant, &request(ingest()), 900).await;
    let named = v1::CancelJobsRequest { kind: "finetune".into(), ..Default::default() };
    world.engine.cancel_many(&world.tenant, named).await.expect("a valid filter");
    assert_eq!(pauses_until_empty(&world, "cancelling").await, 1, "only the pause before the first round");
}

#[tokio::test]
async fn an_unreadable_lease_does_not_stop_the_other_sweeps() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let unreadable = world.submit(ingest()).await;
    worker.start(&world.engine).await;
    world.spoil(&format!("job:{unreadable}")).await;
    let not_before_unix_ms = world.now().plus_ms(1).to_wire();
    world.accept(v1::SubmitJobRequest { not_before_unix_ms, ..request(ingest()) }).await.expect("accepted");
    assert_eq!(world.index("delayed").await.len(), 1);
    world.clock.advance_ms(LEASE_MS + 1);
    let refusal = world.engine.sweep().await.expect_err("a record is unreadable");
    assert!(refusal.to_string().contains("cannot be read"), "{refusal:?}");
    assert!(world.index("delayed").await.is_empty(), "the delayed job was released");
}

#[tokio::test]
async fn an_unreadable_lease_does_not_stop_other_leases_from_expiring() {
    let world = World::new().await;
    let (unreadable, lost) = (world.submit(ingest()).await, world.submit(ingest()).await);
    Worker::new("w1", 1).start(&world.engine).await;
    Worker::new("w2", 1).start(&world.engine).await;
    world.spoil(&format!("job:{unreadable}")).await;
    world.clock.advance_ms(LEASE_MS + 1);
    let refusal = world.engine.sweep().await.expect_err("a record is unreadable");
    assert!(refusal.to_string().contains("cannot be read"), "{refusal:?}");
    assert_eq!(world.state(&lost).await, JobState::Queued);
}
