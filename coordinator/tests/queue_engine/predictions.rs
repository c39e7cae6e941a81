//! The predictions of a classify are told part by part while it runs, and stay however it ends.

use futures::{Stream, StreamExt as _};
use sortinghat_coordinator::engine::{EngineError, PredictionsStream};
use sortinghat_proto::{
    JobId, ObjectRef, Refusal, Tenant,
    limits::DEFAULT_SHARD_ITEMS,
    v1::{self, ErrorCode, FailureClass, JobState, job_spec::Kind, part::Part, watch_predictions_response::Update},
};

use crate::{
    retries::failed,
    shards::{count, part, tasks},
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

/// Counts the photos of a retry, as its first task does.
async fn retry(world: &World, id: &JobId) -> JobId {
    let again = v1::RetryJobRequest { job_id: id.to_string(), ..Default::default() };
    let retried = world.engine.retry(&world.tenant, again).await.expect("it did not succeed").job.expect("a job");
    count(world, &mut Worker::new(&format!("counts-{}", retried.id), 1), 3).await;
    retried.id.parse().expect("a job id")
}

/// The objects that the finish of a job joins.
fn joined(assignment: &v1::Assignment) -> Vec<v1::ObjectRef> {
    match part(assignment) {
        Part::Finish(finish) => finish.shards.clone(),
        other => panic!("{other:?} is not the finish"),
    }
}

#[tokio::test]
async fn a_retry_computes_only_the_parts_that_its_job_had_not_finished() {
    let world = World::new().await;
    let (old, mut workers) = divided(&world).await;
    end(&world, &mut workers[0]).await;
    end(&world, &mut workers[2]).await;
    world.engine.cancel(&world.tenant, &old).await.expect("it exists");
    workers[1].end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    world.sweep().await;

    let new = retry(&world, &old).await;
    assert_eq!(tasks(&world.job(&new).await).succeeded, 2, "they are there from the beginning");
    assert_eq!(told(&mut watch(&world, &new, 0, true).await).await, (vec![0], None), "and so are their predictions");
    let mut worker = Worker::new("new", 3);
    worker.poll(&world.engine).await;
    let shards: Vec<&v1::Assignment> = worker.request.leases.iter().map(|lease| worker.assignment(lease)).collect();
    assert!(matches!(shards[..], [one] if one.task_id == format!("{new}.2")), "only one is computed: {shards:?}");
    end(&world, &mut worker).await;
    let made = |task: String| v1::ObjectRef::from(ObjectRef::of(task.as_bytes()));
    let all = [format!("{old}.1"), format!("{new}.2"), format!("{old}.3")].map(made);
    let mut finish = Worker::new("finish", 1);
    assert_eq!(joined(&finish.start(&world.engine).await), all, "in their order");

    // The last task fails, so that the next retry has nothing to compute but that.
    finish.end(&world.engine, failed()).await;
    let newest = retry(&world, &new).await;
    assert_eq!(joined(&finish.start(&world.engine).await), all);
    finish.end(&world.engine, success(b"joined")).await;
    let job = world.job(&newest).await;
    assert_eq!((job.state(), tasks(&job).succeeded, job.attempts.len()), (JobState::Succeeded, 3, 2));
    let history = world.history(&newest).await;
    let notices = history.iter().filter(|event| matches!(event.event, Some(v1::job_event::Event::Notice(_)))).count();
    assert_eq!(notices, 1, "the user is told");
}

#[tokio::test]
async fn a_retry_takes_nothing_over_from_a_job_that_lost_an_object_or_was_deleted() {
    for is_deleted in [true, false] {
        let world = World::new().await;
        let (old, mut workers) = divided(&world).await;
        end(&world, &mut workers[0]).await;
        let lost = v1::Failure {
            failure_class: FailureClass::User.into(),
            code: if is_deleted { ErrorCode::UnusableData } else { ErrorCode::CorruptObject }.into(),
            ..Default::default()
        };
        workers[1].end(&world.engine, v1::task_outcome::Outcome::Failed(lost)).await;
        workers[2].end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
        world.sweep().await;
        let again = v1::RetryJobRequest { job_id: old.to_string(), ..Default::default() };
        let new = world.engine.retry(&world.tenant, again).await.expect("it has failed").job.expect("a job").id;
        if is_deleted {
            world.engine.delete_job(&world.tenant, &old).await.expect("it has ended");
        }
        count(&world, &mut Worker::new("counter", 1), 3).await;
        assert_eq!(tasks(&world.job(&new.parse().expect("an id")).await).succeeded, 0, "deleted: {is_deleted}");
    }
}
