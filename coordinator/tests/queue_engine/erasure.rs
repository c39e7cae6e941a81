//! Objects whose tenant asks for it are removed without the grace of others, and never if something refers to them.

use sortinghat_proto::{ObjectRef, v1::ErrorCode};

use crate::{
    keeper::{GRACE_MS, Keeper, ingest},
    shelf::Moment,
    world::Worker,
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
    keeper.world.clock.advance_ms(1);
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
    keeper.world.clock.advance_ms(1);
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
    keeper.world.clock.advance_ms(1);
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
