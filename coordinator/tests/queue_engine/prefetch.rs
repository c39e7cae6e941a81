//! Prefetch: the records for a worker's next message are read before the message arrives.

use std::time::Duration;

use sortinghat_coordinator::engine::Settings;
use sortinghat_proto::v1::{self, JobState, SynchronizeResponse};
use tokio::{task::yield_now, time::advance};

use crate::world::{LEASE_MS, Worker, World, ingest, request, settings, success};

/// A world that prefetches, and a worker that has ended one task and was given the next.
async fn busy(jobs: usize) -> (World, Worker) {
    let world = World::with(Settings { reads_ahead: true, ..settings() }).await;
    for _ in 0..jobs {
        world.submit(ingest()).await;
        // Jobs of the same millisecond have no order.
        world.clock.advance_ms(1);
    }
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    end(&world, &mut worker).await;
    // Let the prefetch finish.
    for _ in 0..10 {
        yield_now().await;
    }
    (world, worker)
}

/// Ends the task that the worker runs, with a slot for the next.
async fn end(world: &World, worker: &mut Worker) -> SynchronizeResponse {
    worker.request.free_slots = 1;
    worker.end(&world.engine, success(b"dataset")).await
}

/// The job that the worker runs.
fn running(worker: &Worker) -> String {
    let lease = worker.request.leases.last().expect("it runs a task");
    worker.assignment(lease).job_id.clone()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_follows_at_once_is_given_the_prefetched_task() {
    let (world, mut worker) = busy(4).await;
    let urgent = v1::SubmitJobRequest { priority: 5, ..request(ingest()) };
    let urgent = world.accept(urgent).await.expect("accepted").id;
    assert_eq!(end(&world, &mut worker).await.acknowledged.len(), 1);
    assert_ne!(running(&worker), urgent, "the prefetch was made before the urgent job was submitted");
    assert_eq!(end(&world, &mut worker).await.acknowledged.len(), 1);
    assert_eq!(running(&worker), urgent);
}

#[tokio::test(start_paused = true)]
async fn the_prefetch_is_not_used_for_a_message_that_comes_late() {
    let (world, mut worker) = busy(4).await;
    let urgent = v1::SubmitJobRequest { priority: 5, ..request(ingest()) };
    let urgent = world.accept(urgent).await.expect("accepted").id;
    advance(Duration::from_millis(21)).await;
    end(&world, &mut worker).await;
    assert_eq!(running(&worker), urgent);
}

#[tokio::test(start_paused = true)]
async fn no_slot_stays_empty_when_a_job_is_submitted_after_a_prefetch_without_tasks() {
    let (world, mut worker) = busy(2).await;
    let last = world.submit(ingest()).await;
    end(&world, &mut worker).await;
    assert_eq!(running(&worker), last.as_str());
}

#[tokio::test(start_paused = true)]
async fn a_change_after_the_prefetch_is_noticed() {
    let (world, mut worker) = busy(2).await;
    let lost = running(&worker);
    world.pass(2 * LEASE_MS).await;
    // The task is tried again after a backoff.
    world.pass(2 * LEASE_MS).await;
    let mut other = Worker::new("w2", 1);
    assert_eq!(other.start(&world.engine).await.job_id, lost);
    let answer = end(&world, &mut worker).await;
    assert_eq!(answer.acknowledged.len(), 1, "the late worker need not report it again");
    let job = world.job(&lost.parse().expect("a job id")).await;
    assert_eq!(job.state(), JobState::Running, "an outcome without a lease changes nothing");
    end(&world, &mut other).await;
    let job = world.job(&lost.parse().expect("a job id")).await;
    assert_eq!((job.state(), job.attempts.len()), (JobState::Succeeded, 2));
}
