//! Retention: when jobs are forgotten, and which jobs are kept because they are still needed.

use sortinghat_coordinator::engine::Settings;
use sortinghat_proto::{
    JobId, Tenant,
    v1::{self, ErrorCode, JobState},
};

use crate::{
    shards::divide,
    world::{Worker, World, crash, evaluate, finetune, ingest, log, request, settings, success},
};

const KEPT_MS: u64 = 1_000_000;

async fn world() -> World {
    World::with(Settings { retention_ms: KEPT_MS, ..settings() }).await
}

/// Lets a job run until it succeeds.
async fn run(world: &World, worker: &mut Worker, manifest: &[u8]) {
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(manifest)).await;
}

#[tokio::test]
async fn an_unreadable_job_does_not_prevent_other_jobs_from_being_forgotten() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let (unreadable, old) = (world.submit(ingest()).await, world.submit(ingest()).await);
    run(&world, &mut worker, b"a").await;
    run(&world, &mut worker, b"b").await;
    world.spoil(&format!("job:{unreadable}")).await;
    world.clock.advance_ms(KEPT_MS);
    world.engine.sweep().await.expect_err("a record is unreadable");
    assert!(!world.holds(&format!("job:{old}")).await);
    assert!(world.holds(&format!("job:{unreadable}")).await, "an unreadable job must not be lost");
}

#[tokio::test]
async fn a_job_is_forgotten_with_its_history_and_its_key_and_its_output_is_kept() {
    let world = world().await;
    let keyed = v1::SubmitJobRequest { idempotency_key: "nightly".into(), ..request(ingest()) };
    let id = world.accept(keyed.clone()).await.expect("accepted").id.parse().expect("a job id");
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    for round in 0..20 {
        worker.request.leases[0].events = (1..=100).map(|n| log(round * 100 + n, "a line")).collect();
        worker.poll(&world.engine).await;
    }
    worker.end(&world.engine, success(b"m")).await;
    let pages = async || {
        let mut held = 0;
        for last in 1..=2_100 {
            held += usize::from(world.holds(&format!("history:{id}:{last:012}")).await);
        }
        held
    };
    let all = pages().await;
    assert_eq!(world.pass(KEPT_MS - 1).await.forgotten, 0);
    assert_eq!(world.pass(1).await.forgotten, 1);
    assert_eq!(world.engine.get(&world.tenant, &id).await.expect_err("forgotten").code(), ErrorCode::NotFound);
    let page = world.engine.list(&world.tenant, v1::ListJobsRequest::default()).await.expect("a page");
    assert!(page.jobs.is_empty());
    assert!((1..all).contains(&pages().await), "the pages are removed in steps");
    while world.sweep().await.removed > 0 {}
    assert_eq!(pages().await, 0);
    assert_ne!(world.accept(keyed).await.expect("a new job").id, id.to_string(), "the key is free");
    world.engine.get_dataset(&world.tenant, "stamps@1").await.expect("a name outlives its job");
    let queue = world.engine.queue(&world.tenant).await.expect("it answers");
    assert!(queue.counts.iter().all(|count| count.state() != JobState::Succeeded), "{queue:?}");
}

#[tokio::test]
async fn a_job_without_unusual_events_is_one_record_and_is_forgotten_in_one_step() {
    let world = world().await;
    world.submit(ingest()).await;
    run(&world, &mut Worker::new("w1", 1), b"m").await;
    let swept = world.pass(KEPT_MS).await;
    assert_eq!((swept.forgotten, swept.removed), (1, 0), "nothing was left to remove");
}

#[tokio::test]
async fn a_child_has_taken_over_its_input_before_its_parent_is_forgotten() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let dataset = world.submit(ingest()).await;
    let model = world.submit(finetune(&format!("job:{dataset}"))).await;
    run(&world, &mut worker, b"dataset").await;
    assert_eq!(world.pass(0).await.told, 1);
    worker.request.free_slots = 0;
    world.engine.pause_queue(&world.tenant).await.expect("it answers");
    assert_eq!(world.pass(KEPT_MS).await.forgotten, 1);
    world.engine.resume_queue(&world.tenant).await.expect("it answers");
    worker.request.free_slots = 1;
    let assignment = worker.start(&world.engine).await;
    assert_eq!((assignment.job_id.as_str(), assignment.dataset_name.as_str()), (model.as_str(), "stamps@1"));
    assert_eq!(assignment.dataset, Some(sortinghat_proto::ObjectRef::of(b"dataset").into()));
}

#[tokio::test]
async fn a_parent_whose_children_were_not_told_is_kept_until_they_were() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let parent = world.submit(ingest()).await;
    for _ in 0..300 {
        world.submit(finetune(&format!("job:{parent}"))).await;
    }
    run(&world, &mut worker, b"dataset").await;
    world.engine.pause_queue(&world.tenant).await.expect("it answers");
    assert_eq!(world.pass(KEPT_MS).await.forgotten, 0, "the first round tells only a part of the children");
    while world.sweep().await.told > 0 {}
    assert!(world.engine.get(&world.tenant, &parent).await.is_err());
    let queued = v1::ListJobsRequest { states: vec![JobState::Queued.into()], page_size: 1000, ..Default::default() };
    assert_eq!(world.engine.list(&world.tenant, queued).await.expect("a page").jobs.len(), 300);
}

#[tokio::test]
async fn jobs_that_are_kept_do_not_hide_those_that_ended_later() {
    let world = world().await;
    let collected: Tenant = "collected".parse().expect("a tenant");
    world.submit_many(&collected, &request(ingest()), 100).await;
    let all = world.engine.list(&collected, v1::ListJobsRequest { page_size: 1000, ..Default::default() }).await;
    for job in all.expect("a page").jobs {
        world.engine.cancel(&collected, &job.id.parse().expect("an id")).await.expect("it exists");
    }
    world.clock.advance_ms(1);
    let later = world.submit(ingest()).await;
    world.engine.cancel(&world.tenant, &later).await.expect("it exists");
    let pass_without_end =
        r#"{"v":2,"record":{"stage":{"busy":{"pass":1,"until":9000000000000000,"condemned":[]}},"last_removal":0}}"#;
    world.plant("collection:collected", pass_without_end, Vec::new()).await;
    assert_eq!(world.pass(KEPT_MS).await.forgotten, 0, "the first round sees only jobs that are kept");
    assert_eq!(world.sweep().await.forgotten, 1);
    assert!(world.engine.get(&world.tenant, &later).await.is_err());
}

#[tokio::test]
async fn a_forgotten_job_cannot_become_a_parent() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let dataset = world.submit(ingest()).await;
    run(&world, &mut worker, b"dataset").await;
    let model = world.submit(finetune(&format!("job:{dataset}"))).await;
    run(&world, &mut worker, b"model").await;
    world.pass(KEPT_MS).await;
    let refused = world.accept(request(evaluate(&format!("job:{model}")))).await.expect_err("forgotten");
    assert_eq!(refused.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_forgotten_divided_job_leaves_no_record() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let done = divide(&world, &mut worker, 1).await;
    run(&world, &mut worker, b"shard").await;
    run(&world, &mut worker, b"dataset").await;
    let stopped = divide(&world, &mut worker, 600).await;
    for _ in 0..3 {
        worker.start(&world.engine).await;
        worker.end(&world.engine, crash()).await;
        world.pass(10_000).await;
    }
    world.engine.cancel(&world.tenant, &stopped).await.expect("it exists");
    assert!(world.holds(&format!("task:{stopped}.600")).await && world.holds(&format!("shards:{stopped}")).await);
    world.forget_everything(KEPT_MS).await;
    for id in [done, stopped] {
        for index in [0, 1, 2, 300, 600, 601] {
            assert!(!world.holds(&format!("task:{id}.{index}")).await, "task {index}");
        }
        assert!(!world.holds(&format!("shards:{id}")).await);
        assert!(!world.holds(&format!("remains:{id}")).await);
        for counter in ["Leased", "Succeeded", "Failed", "Cancelled", "ended", "items"] {
            assert_eq!(world.counter(&format!("shards:{id}:{counter}")).await, 0, "{counter}");
        }
    }
    for index in ["remains", "ended-jobs", "unsettled", "jobs:local", "open:local"] {
        assert_eq!(world.index(index).await, [""; 0], "{index}");
    }
}

#[tokio::test]
async fn a_job_that_has_run_can_be_retried_after_its_parents_were_forgotten() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let dataset = world.submit(ingest()).await;
    let model = world.submit(finetune(&format!("job:{dataset}"))).await;
    run(&world, &mut worker, b"dataset").await;
    world.sweep().await;
    world.clock.advance_ms(KEPT_MS / 2);
    worker.start(&world.engine).await;
    world.engine.cancel(&world.tenant, &model).await.expect("it runs");
    worker.end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    assert_eq!(world.pass(KEPT_MS / 2).await.forgotten, 1);
    assert!(world.engine.get(&world.tenant, &dataset).await.is_err(), "the parent is forgotten");
    let retry = async |id: &str| {
        let request = v1::RetryJobRequest { job_id: id.to_owned(), idempotency_key: String::new() };
        world.engine.retry(&world.tenant, request).await.map(|response| response.job.expect("a job"))
    };
    let again = retry(model.as_str()).await.expect("it was cancelled");
    let assignment = worker.start(&world.engine).await;
    assert_eq!((assignment.job_id, assignment.dataset_name.as_str()), (again.id, "stamps@1"));
}

#[tokio::test]
async fn a_child_that_was_forgotten_before_its_parent_ended_does_not_keep_its_parent() {
    let world = world().await;
    let parent = world.submit(ingest()).await;
    let child = world.submit(finetune(&format!("job:{parent}"))).await;
    world.engine.cancel(&world.tenant, &child).await.expect("it waits");
    assert_eq!(world.pass(KEPT_MS).await.forgotten, 1);
    assert_eq!(
        world.index(&format!("children:{parent}")).await,
        [""; 0],
        "the child is removed from its parent's list"
    );
    run(&world, &mut Worker::new("w1", 1), b"dataset").await;
    world.sweep().await;
    assert_eq!(world.index("ended-parents").await, [""; 0]);
    world.forget_everything(KEPT_MS).await;
    assert!(world.engine.get(&world.tenant, &parent).await.is_err());
}

#[tokio::test]
async fn forgotten_children_that_are_still_listed_are_removed_from_the_list() {
    let world = world().await;
    let parent = world.submit(ingest()).await;
    let child = world.submit(finetune(&format!("job:{parent}"))).await;
    let gone = |n| (format!("children:{parent}"), JobId::new(1, n).to_string());
    world.plant("probe", "", vec![gone(1), gone(2)]).await;
    run(&world, &mut Worker::new("w1", 1), b"dataset").await;
    assert_eq!(world.sweep().await.told, 1);
    assert_eq!(world.state(&child).await, JobState::Queued, "the existing child is told");
    world.sweep().await;
    assert_eq!(world.index("ended-parents").await, [""; 0]);
    world.forget_everything(KEPT_MS).await;
    assert!(world.engine.get(&world.tenant, &parent).await.is_err());
}
