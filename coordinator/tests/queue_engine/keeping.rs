//! Jobs are found by their labels, kept for as long as was asked, and deleted at their user's wish.

use sortinghat_coordinator::engine::Settings;
use sortinghat_proto::{
    JobId, Tenant,
    v1::{self, ErrorCode, JobState},
};

use crate::{
    shards::divide,
    world::{Worker, World, finetune, ingest, request, settings, success},
};

const KEPT_MS: u64 = 1_000_000;

async fn world() -> World {
    World::with(Settings { retention_ms: KEPT_MS, ..settings() }).await
}

fn labelled(labels: &[(&str, &str)]) -> v1::SubmitJobRequest {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    v1::SubmitJobRequest { labels, ..request(ingest()) }
}

async fn accept(world: &World, request: v1::SubmitJobRequest) -> JobId {
    world.accept(request).await.expect("a valid job").id.parse().expect("a job id")
}

async fn list(world: &World, request: v1::ListJobsRequest) -> Vec<String> {
    let page = world.engine.list(&world.tenant, request).await.expect("a page");
    assert!(page.next_page_token.is_empty());
    page.jobs.into_iter().map(|job| job.id).collect()
}

fn with_label(name: &str, value: &str) -> v1::ListJobsRequest {
    v1::ListJobsRequest { labels: [(name.to_owned(), value.to_owned())].into(), ..Default::default() }
}

/// Lets the next job run until it succeeds.
async fn run(world: &World, worker: &mut Worker) {
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"made")).await;
}

#[tokio::test]
async fn jobs_are_found_by_their_labels_their_time_and_their_key() {
    let world = world().await;
    let first = accept(&world, labelled(&[("user", "42"), ("app", "shop")])).await;
    world.clock.advance_ms(10);
    let keyed = v1::SubmitJobRequest { idempotency_key: "nightly".into(), ..labelled(&[("user", "42")]) };
    let second = accept(&world, keyed.clone()).await;
    let other = accept(&world, labelled(&[("user", "421"), ("app", "shop")])).await;
    let [first, second, other] = [first, second, other].map(|id| id.to_string());
    assert_eq!(list(&world, with_label("user", "42")).await, [second.as_str(), &first], "the newest first");
    assert_eq!(list(&world, with_label("user", "4")).await, [""; 0]);
    let mut both = with_label("app", "shop");
    both.labels.insert("user".into(), "421".into());
    assert_eq!(list(&world, both).await, [other.as_str()]);
    assert_eq!(world.job(&first.parse().expect("an id")).await.labels["app"], "shop");

    let time = world.job(&first.parse().expect("an id")).await.created_unix_ms + 1;
    let since = v1::ListJobsRequest { created_from_unix_ms: time, ..with_label("user", "42") };
    assert_eq!(list(&world, since).await, [second.as_str()]);
    let before = v1::ListJobsRequest { created_before_unix_ms: time, ..Default::default() };
    assert_eq!(list(&world, before).await, [first.as_str()]);
    let by_key = v1::ListJobsRequest { idempotency_key: "nightly".into(), ..Default::default() };
    assert_eq!(list(&world, by_key.clone()).await, [second.as_str()]);
    let unlabelled = v1::ListJobsRequest { labels: with_label("user", "1").labels, ..by_key };
    assert_eq!(list(&world, unlabelled).await, [""; 0]);

    let relabelled = v1::SubmitJobRequest { labels: labelled(&[("user", "1")]).labels, ..keyed };
    let conflict = world.accept(relabelled).await.expect_err("another request under the same key");
    assert_eq!(conflict.code, ErrorCode::IdempotencyConflict);
}

#[tokio::test]
async fn a_retry_has_the_labels_and_the_retention_of_its_job() {
    let world = world().await;
    let id = accept(&world, v1::SubmitJobRequest { keep_for_ms: 7, ..labelled(&[("user", "42")]) }).await;
    world.engine.cancel(&world.tenant, &id).await.expect("it exists");
    let again = v1::RetryJobRequest { job_id: id.to_string(), ..Default::default() };
    let retry = world.engine.retry(&world.tenant, again).await.expect("it was cancelled").job.expect("a job");
    assert_eq!((retry.labels["user"].as_str(), retry.keep_for_ms, retry.keep), ("42", 7, false));
    assert_eq!(list(&world, with_label("user", "42")).await, [retry.id, id.to_string()]);
}

#[tokio::test]
async fn a_job_is_kept_for_as_long_as_was_asked_or_until_it_is_deleted() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let keep = |keep_for_ms, keep| v1::SubmitJobRequest { keep_for_ms, keep, ..labelled(&[("user", "42")]) };
    let (short, usual) = (accept(&world, keep(KEPT_MS / 2, false)).await, accept(&world, keep(0, false)).await);
    let (long, kept) = (accept(&world, keep(KEPT_MS * 2, false)).await, accept(&world, keep(0, true)).await);
    for _ in 0..4 {
        run(&world, &mut worker).await;
    }
    let left = async |jobs: &[&JobId]| {
        let mut ids: Vec<String> = jobs.iter().map(ToString::to_string).collect();
        ids.reverse();
        assert_eq!(list(&world, with_label("user", "42")).await, ids);
    };
    assert_eq!(world.pass(KEPT_MS / 2 - 1).await.forgotten, 0);
    left(&[&short, &usual, &long, &kept]).await;
    assert_eq!(world.pass(1).await.forgotten, 1);
    left(&[&usual, &long, &kept]).await;
    world.pass(KEPT_MS / 2).await;
    left(&[&long, &kept]).await;
    world.pass(KEPT_MS).await;
    world.pass(100 * KEPT_MS).await;
    left(&[&kept]).await;
    world.engine.delete_job(&world.tenant, &kept).await.expect("it has ended");
    left(&[]).await;
    assert_eq!(world.index("labelled:local:user=42").await, [""; 0], "nothing of it stays");
    assert_eq!(world.index("expiring-jobs").await, [""; 0]);
}

#[tokio::test]
async fn a_deleted_job_is_gone_with_its_key_and_its_records_and_what_it_made_stays() {
    let world = world().await;
    let keyed = v1::SubmitJobRequest { idempotency_key: "nightly".into(), ..labelled(&[("user", "42")]) };
    let id = accept(&world, keyed.clone()).await;
    let stranger: Tenant = "stranger".parse().expect("a tenant");
    let code = async |tenant: &Tenant| world.engine.delete_job(tenant, &id).await.expect_err("refused").code();
    assert_eq!(code(&stranger).await, ErrorCode::NotFound);
    assert_eq!(code(&world.tenant).await, ErrorCode::WrongState);
    run(&world, &mut Worker::new("w1", 1)).await;
    assert_eq!(code(&stranger).await, ErrorCode::NotFound, "also when it has ended");
    world.engine.delete_job(&world.tenant, &id).await.expect("it has ended");
    assert_eq!(code(&world.tenant).await, ErrorCode::NotFound);
    assert!(!world.holds(&format!("job:{id}")).await, "nothing is left to a sweep");
    assert_eq!(list(&world, v1::ListJobsRequest::default()).await, [""; 0]);
    world.engine.get_dataset(&world.tenant, "stamps@1").await.expect("a name outlives its job");
    assert_ne!(accept(&world, keyed).await, id, "the key is free");
    let queue = world.engine.queue(&world.tenant).await.expect("it answers");
    assert!(queue.counts.iter().all(|count| count.state() != JobState::Succeeded), "{queue:?}");
}

#[tokio::test]
async fn a_job_whose_children_were_not_told_of_its_end_can_be_deleted_and_they_still_get_what_it_made() {
    let world = world().await;
    let mut worker = Worker::new("w1", 1);
    let parent = world.submit(ingest()).await;
    let child = world.submit(finetune(&format!("job:{parent}"))).await;
    run(&world, &mut worker).await;
    world.engine.delete_job(&world.tenant, &parent).await.expect("it has ended");
    let refused = world.engine.get(&world.tenant, &parent).await.expect_err("nobody is shown it any more");
    assert_eq!(refused.code(), ErrorCode::NotFound);
    assert!(world.holds(&format!("job:{parent}")).await, "the child still needs it");
    let late = world.accept(request(finetune(&format!("job:{parent}")))).await.expect_err("it is deleted");
    assert_eq!(late.code, ErrorCode::NotFound);
    world.sweep().await;
    world.sweep().await;
    assert!(!world.holds(&format!("job:{parent}")).await);
    let assignment = worker.start(&world.engine).await;
    assert_eq!((assignment.job_id, assignment.dataset_name), (child.to_string(), "stamps@1".to_owned()));
}

#[tokio::test]
async fn the_records_of_the_shards_of_a_deleted_job_are_removed_as_well() {
    let world = world().await;
    let id = divide(&world, &mut Worker::new("w1", 1), 3).await;
    world.engine.cancel(&world.tenant, &id).await.expect("it exists");
    world.engine.delete_job(&world.tenant, &id).await.expect("it has ended");
    while world.sweep().await.removed > 0 {}
    for record in [format!("job:{id}"), format!("shards:{id}"), format!("task:{id}.1"), format!("task:{id}.3")] {
        assert!(!world.holds(&record).await, "{record}");
    }
}
