//! Resubmitting a failed or cancelled job as a new job.

use sortinghat_proto::{
    JobId, Refusal,
    v1::{self, ErrorCode, FailureClass, JobState, task_outcome::Outcome},
};

use crate::{
    shards::{divide, part},
    world::{Worker, World, checkpoint, finetune, ingest, request, success},
};

pub(crate) fn failed() -> Outcome {
    Outcome::Failed(v1::Failure {
        failure_class: FailureClass::User.into(),
        code: ErrorCode::UnusableData.into(),
        ..v1::Failure::default()
    })
}

async fn retry(world: &World, id: &JobId, key: &str) -> Result<v1::Job, Refusal> {
    let request = v1::RetryJobRequest { job_id: id.to_string(), idempotency_key: key.into() };
    Ok(world.engine.retry(&world.tenant, request).await?.job.expect("a job"))
}

fn id_of(job: &v1::Job) -> JobId {
    job.id.parse().expect("a job id")
}

#[tokio::test]
async fn a_failed_job_is_resubmitted_as_a_new_job_that_refers_to_the_old_one() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let old = world.submit(ingest()).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, failed()).await;
    let new = retry(&world, &old, "").await.expect("it has failed");
    assert_eq!((new.state(), new.retry_of.as_str()), (JobState::Queued, old.as_str()));
    assert_eq!(new.spec, world.job(&old).await.spec);
    assert_eq!(worker.start(&world.engine).await.job_id, new.id);
    worker.end(&world.engine, success(b"m")).await;
    assert_eq!(world.state(&id_of(&new)).await, JobState::Succeeded);
    assert_eq!(world.state(&old).await, JobState::Failed, "the old job does not change");
}

#[tokio::test]
async fn only_a_failed_or_cancelled_job_can_be_retried() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    assert_eq!(retry(&world, &id, "").await.expect_err("the job waits").code, ErrorCode::WrongState);
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    assert_eq!(retry(&world, &id, "").await.expect_err("the job runs").code, ErrorCode::WrongState);
    worker.end(&world.engine, success(b"m")).await;
    assert_eq!(retry(&world, &id, "").await.expect_err("it succeeded").code, ErrorCode::WrongState);
}

#[tokio::test]
async fn a_retry_with_the_same_key_is_the_same_job() {
    let world = World::new().await;
    let old = world.submit(ingest()).await;
    world.engine.cancel(&world.tenant, &old).await.expect("it waits");
    let first = retry(&world, &old, "again").await.expect("it was cancelled");
    assert_eq!(retry(&world, &old, "again").await.expect("the same job").id, first.id);
    assert_ne!(retry(&world, &old, "").await.expect("another job").id, first.id);
}

#[tokio::test]
async fn a_retry_goes_on_from_the_checkpoint_and_reads_the_same_version() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    world.submit(ingest()).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"first")).await;
    let old = world.submit(finetune("stamps")).await;
    worker.start(&world.engine).await;
    worker.request.leases[0].events = vec![checkpoint(1, b"epoch 3")];
    worker.end(&world.engine, failed()).await;
    world.engine.delete_dataset(&world.tenant, "stamps@1").await.expect("it exists");
    retry(&world, &old, "").await.expect("it has failed");
    let assignment = worker.start(&world.engine).await;
    assert_eq!(assignment.checkpoint, Some(sortinghat_proto::ObjectRef::of(b"epoch 3").into()));
    assert_eq!(assignment.dataset, Some(sortinghat_proto::ObjectRef::of(b"first").into()));
}

#[tokio::test]
async fn a_child_is_retried_after_its_parent_and_waits_for_the_retry() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let parent = world.submit(ingest()).await;
    let child = world.submit(finetune(&format!("job:{parent}"))).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, failed()).await;
    world.sweep().await;
    let too_early = retry(&world, &child, "").await.expect_err("its parent has failed");
    assert!(too_early.code == ErrorCode::WrongState && too_early.message.contains(parent.as_str()), "{too_early}");
    let new_parent = retry(&world, &parent, "").await.expect("it has failed");
    let new_child = retry(&world, &child, "").await.expect("its parent is on its way");
    assert_eq!((new_child.state(), new_child.parents), (JobState::Blocked, vec![new_parent.id.clone()]));
    assert_eq!(worker.start(&world.engine).await.job_id, new_parent.id);
    worker.end(&world.engine, success(b"dataset")).await;
    world.sweep().await;
    let assignment = worker.start(&world.engine).await;
    assert_eq!(assignment.job_id, new_child.id);
    assert_eq!(assignment.dataset, Some(sortinghat_proto::ObjectRef::of(b"dataset").into()));
    let Some(v1::job_spec::Kind::Finetune(spec)) = new_child.spec.expect("a spec").kind else { panic!("no finetune") };
    assert_eq!(spec.dataset, format!("job:{}", new_parent.id));
}

#[tokio::test]
async fn a_divided_job_is_retried_from_its_beginning() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let old = divide(&world, &mut worker, 3).await;
    world.engine.cancel(&world.tenant, &old).await.expect("it exists");
    let new = retry(&world, &old, "").await.expect("it was cancelled");
    let assignment = worker.start(&world.engine).await;
    assert_eq!((assignment.job_id.as_str(), new.tasks), (new.id.as_str(), None));
    assert!(matches!(part(&assignment), v1::part::Part::Whole(_)), "the items are counted again");
}

#[tokio::test]
async fn parents_that_have_the_same_newest_retry_become_one_parent() {
    let world = World::new().await;
    let parent = world.submit(ingest()).await;
    world.engine.cancel(&world.tenant, &parent).await.expect("it waits");
    let again = retry(&world, &parent, "").await.expect("it was cancelled");
    let parents = vec![parent.to_string(), again.id.clone()];
    let child = v1::SubmitJobRequest { parents, ..request(ingest()) };
    let child = id_of(&world.accept(child).await.expect("accepted"));
    world.engine.cancel(&world.tenant, &child).await.expect("it waits");
    assert_eq!(retry(&world, &child, "").await.expect("it was cancelled").parents, [again.id]);
}
