//! Races of the collection of objects: with clients and workers, with coordinators that die, and between several coordinators.

use std::sync::atomic::Ordering;

use serde_json::json;
use sortinghat_coordinator::engine::Collected;
use sortinghat_proto::{
    Digest, ObjectRef,
    v1::{ErrorCode, JobState},
};
use tokio::sync::oneshot;

use crate::{
    keeper::{GRACE_MS, KEPT_MS, Keeper, collecting, ingest, list, missing},
    shelf::Moment,
    world::{Worker, request},
};

/// For how long a pass belongs to a coordinator that does not renew it any more, in milliseconds.
const HOLD_MS: u64 = 600_000;
/// How many objects are removed together.
const STEP: usize = 256;

#[tokio::test]
async fn a_job_that_is_accepted_while_objects_are_being_removed_keeps_its_photos() {
    let keeper = Keeper::new().await;
    // The digests of the strays sort before those of the photo and its list, so the photo and the list are not among the first objects to
    // be removed.
    let is_late = |content: &[u8]| Digest::of(content).as_str() >= "e";
    let mut names = (0..).map(|number| format!("photo {number}"));
    let photo = names.find(|name| is_late(name.as_bytes()) && is_late(&list(&[name]))).expect("one of very many");
    let source = keeper.upload_set(&[&photo]).await;
    let strays = (0..).map(|number: u32| format!("stray {number}")).filter(|stray| !is_late(stray.as_bytes()));
    strays.take(STEP).for_each(|stray| drop(keeper.shelf.put(stray)));
    keeper.ripen().await;
    let world = keeper.world.clone();
    keeper.shelf.at(Moment::Find, async move {
        world.submit(ingest("stamps", &source)).await;
    });
    assert_eq!(keeper.collect().await.removed, STEP);
    assert!(keeper.shelf.is_calm());
    keeper.collect_all().await;
    keeper.assert_has(&[&photo]);
}

#[tokio::test]
async fn an_object_that_is_asked_for_just_before_it_would_be_condemned_is_spared() {
    let keeper = Keeper::new().await;
    let photo = keeper.shelf.put("photo");
    keeper.ripen().await;
    // The pass begins, knows which suspects are due, and is about to condemn them.
    let (world, shelf, store, asked) =
        (keeper.world.clone(), keeper.shelf.clone(), keeper.store.clone(), photo.clone());
    keeper.store.applying.before("collection:", async move {
        store.applying.before("collection:", async move {
            assert_eq!(missing(&world, &shelf, &[&asked]).await, [] as [Digest; 0]);
        });
    });
    assert_eq!(keeper.collect().await.removed, 0);
    assert!(keeper.store.applying.is_calm() && keeper.shelf.has(&photo));
}

#[tokio::test]
async fn an_object_that_is_condemned_just_before_it_would_be_spared_counts_as_missing() {
    let keeper = Keeper::new().await;
    let photo = keeper.shelf.put("photo");
    keeper.ripen().await;
    let (world, shelf) = (keeper.world.clone(), keeper.shelf.clone());
    shelf.removals_fail.store(true, Ordering::SeqCst);
    keeper.store.applying.before("suspect:", async move {
        world.engine.collect(&shelf).await.expect_err("the coordinator dies");
        shelf.put("photo");
    });
    assert_eq!(keeper.missing(&[&photo]).await, [photo.digest]);
    assert!(keeper.store.applying.is_calm());
}

#[tokio::test]
async fn a_job_whose_uploads_are_removed_just_before_it_would_be_accepted_is_refused() {
    let keeper = Keeper::new().await;
    let source = keeper.upload_set(&["photo"]).await;
    keeper.ripen().await;
    let (world, shelf) = (keeper.world.clone(), keeper.shelf.clone());
    keeper.store.applying.before("job:", async move {
        assert_eq!(world.engine.collect(&shelf).await.expect("both stores answer").removed, 2);
    });
    let refused =
        keeper.world.accept(request(ingest("stamps", &source))).await.expect_err("the uploads of the job are gone");
    assert_eq!(refused.code, ErrorCode::NotFound, "{refused}");
    assert!(keeper.store.applying.is_calm());
}

/// A worker runs a job and has not stored its shard yet. A shard with the same content exists, and the next pass will remove it.
async fn running(keeper: &Keeper) -> (Worker, ObjectRef) {
    let source = keeper.upload_set(&["photo"]).await;
    keeper.world.submit(ingest("stamps", &source)).await;
    let shard = keeper.shelf.put("shard");
    keeper.ripen().await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&keeper.world.engine).await;
    (worker, shard)
}

/// The job runs once more, and its shard is kept.
async fn assert_repeated(keeper: &Keeper, mut worker: Worker, shard: ObjectRef) {
    assert_eq!(keeper.world.index("datasets:local").await, [""; 0], "no name may point at a missing dataset");
    keeper.assert_lacks(&["shard"]);
    keeper.world.pass(GRACE_MS / 10).await;
    worker.start(&keeper.world.engine).await;
    keeper.shelf.put("shard");
    worker.end(&keeper.world.engine, keeper.made(json!({ "shards": [shard] }))).await;
    assert_eq!(keeper.world.index("datasets:local").await.len(), 1);
    keeper.collect_all().await;
    keeper.assert_has(&["shard"]);
}

#[tokio::test]
async fn an_output_of_which_a_part_was_removed_just_after_it_was_written_is_made_again() {
    let keeper = Keeper::new().await;
    let (mut worker, shard) = running(&keeper).await;
    let shelf = keeper.shelf.clone();
    keeper.shelf.at(Moment::Remove, async move { drop(shelf.put("shard")) });
    assert_eq!(keeper.collect().await.removed, 1);
    worker.end(&keeper.world.engine, keeper.made(json!({ "shards": [shard] }))).await;
    assert_repeated(&keeper, worker, shard).await;
}

#[tokio::test]
async fn a_part_that_is_removed_between_the_look_and_the_commit_is_noticed() {
    let keeper = Keeper::new().await;
    let (mut worker, shard) = running(&keeper).await;
    let outcome = keeper.made(json!({ "shards": [shard] }));
    let (world, shelf) = (keeper.world.clone(), keeper.shelf.clone());
    keeper.shelf.at(Moment::Holds, async move {
        let again = shelf.clone();
        shelf.at(Moment::Remove, async move { drop(again.put("shard")) });
        assert_eq!(world.engine.collect(&shelf).await.expect("both stores answer").removed, 1);
    });
    worker.end(&keeper.world.engine, outcome).await;
    assert!(keeper.shelf.is_calm());
    assert_repeated(&keeper, worker, shard).await;
}

#[tokio::test]
async fn an_output_waits_while_a_part_of_it_is_being_removed() {
    let keeper = Keeper::new().await;
    let (mut worker, shard) = running(&keeper).await;
    keeper.shelf.removals_fail.store(true, Ordering::SeqCst);
    keeper.world.engine.collect(&keeper.shelf).await.expect_err("the coordinator dies");
    keeper.shelf.put("shard");
    worker.end(&keeper.world.engine, keeper.made(json!({ "shards": [shard] }))).await;
    assert_eq!(worker.request.leases.len(), 1, "the worker must report the outcome again");
    keeper.shelf.removals_fail.store(false, Ordering::SeqCst);
    keeper.work(&mut worker, HOLD_MS).await;
    keeper.collect().await;
    worker.poll(&keeper.world.engine).await;
    assert_eq!(keeper.world.index("datasets:local").await.len(), 1);
    keeper.collect_all().await;
    keeper.assert_has(&["shard"]);
}

#[tokio::test]
async fn a_part_that_a_coordinator_removed_before_it_died_is_noticed_after_that() {
    let keeper = Keeper::new().await;
    let (mut worker, shard) = running(&keeper).await;
    let outcome = keeper.made(json!({ "shards": [shard] }));
    let shelf = keeper.shelf.clone();
    keeper.shelf.at(Moment::Remove, async move { drop(shelf.put("shard")) });
    keeper.shelf.removals_fail.store(true, Ordering::SeqCst);
    keeper.world.engine.collect(&keeper.shelf).await.expect_err("the coordinator dies");
    keeper.shelf.removals_fail.store(false, Ordering::SeqCst);
    keeper.work(&mut worker, HOLD_MS).await;
    let (world, (give_back, given_back)) = (keeper.world.clone(), oneshot::channel());
    keeper.shelf.at(Moment::Document, async move {
        worker.end(&world.engine, outcome).await;
        assert!(give_back.send(worker).is_ok());
    });
    keeper.collect().await;
    assert_repeated(&keeper, given_back.await.expect("it has ended"), shard).await;
}

#[tokio::test]
async fn objects_that_a_dead_coordinator_was_removing_are_missing_until_no_late_removal_can_come() {
    let keeper = Keeper::new().await;
    let strays = ["stray 1", "stray 2", "stray 3"].map(|stray| keeper.shelf.put(stray));
    let strays: Vec<&ObjectRef> = strays.iter().collect();
    keeper.ripen().await;
    keeper.shelf.removals_fail.store(true, Ordering::SeqCst);
    keeper.world.engine.collect(&keeper.shelf).await.expect_err("the coordinator dies");
    keeper.shelf.removals_fail.store(false, Ordering::SeqCst);

    let other = keeper.world.beside(collecting());
    assert_eq!(missing(&other, &keeper.shelf, &strays).await.len(), 3);
    keeper.world.clock.advance_ms(HOLD_MS - 1);
    assert_eq!(other.engine.collect(&keeper.shelf).await, Ok(Collected::default()));
    other.engine.reuse_one(&other.tenant, &strays[0].digest).await.expect_err("a late removal may come");
    keeper.world.clock.advance_ms(1);
    other.engine.collect(&keeper.shelf).await.expect("both stores answer");
    keeper.assert_lacks(&["stray 1", "stray 2", "stray 3"]);
    assert_eq!(keeper.world.index("suspects:local").await, [""; 0]);
    other.engine.reuse_one(&other.tenant, &strays[0].digest).await.expect("it may be uploaded again");
}

#[tokio::test]
async fn one_coordinator_at_a_time_collects_and_another_takes_over_when_it_is_gone() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["photo"], "shard").await;
    keeper.shelf.put("stray");
    keeper.ripen().await;
    let (other, shelf) = (keeper.world.beside(collecting()), keeper.shelf.clone());
    keeper.shelf.at(Moment::Document, async move {
        assert_eq!(other.engine.collect(&shelf).await, Ok(Collected::default()), "it is not its turn");
        other.clock.advance_ms(HOLD_MS);
        assert_eq!(other.engine.collect(&shelf).await.map(|collected| collected.removed), Ok(1));
    });
    let refused = keeper.world.engine.collect(&keeper.shelf).await.expect_err("it was too slow");
    assert!(refused.to_string().contains("another coordinator"), "{refused}");
    keeper.assert_has(&["photo", "shard"]);
    keeper.assert_lacks(&["stray"]);
}

#[tokio::test]
async fn no_job_is_forgotten_during_a_pass() {
    let keeper = Keeper::new().await;
    let mut worker = Worker::new("w1", 1);
    keeper.ingest(&mut worker, "stamps", &["photo"], "shard").await;
    keeper.world.clock.advance_ms(KEPT_MS);
    keeper.collect().await;
    keeper.world.clock.advance_ms(GRACE_MS);
    let other = keeper.world.beside(collecting());
    keeper.shelf.at(Moment::Document, async move { assert_eq!(other.sweep().await.forgotten, 0) });
    keeper.collect().await;
    assert!(keeper.shelf.is_calm());
    assert_eq!(keeper.world.sweep().await.forgotten, 1);
}

#[tokio::test]
async fn objects_belong_to_one_queue_and_so_to_all_of_its_coordinators() {
    let keeper = Keeper::new().await;
    for coordinator in [&keeper.world.engine, &keeper.world.beside(collecting()).engine] {
        assert_eq!(coordinator.own(&keeper.shelf).await, Ok(true));
    }
    let other = Keeper::new().await;
    assert_eq!(other.world.engine.own(&keeper.shelf).await, Ok(false));
}

#[tokio::test]
async fn nothing_is_removed_when_the_clocks_disagree_or_a_document_cannot_be_parsed() {
    let keeper = Keeper::new().await;
    let stray = keeper.shelf.put("stray");
    let source = keeper.upload(&list(&["stray"])).await.expect("uploaded");
    keeper.world.submit(ingest("stamps", &source)).await;
    keeper.shelf.spoil(&source);
    keeper.ripen().await;
    keeper.shelf.ahead_ms.store(GRACE_MS, Ordering::SeqCst);
    let refused = keeper.world.engine.collect(&keeper.shelf).await.expect_err("the ages of objects are not known");
    assert_eq!(refused.code(), ErrorCode::WrongState);
    assert!(keeper.shelf.has(&stray));
    keeper.shelf.ahead_ms.store(0, Ordering::SeqCst);
    keeper.world.clock.advance_ms(HOLD_MS);
    assert_eq!(keeper.collect().await.removed, 1);
    assert!(keeper.shelf.has(&source));
    let jobs = keeper.world.index("jobs:local").await;
    assert_eq!(keeper.world.state(&jobs[0].parse().expect("a job id")).await, JobState::Queued);
}
