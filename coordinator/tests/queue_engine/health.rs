//! Workers that cannot work: they get no task, and a job that waits or runs says so. What one worker does not find, the coordinator looks
//! for, too.

use std::sync::atomic::Ordering;

use sortinghat_coordinator::auth::Sight;
use sortinghat_proto::{
    Digest, JobId,
    v1::{
        self, AttemptOutcome, ErrorCode, FailureClass, JobState, explain_job_response::Reason, task_outcome::Outcome,
    },
};

use crate::world::{Worker, World, ingest};

const TROUBLE: &str = "the object store refuses access";

fn set_able(worker: &mut Worker, is_able: bool) {
    let reason = if is_able { "" } else { TROUBLE };
    worker.request.health = Some(v1::WorkerHealth { is_able, reason: reason.into(), detail: reason.into() });
}

async fn explain(world: &World, job: &JobId) -> (Reason, String) {
    let explained = world.engine.explain(&world.tenant, job, Sight::Everything).await.expect("the job exists");
    (explained.reason.expect("there always is a reason"), explained.sentence)
}

#[tokio::test]
async fn a_worker_that_cannot_work_is_given_nothing_and_the_job_that_waits_says_why() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    set_able(&mut worker, false);
    worker.poll(&world.engine).await;
    assert!(worker.assignments.is_empty(), "even though it says that it has a free slot");
    let (reason, sentence) = explain(&world, &id).await;
    let Reason::NoAbleWorker(waits) = reason else { panic!("{reason:?}") };
    assert_eq!((waits.workers[0].host.as_str(), waits.workers[0].reason.as_str()), ("w1-host", TROUBLE));
    assert!(sentence.contains("w1-host") && sentence.contains(TROUBLE), "{sentence}");
    let listed = world.engine.list_workers().await.expect("listed");
    assert_eq!(listed[0].0.health.as_ref().map(|health| health.reason.as_str()), Some(TROUBLE));

    set_able(&mut worker, true);
    worker.start(&world.engine).await;
    assert_eq!(world.state(&id).await, JobState::Running);
}

#[tokio::test]
async fn a_running_job_says_that_its_worker_cannot_work_now() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    set_able(&mut worker, false);
    worker.poll(&world.engine).await;
    let (reason, sentence) = explain(&world, &id).await;
    assert!(matches!(reason, Reason::Runs(runs) if runs.trouble == TROUBLE));
    assert!(sentence.contains(TROUBLE), "{sentence}");
}

/// A worker does not find an object, or finds it damaged.
fn not_found() -> Outcome {
    Outcome::Failed(v1::Failure {
        failure_class: FailureClass::User.into(),
        code: ErrorCode::CorruptObject.into(),
        message: "object is not in the object store".into(),
        field: Digest::of(b"photo").to_string(),
    })
}

#[tokio::test]
async fn what_one_worker_does_not_find_is_tried_again_if_the_coordinator_can_read_it() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, not_found()).await;
    assert_eq!(world.state(&id).await, JobState::Queued);
    let job = world.engine.get(&world.tenant, &id).await.expect("it exists");
    let failure = job.attempts[0].failure.clone().expect("it says why");
    assert_eq!(
        (job.attempts[0].outcome(), failure.failure_class()),
        (AttemptOutcome::Failed, FailureClass::Infrastructure)
    );
    assert!(failure.message.contains("the coordinator can read"), "{}", failure.message);
}

#[tokio::test]
async fn what_the_coordinator_cannot_read_either_fails_the_job() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    world.objects.lost.store(true, Ordering::SeqCst);
    worker.end(&world.engine, not_found()).await;
    assert_eq!(world.state(&id).await, JobState::Failed);
}

#[tokio::test]
async fn while_the_coordinator_cannot_look_nobody_is_blamed() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    world.objects.away.store(true, Ordering::SeqCst);
    worker.end(&world.engine, not_found()).await;
    assert_eq!(world.state(&id).await, JobState::Running, "the worker repeats its report");
    world.objects.away.store(false, Ordering::SeqCst);
    worker.poll(&world.engine).await;
    assert_eq!(world.state(&id).await, JobState::Queued);
}
