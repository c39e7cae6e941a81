//! The predictions of a classify are told part by part while it runs, and stay however it ends.

use futures::{Stream, StreamExt as _};
use sortinghat_coordinator::engine::{EngineError, PredictionsStream};
use sortinghat_proto::{
    JobId, ObjectRef, Refusal, Tenant,
    limits::DEFAULT_SHARD_ITEMS,
    v1::{self, ErrorCode, JobState, job_spec::Kind, watch_predictions_response::Update},
};

use crate::{
    shards::count,
    world::{Worker, World, finetune, ingest, success},
};

/// A classify that is divided into three shards, and a worker for each of them.
async fn divided(world: &World) -> (JobId, Vec<Worker>) {
    let mut worker = Worker::new("first", 1);
    for kind in [ingest(), finetune("stamps")] {
        world.submit(kind).await;
        worker.start(&world.engine).await;
        worker.end(&world.engine, success(b"made")).await;
    }
    let source = Some(ObjectRef::of(b"upload").into());
    let id =
        world.submit(Kind::Classify(v1::ClassifySpec { model: "stamps".into(), source, ..Default::default() })).await;
    count(world, &mut worker, 3).await;
    let mut workers = Vec::new();
    for number in 0..3 {
        let mut worker = Worker::new(&format!("w{number}"), 1);
        worker.start(&world.engine).await;
        workers.push(worker);
    }
    (id, workers)
}

/// Lets a worker end its shard.
async fn end(world: &World, worker: &mut Worker) {
    worker.request.free_slots = 0;
    let made = worker.request.leases[0].task_id.clone();
    worker.request.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(success(made.as_bytes())) });
    worker.poll_without_beats(&world.engine).await;
    world.sweep().await;
}

async fn watch(world: &World, id: &JobId, first_row: u64, in_order: bool) -> PredictionsStream {
    let request = v1::WatchPredictionsRequest { job_id: id.to_string(), first_row, in_order };
    world.engine.watch_predictions(&world.tenant, request).await.expect("a classify")
}

/// The numbers of the first photos of the parts that have come, in shards, up to the next keepalive, and the state in which the job has
/// ended, if it has.
async fn told(
    stream: &mut (impl Stream<Item = Result<v1::WatchPredictionsResponse, EngineError>> + Unpin),
) -> (Vec<u64>, Option<JobState>) {
    let mut parts = Vec::new();
    while let Some(response) = stream.next().await {
        match response.expect("the store answers").update.expect("an update") {
            Update::Part(part) => parts.push(part.first_row / DEFAULT_SHARD_ITEMS),
            Update::Keepalive(_) => return (parts, None),
            Update::Ended(ended) => return (parts, Some(ended.state())),
        }
    }
    (parts, None)
}

#[tokio::test]
async fn parts_are_told_as_they_are_committed_or_in_their_order() {
    let world = World::new().await;
    let (id, mut workers) = divided(&world).await;
    let (mut as_they_come, mut in_order) = (watch(&world, &id, 0, false).await, watch(&world, &id, 0, true).await);
    let mut late = watch(&world, &id, DEFAULT_SHARD_ITEMS, true).await;
    assert_eq!(told(&mut as_they_come).await, (vec![], None), "there is nothing yet, which is said at once");

    end(&world, &mut workers[1]).await;
    assert_eq!(told(&mut as_they_come).await, (vec![1], None));
    assert_eq!(told(&mut in_order).await, (vec![], None), "the first part is missing");
    assert_eq!(told(&mut late).await, (vec![1], None), "this watcher has the first part already");
    end(&world, &mut workers[0]).await;
    assert_eq!(told(&mut as_they_come).await, (vec![0], None));
    assert_eq!(told(&mut in_order).await, (vec![0, 1], None));
    end(&world, &mut workers[2]).await;

    let mut finish = Worker::new("last", 1);
    finish.start(&world.engine).await;
    finish.end(&world.engine, success(b"joined")).await;
    for stream in [&mut as_they_come, &mut in_order, &mut late] {
        assert_eq!(told(stream).await, (vec![2], Some(JobState::Succeeded)));
        assert!(stream.next().await.is_none());
    }
    let mut afterwards = watch(&world, &id, 7, true).await;
    let first = afterwards.next().await.expect("a message").expect("the store answers");
    let whole = v1::PredictionsPart { first_row: 0, predictions: Some(ObjectRef::of(b"joined").into()) };
    assert_eq!(first.update, Some(Update::Part(whole)), "the output has everything");
    assert_eq!(told(&mut afterwards).await, (vec![], Some(JobState::Succeeded)));
}

#[tokio::test]
async fn what_was_predicted_stays_after_a_cancel_also_for_those_who_read_in_order() {
    let world = World::new().await;
    let (id, mut workers) = divided(&world).await;
    end(&world, &mut workers[0]).await;
    end(&world, &mut workers[2]).await;
    let mut open = watch(&world, &id, 0, true).await;
    assert_eq!(told(&mut open).await, (vec![0], None));
    world.engine.cancel(&world.tenant, &id).await.expect("it exists");
    workers[1].end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    world.sweep().await;
    assert_eq!(told(&mut open).await, (vec![2], Some(JobState::Cancelled)), "the part between them will never come");
    for in_order in [false, true] {
        let mut later = watch(&world, &id, 0, in_order).await;
        assert_eq!(told(&mut later).await, (vec![0, 2], Some(JobState::Cancelled)));
    }
}

#[tokio::test]
async fn a_job_that_predicts_nothing_is_refused_and_that_of_another_tenant_is_not_there() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let request = v1::WatchPredictionsRequest { job_id: id.to_string(), ..Default::default() };
    let code = |watched: Result<PredictionsStream, EngineError>| Refusal::from(watched.err().expect("refused")).code;
    let own = world.engine.watch_predictions(&world.tenant, request.clone()).await;
    assert_eq!(code(own), ErrorCode::InvalidArgument);
    let stranger: Tenant = "stranger".parse().expect("a tenant");
    assert_eq!(code(world.engine.watch_predictions(&stranger, request).await), ErrorCode::NotFound);
}
