//! The collection of objects: objects to which nothing refers are removed, and objects that somebody relies on are kept.

use serde_json::json;
use sortinghat_proto::{
    Digest, JobId, ObjectRef, TaskId,
    v1::{self, ErrorCode, job_spec::Kind},
};

use crate::{
    keeper::{GRACE_MS, KEPT_MS, Keeper, ingest, list, missing},
    retries::failed,
    shelf::Moment,
    world::{Worker, checkpoint, crash, divided, evaluate, finetune, request},
};

#[tokio::test]
async fn an_unreferenced_object_is_kept_for_a_grace_period_and_a_named_dataset_for_ever() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["photo 1", "photo 2"], "shard").await;
    keeper.collect().await;
    keeper.shelf.put("stray");
    let mut removed_after = 0;
    while keeper.shelf.has(&ObjectRef::of(b"stray")) {
        keeper.world.clock.advance_ms(GRACE_MS / 20);
        removed_after += GRACE_MS / 20;
        assert!(removed_after <= 3 * GRACE_MS, "it is never removed");
        let collected = keeper.collect().await;
        assert!(collected.removed == 0 || (collected.removed, collected.removed_bytes) == (1, 5), "{collected:?}");
    }
    assert!(removed_after >= GRACE_MS, "after {removed_after} ms");
    keeper.world.forget_everything(KEPT_MS).await;
    keeper.collect_all().await;
    keeper.assert_has(&["photo 1", "photo 2", "shard"]);
    assert_eq!(keeper.world.index("suspects:local").await, [""; 0]);
}

#[tokio::test]
async fn the_objects_of_a_dataset_are_removed_with_its_name_except_those_that_another_dataset_shares() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["shared photo", "stamp"], "shared shard").await;
    keeper.ingest(&mut worker, "coins", &["shared photo", "coin"], "shared shard").await;
    keeper.ingest(&mut worker, "notes", &["note"], "shard of notes").await;
    keeper.world.engine.delete_dataset(&keeper.world.tenant, "stamps@1").await.expect("it exists");
    keeper.collect_all().await;
    keeper.assert_has(&["stamp"]);
    keeper.world.forget_everything(KEPT_MS).await;
    keeper.collect_all().await;
    keeper.assert_lacks(&["stamp"]);
    keeper.assert_has(&["shared photo", "shared shard", "coin", "note", "shard of notes"]);
    assert!(!keeper.shelf.has(&ObjectRef::of(&list(&["shared photo", "stamp"]))), "the list of the upload");
}

#[tokio::test]
async fn the_output_of_a_job_without_an_output_name_is_removed_when_the_job_is_forgotten() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    let source = keeper.upload_set(&["photo"]).await;
    let dataset = keeper.ingest(&mut worker, "stamps", &["stamp"], "shard").await;
    keeper.world.submit(finetune(&format!("job:{dataset}"))).await;
    worker.start(&keeper.world.engine).await;
    worker.end(&keeper.world.engine, keeper.made(json!({ "weights": keeper.shelf.put("weights") }))).await;
    let on = v1::evaluate_spec::On::Source(source.into());
    let Kind::Evaluate(spec) = evaluate("stamps") else { unreachable!() };
    keeper.world.submit(Kind::Evaluate(v1::EvaluateSpec { on: Some(on), ..spec })).await;
    worker.start(&keeper.world.engine).await;
    worker.end(&keeper.world.engine, keeper.made(json!({ "report": keeper.shelf.put("report") }))).await;
    keeper.collect_all().await;
    keeper.assert_has(&["photo", "report", "weights", "stamp"]);
    keeper.world.forget_everything(KEPT_MS).await;
    keeper.collect_all().await;
    keeper.assert_lacks(&["photo", "report"]);
    keeper.assert_has(&["weights", "shard", "stamp"]);
}

#[tokio::test]
async fn the_inputs_of_an_open_job_and_the_outputs_of_its_tasks_are_kept() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    let source = keeper.upload_set(&["photo"]).await;
    let id = keeper.world.submit(ingest("stamps", &source)).await;
    worker.start(&keeper.world.engine).await;
    worker.request.leases[0].events = vec![checkpoint(1, b"old checkpoint"), checkpoint(2, b"checkpoint")];
    for content in ["old checkpoint", "checkpoint"] {
        keeper.shelf.put(content);
    }
    worker.end(&keeper.world.engine, crash()).await;
    keeper.collect_all().await;
    keeper.assert_has(&["photo", "checkpoint"]);
    keeper.assert_lacks(&["old checkpoint"]);

    keeper.world.sweep().await;
    worker.start(&keeper.world.engine).await;
    worker.request.leases.last_mut().expect("it runs").outcome =
        Some(v1::TaskOutcome { outcome: Some(divided(2_000)) });
    worker.request.free_slots = 0;
    worker.poll_without_beats(&keeper.world.engine).await;
    keeper.world.sweep().await;
    worker.start(&keeper.world.engine).await;
    worker.request.free_slots = 0;
    let part = keeper.made(json!({ "pictures": [keeper.shelf.put("pictures")] }));
    worker.request.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(part) });
    worker.poll_without_beats(&keeper.world.engine).await;
    keeper.collect_all().await;
    keeper.assert_has(&["photo", "pictures"]);
    keeper.world.engine.cancel(&keeper.world.tenant, &id).await.expect("it exists");
    keeper.world.forget_everything(KEPT_MS + GRACE_MS).await;
    keeper.collect_all().await;
    keeper.assert_lacks(&["photo", "pictures", "checkpoint"]);
}

#[tokio::test]
async fn the_checkpoints_of_a_task_are_removed_at_once_when_a_newer_one_comes_or_the_task_succeeds() {
    let keeper = Keeper::new().await;
    let mut worker = train(&keeper, &[b"epoch 1", b"epoch 2"]).await;
    worker.poll_without_beats(&keeper.world.engine).await;
    assert_eq!(keeper.world.engine.discard_checkpoints(&keeper.shelf).await, Ok(1));
    keeper.assert_lacks(&["epoch 1"]);
    keeper.assert_has(&["epoch 2", "shard"]);
    worker.end(&keeper.world.engine, keeper.made(json!({ "weights": keeper.shelf.put("weights") }))).await;
    assert_eq!(keeper.world.engine.discard_checkpoints(&keeper.shelf).await, Ok(1));
    keeper.assert_lacks(&["epoch 2"]);
    keeper.assert_has(&["weights", "shard"]);
    assert_eq!(keeper.world.index("discarded").await, [""; 0]);
}

#[tokio::test]
async fn a_failed_job_keeps_its_newest_checkpoint_also_while_a_retry_goes_on_from_it_and_after_that() {
    let keeper = Keeper::new().await;
    let mut worker = train(&keeper, &[b"epoch 1", b"epoch 2"]).await;
    let task: TaskId = worker.request.leases[0].task_id.parse().expect("an id");
    let old: &JobId = task.job();
    worker.end(&keeper.world.engine, failed()).await;
    assert_eq!(keeper.world.engine.discard_checkpoints(&keeper.shelf).await, Ok(1));
    keeper.assert_has(&["epoch 2"]);
    let again = v1::RetryJobRequest { job_id: old.to_string(), ..v1::RetryJobRequest::default() };
    keeper.world.engine.retry(&keeper.world.tenant, again).await.expect("it has failed");
    let assignment = worker.start(&keeper.world.engine).await;
    assert_eq!(assignment.checkpoint, Some(ObjectRef::of(b"epoch 2").into()));
    worker.request.leases[0].events = vec![checkpoint(1, b"epoch 3")];
    keeper.shelf.put("epoch 3");
    worker.end(&keeper.world.engine, keeper.made(json!({ "weights": keeper.shelf.put("weights") }))).await;
    assert_eq!(keeper.world.engine.discard_checkpoints(&keeper.shelf).await, Ok(1));
    keeper.assert_lacks(&["epoch 3"]);
    keeper.assert_has(&["epoch 2"]);
}

#[tokio::test]
async fn an_object_that_is_older_than_a_job_is_not_removed_as_its_checkpoint() {
    let keeper = Keeper::new().await;
    keeper.shelf.put("a photo");
    keeper.world.clock.advance_ms(GRACE_MS);
    let mut worker = train(&keeper, &[b"a photo", b"epoch 2"]).await;
    worker.poll_without_beats(&keeper.world.engine).await;
    assert_eq!(keeper.world.engine.discard_checkpoints(&keeper.shelf).await, Ok(0));
    keeper.assert_has(&["a photo"]);
}

/// A worker that trains a model, and has made these checkpoints, which its next message reports.
async fn train(keeper: &Keeper, checkpoints: &[&'static [u8]]) -> Worker {
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["stamp"], "shard").await;
    keeper.world.submit(finetune("stamps")).await;
    worker.start(&keeper.world.engine).await;
    let events = (1..).zip(checkpoints).map(|(sequence, content)| checkpoint(sequence, content));
    worker.request.leases[0].events = events.collect();
    for content in checkpoints {
        let object = ObjectRef::of(content);
        if !keeper.shelf.has(&object) {
            keeper.shelf.put(*content);
        }
    }
    worker
}

#[tokio::test]
async fn an_object_that_an_attempt_wrote_is_kept_until_the_attempt_reports_however_long_that_takes() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    let source = keeper.upload_set(&["photo"]).await;
    keeper.world.submit(ingest("stamps", &source)).await;
    keeper.shelf.put("stray");
    keeper.world.clock.advance_ms(GRACE_MS);
    worker.start(&keeper.world.engine).await;
    let shard = keeper.shelf.put("shard");
    for _ in 0..6 {
        keeper.work(&mut worker, GRACE_MS / 2).await;
        keeper.collect().await;
    }
    keeper.assert_lacks(&["stray"]);
    worker.end(&keeper.world.engine, keeper.made(json!({ "shards": [shard], "source": source }))).await;
    keeper.collect_all().await;
    keeper.assert_has(&["photo", "shard"]);
}

#[tokio::test]
async fn a_job_keeps_its_dataset_when_the_name_of_the_dataset_is_removed() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["photo"], "shard").await;
    keeper.world.forget_everything(KEPT_MS).await;
    keeper.world.submit(finetune("stamps@1")).await;
    keeper.world.engine.delete_dataset(&keeper.world.tenant, "stamps@1").await.expect("it exists");
    keeper.collect_all().await;
    keeper.assert_has(&["photo", "shard"]);
}

#[tokio::test]
async fn a_suspect_to_which_a_name_refers_again_is_cleared() {
    let keeper = Keeper::new().await;
    keeper.shelf.put("shard");
    keeper.pass().await;
    assert_eq!(keeper.pass().await.suspected, 1);
    keeper.ingest(&mut Worker::new("w1", 1), "stamps", &["photo"], "shard").await;
    assert_eq!(keeper.pass().await.removed, 0);
    assert_eq!(keeper.world.index("suspects:local").await, [""; 0]);
    keeper.assert_has(&["shard"]);
}

#[tokio::test]
async fn a_caller_that_is_told_that_an_object_exists_has_half_a_grace_period_to_submit_its_job() {
    let keeper = Keeper::new().await;
    let source = keeper.upload_set(&["photo"]).await;
    keeper.ripen().await;
    let photo = ObjectRef::of(b"photo");
    assert_eq!(keeper.missing(&[&photo, &source]).await, [] as [Digest; 0]);
    keeper.collect().await;
    keeper.world.clock.advance_ms(GRACE_MS / 2 - 1);
    keeper.collect().await;
    keeper.world.submit(ingest("stamps", &source)).await;
    keeper.collect_all().await;
    keeper.assert_has(&["photo"]);
}

#[tokio::test]
async fn an_object_that_is_asked_for_during_a_pass_is_not_removed_by_that_pass() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["stamp"], "shard").await;
    let photo = keeper.shelf.put("photo");
    keeper.ripen().await;
    let (world, shelf) = (keeper.world.clone(), keeper.shelf.clone());
    keeper.shelf.at(Moment::Document, async move {
        assert_eq!(missing(&world, &shelf, &[&photo]).await, [] as [Digest; 0]);
    });
    assert_eq!(keeper.collect().await.removed, 0);
    assert!(keeper.shelf.is_calm());
    keeper.assert_has(&["photo"]);
    keeper.collect_all().await;
    keeper.assert_lacks(&["photo"]);
}

#[tokio::test]
async fn an_object_that_is_being_removed_counts_as_missing_and_is_uploaded_again_after_that() {
    let keeper = Keeper::new().await;
    let source = keeper.upload_set(&["photo"]).await;
    keeper.ripen().await;
    let (world, shelf) = (keeper.world.clone(), keeper.shelf.clone());
    let list = source.clone();
    keeper.shelf.at(Moment::Find, async move {
        let photo = ObjectRef::of(b"photo");
        assert_eq!(missing(&world, &shelf, &[&photo]).await, std::slice::from_ref(&photo.digest));
        let refused = world.engine.reuse_one(&world.tenant, &photo.digest).await.expect_err("not now");
        assert_eq!(refused.code(), ErrorCode::StorageUnavailable);
        let refused = world.accept(request(ingest("stamps", &list))).await.expect_err("not now");
        assert_eq!(refused.code, ErrorCode::StorageUnavailable, "{refused}");
    });
    assert_eq!(keeper.collect().await.removed, 2);
    assert!(keeper.shelf.is_calm());
    let refused = keeper.world.accept(request(ingest("stamps", &source))).await.expect_err("it is gone");
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert_eq!(keeper.upload_set(&["photo"]).await, source);
    keeper.world.submit(ingest("stamps", &source)).await;
    keeper.collect_all().await;
    keeper.assert_has(&["photo"]);
}
