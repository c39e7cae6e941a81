//! Objects whose tenant asks for it are removed without the grace of others, and never if something refers to them.

use serde_json::json;
use sortinghat_proto::{
    ObjectRef,
    v1::{self, ErrorCode, JobState},
};

use crate::{
    keeper::{GRACE_MS, Keeper, ingest},
    shelf::Moment,
    world::{Worker, divided, success},
};

impl Keeper {
    async fn erase(&self, contents: &[&str]) {
        let digests: Vec<_> = contents.iter().map(|content| ObjectRef::of(content.as_bytes()).digest).collect();
        self.world.engine.erase(&self.world.tenant, &digests).await.expect("the store answers");
    }

    /// Lets a moment pass that is much shorter than the grace, and collects.
    async fn soon(&self) {
        self.world.clock.advance_ms(1);
        self.collect().await;
    }
}

/// A keeper whose tenant was seen by the collection before, so that no first pass waits.
async fn seen() -> Keeper {
    let keeper = Keeper::new().await;
    keeper.shelf.put("first");
    keeper.pass().await;
    keeper.pass().await;
    keeper
}

#[tokio::test]
async fn an_object_is_removed_at_once_if_its_tenant_asks_and_nothing_refers_to_it() {
    let keeper = seen().await;
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["of a dataset"], "shard").await;
    for young in ["asked", "not asked"] {
        keeper.shelf.put(young);
    }
    keeper.world.clock.advance_ms(1_000);
    keeper.erase(&["asked", "asked", "of a dataset", "never there"]).await;
    keeper.soon().await;
    keeper.assert_lacks(&["asked"]);
    keeper.assert_has(&["of a dataset", "not asked", "shard"]);
    assert!(!keeper.world.holds("erasure:local").await, "nothing is left to do");
    assert!(keeper.world.index("suspects:local").await.len() <= 1, "no wish stays behind");
}

#[tokio::test]
async fn an_object_that_somebody_relies_on_since_stays() {
    let keeper = seen().await;
    let photo = keeper.shelf.put("photo");
    keeper.world.clock.advance_ms(1);
    keeper.erase(&["photo"]).await;
    assert!(keeper.missing(&[&photo]).await.is_empty(), "it is there");
    keeper.soon().await;
    keeper.assert_has(&["photo"]);
}

#[tokio::test]
async fn an_object_that_a_running_attempt_may_have_written_goes_when_the_attempt_has_ended() {
    let keeper = seen().await;
    let source = keeper.upload_set(&["photo of a job"]).await;
    keeper.world.submit(ingest("stamps", &source)).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&keeper.world.engine).await;
    keeper.world.clock.advance_ms(1);
    keeper.shelf.put("perhaps an output");
    keeper.world.clock.advance_ms(1_000);
    keeper.erase(&["perhaps an output"]).await;
    keeper.soon().await;
    keeper.assert_has(&["perhaps an output"]);
    worker.end(&keeper.world.engine, crate::retries::failed()).await;
    keeper.soon().await;
    keeper.assert_lacks(&["perhaps an output"]);
}

#[tokio::test]
async fn a_wish_that_comes_during_a_pass_is_decided_by_the_next_one() {
    let keeper = seen().await;
    let source = keeper.upload_set(&["photo"]).await;
    let id = keeper.world.submit(ingest("stamps", &source)).await;
    keeper.world.engine.cancel(&keeper.world.tenant, &id).await.expect("it exists");
    keeper.world.clock.advance_ms(GRACE_MS / 2);
    let (engine, tenant, clock) =
        (keeper.world.engine.clone(), keeper.world.tenant.clone(), keeper.world.clock.clone());
    // The pass has read the job already, or reads it now: for this pass, the photo is in use.
    keeper.shelf.at(Moment::Document, async move {
        clock.advance_ms(1);
        engine.delete_job(&tenant, &id).await.expect("it has ended");
        let photo = ObjectRef::of(b"photo").digest;
        engine.erase(&tenant, &[photo]).await.expect("the store answers");
    });
    keeper.collect().await;
    assert!(keeper.shelf.is_calm());
    keeper.assert_has(&["photo"]);
    keeper.world.sweep().await;
    keeper.soon().await;
    keeper.assert_lacks(&["photo"]);
}

#[tokio::test]
async fn a_deleted_job_frees_its_photos_at_once_if_they_are_named_and_later_if_not() {
    let keeper = seen().await;
    let mut worker = Worker::new("w1", 1);
    let source = keeper.upload_set(&["named", "not named"]).await;
    let id = keeper.world.submit(ingest("stamps", &source)).await;
    let early = keeper.world.engine.delete_job(&keeper.world.tenant, &id).await.expect_err("it waits");
    assert_eq!(early.code(), ErrorCode::WrongState);
    keeper.world.engine.cancel(&keeper.world.tenant, &id).await.expect("it exists");
    keeper.ingest(&mut worker, "coins", &["coin"], "shard").await;
    let answer = keeper.world.engine.delete_job(&keeper.world.tenant, &id).await.expect("it has ended");
    keeper.world.clock.advance_ms(1_000);
    keeper.erase(&["named", "coin"]).await;
    keeper.soon().await;
    keeper.assert_lacks(&["named"]);
    keeper.assert_has(&["not named", "coin"]);
    let step = GRACE_MS / 20;
    for _ in 0..=answer.objects_gone_within_ms / step {
        keeper.world.clock.advance_ms(step);
        keeper.collect().await;
    }
    keeper.assert_lacks(&["not named"]);
    keeper.assert_has(&["coin", "shard"]);
}

#[tokio::test]
async fn an_output_that_a_worker_writes_and_commits_while_a_pass_removes_it_stays() {
    let keeper = seen().await;
    let source = keeper.upload_set(&["photo of a job"]).await;
    let id = keeper.world.submit(ingest("stamps", &source)).await;
    // The first step of the pass is full, so that what is asked for last is condemned in the second.
    let others: Vec<String> = (0..256).map(|number| format!("other {number}")).collect();
    for content in others.iter().map(String::as_str).chain(["made twice"]) {
        keeper.shelf.put(content.to_owned());
    }
    keeper.world.clock.advance_ms(1_000);
    keeper.erase(&others.iter().map(String::as_str).collect::<Vec<_>>()).await;
    keeper.world.clock.advance_ms(1);
    keeper.erase(&["made twice"]).await;
    keeper.world.clock.advance_ms(1);
    let (world, shelf) = (keeper.world.clone(), keeper.shelf.clone());
    // Nothing was leased when the pass marked what is live.
    keeper.shelf.at(Moment::Find, async move {
        world.clock.advance_ms(1);
        let mut worker = Worker::new("w1", 1);
        worker.start(&world.engine).await;
        let shard = shelf.put("made twice");
        let document = json!({ "shards": [shard], "source": source }).to_string();
        shelf.put(document.clone());
        worker.end(&world.engine, success(document.as_bytes())).await;
    });
    keeper.collect().await;
    assert!(keeper.shelf.is_calm());
    assert_eq!(keeper.world.state(&id).await, JobState::Succeeded);
    keeper.assert_has(&["made twice"]);
    keeper.assert_lacks(&["other 0"]);
    keeper.soon().await;
    keeper.assert_has(&["made twice"]);
    assert!(!keeper.world.holds("erasure:local").await, "nothing is left to do");
}

#[tokio::test]
async fn an_object_that_was_written_since_goes_with_the_next_pass_if_nothing_refers_to_it() {
    let keeper = seen().await;
    keeper.shelf.put("photo");
    keeper.erase(&["photo"]).await;
    keeper.world.clock.advance_ms(1);
    keeper.shelf.put("photo");
    keeper.soon().await;
    keeper.assert_has(&["photo"]);
    keeper.soon().await;
    keeper.assert_lacks(&["photo"]);
    assert!(!keeper.world.holds("erasure:local").await, "nothing is left to do");
}

#[tokio::test]
async fn with_a_divided_job_that_was_cancelled_goes_what_its_tasks_have_stored() {
    let keeper = seen().await;
    let (engine, tenant) = (&keeper.world.engine, &keeper.world.tenant);
    let source = keeper.upload_set(&["photo"]).await;
    let id = keeper.world.submit(ingest("stamps", &source)).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(engine).await;
    worker.request.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(divided(2_000)) });
    worker.request.free_slots = 0;
    worker.poll_without_beats(engine).await;
    keeper.world.sweep().await;
    worker.start(engine).await;
    worker.request.free_slots = 0;
    let part = keeper.made(json!({ "pictures": [keeper.shelf.put("pictures of a part")] }));
    worker.request.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(part) });
    worker.poll_without_beats(engine).await;
    engine.cancel(tenant, &id).await.expect("it exists");
    keeper.world.sweep().await;
    keeper.world.clock.advance_ms(1_000);
    let answer = engine.erase_job(tenant, &id).await.expect("it has ended");
    assert!(answer.objects_gone_within_ms < GRACE_MS / 2, "{answer:?}");
    keeper.world.sweep().await;
    keeper.soon().await;
    keeper.assert_lacks(&["photo", "pictures of a part"]);
}
