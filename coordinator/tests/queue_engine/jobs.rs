//! Jobs as their users see them.

use std::sync::atomic::Ordering;

use sortinghat_proto::{
    Refusal,
    v1::{self, AttemptOutcome, ErrorCode, JobState, job_event::Event},
};

use crate::world::{Worker, World, crash, evaluate, finetune, ingest, log, request, success};

#[tokio::test]
async fn a_job_goes_from_queued_to_running_and_commits_its_name() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    assert_eq!(world.state(&id).await, JobState::Queued);
    let mut worker = Worker::new("w1", 1);
    let assignment = worker.start(&world.engine).await;
    assert_eq!((assignment.job_id.as_str(), assignment.attempt), (id.as_str(), 1));
    assert_eq!(world.state(&id).await, JobState::Running);
    let answer = worker.end(&world.engine, success(b"m")).await;
    assert_eq!(answer.acknowledged.len(), 1);

    let job = world.job(&id).await;
    assert_eq!(job.state(), JobState::Succeeded);
    assert_eq!(job.output.expect("it succeeded").name, "stamps@1");
    assert_eq!(job.attempts[0].outcome(), AttemptOutcome::Succeeded);
    assert_eq!(job.attempts[0].host, "w1-host");
    let dataset = world.engine.get_dataset(&world.tenant, "stamps").await.expect("it was committed");
    assert_eq!((dataset.name.as_str(), dataset.job_id.as_str()), ("stamps@1", id.as_str()));

    let history = world.history(&id).await;
    let sequences: Vec<u64> = history.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "without gaps");
    let states: Vec<JobState> = history
        .iter()
        .filter_map(|event| match &event.event {
            Some(Event::StateChanged(changed)) => Some(changed.state()),
            _ => None,
        })
        .collect();
    assert_eq!(states, [JobState::Queued, JobState::Running, JobState::Succeeded]);
}

#[tokio::test]
async fn versions_count_up_and_no_version_is_given_twice() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    for (version, manifest) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        if version == 3 {
            world.engine.delete_dataset(&world.tenant, "stamps@2").await.expect("it exists");
        }
        let id = world.submit(ingest()).await;
        worker.start(&world.engine).await;
        worker.end(&world.engine, success(manifest)).await;
        assert_eq!(world.job(&id).await.output.expect("it succeeded").name, format!("stamps@{version}"));
    }
    let page = world.engine.list_datasets(&world.tenant, v1::ListDatasetsRequest::default()).await.expect("a page");
    let names: Vec<&str> = page.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    assert_eq!(names, ["stamps@3", "stamps@1"]);
    let gone = world.engine.get_dataset(&world.tenant, "stamps@2").await.expect_err("deleted");
    assert_eq!(gone.to_string(), "there is no dataset stamps@2, but stamps@3, stamps@1");
}

#[tokio::test]
async fn the_newest_version_is_resolved_when_the_job_is_accepted() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    world.submit(ingest()).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"first")).await;
    let id = world.submit(finetune("stamps")).await;
    let Some(v1::job_spec::Kind::Finetune(spec)) = world.job(&id).await.spec.expect("a spec").kind else {
        panic!("not a finetune")
    };
    assert_eq!((spec.dataset.as_str(), spec.model_name.as_str()), ("stamps@1", "stamps"));
    world.engine.delete_dataset(&world.tenant, "stamps@1").await.expect("it exists");
    let assignment = worker.start(&world.engine).await;
    assert!(assignment.dataset.is_some(), "an accepted job keeps what it reads");
    assert_eq!(assignment.dataset_name, "stamps@1");
    worker.end(&world.engine, success(b"model")).await;
    assert_eq!(world.job(&id).await.output.expect("it succeeded").name, "stamps/1");
}

#[tokio::test]
async fn a_chain_of_jobs_runs_in_order_and_passes_on_its_outputs() {
    let world = World::new().await;
    let dataset = world.submit(ingest()).await;
    let model = world.submit(finetune(&format!("job:{dataset}"))).await;
    let evaluation = world.submit(evaluate(&format!("job:{model}"))).await;
    assert_eq!(world.state(&evaluation).await, JobState::Blocked);
    let mut worker = Worker::new("w1", 3);
    for (job, manifest) in [(&dataset, b"dataset".as_slice()), (&model, b"model"), (&evaluation, b"report")] {
        let assignment = worker.start(&world.engine).await;
        assert_eq!(assignment.job_id, job.as_str(), "one after the other");
        if *job == evaluation {
            assert_eq!(assignment.model_name, "stamps/1");
            assert_eq!(assignment.model, Some(sortinghat_proto::ObjectRef::of(b"model").into()));
        }
        worker.end(&world.engine, success(manifest)).await;
        world.sweep().await;
    }
    assert_eq!(world.state(&evaluation).await, JobState::Succeeded);
}

#[tokio::test]
async fn a_parent_that_fails_cancels_its_children_and_grandchildren() {
    let world = World::new().await;
    let dataset = world.submit(ingest()).await;
    let model = world.submit(finetune(&format!("job:{dataset}"))).await;
    let evaluation = world.submit(evaluate(&format!("job:{model}"))).await;
    world.engine.cancel(&world.tenant, &dataset).await.expect("it waits");
    world.sweep().await;
    world.sweep().await;
    for id in [&model, &evaluation] {
        let job = world.job(id).await;
        assert_eq!(job.state(), JobState::Cancelled);
        assert_eq!(job.failure.expect("it says why").code(), ErrorCode::ParentFailed);
    }
    let late = world.submit(evaluate(&format!("job:{model}"))).await;
    world.sweep().await;
    assert_eq!(
        world.state(&late).await,
        JobState::Cancelled,
        "a child may also be submitted after its parent has ended"
    );
    assert_eq!(world.sweep().await.told, 0, "every child was told");
}

#[tokio::test]
async fn hundreds_of_children_are_told_in_several_rounds() {
    let world = World::new().await;
    let parent = world.submit(ingest()).await;
    for _ in 0..300 {
        world.submit(finetune(&format!("job:{parent}"))).await;
    }
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    let rounds = [world.sweep().await.told, world.sweep().await.told, world.sweep().await.told];
    assert_eq!(rounds.iter().sum::<usize>(), 300, "{rounds:?}");
    assert!(rounds[0] < 300, "one round tells only a part of them");
    let queued = v1::ListJobsRequest { states: vec![JobState::Queued.into()], page_size: 1000, ..Default::default() };
    let page = world.engine.list(&world.tenant, queued).await.expect("a page");
    assert_eq!(page.jobs.len(), 300);
}

#[tokio::test]
async fn an_unreadable_job_is_named_beside_the_jobs_that_are_listed_and_counted() {
    let world = World::new().await;
    let older = world.submit(ingest()).await;
    world.clock.advance_ms(1);
    let unreadable = world.submit(ingest()).await;
    world.clock.advance_ms(1);
    let newer = world.submit(ingest()).await;
    world.spoil(&format!("job:{unreadable}")).await;
    let page = async |page_size, page_token: &str| {
        let request = v1::ListJobsRequest { page_size, page_token: page_token.to_owned(), ..Default::default() };
        let page = world.engine.list(&world.tenant, request).await.expect("a page");
        (page.jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(), page.unreadable_job_ids, page.next_page_token)
    };
    let unreadable = vec![unreadable.to_string()];
    assert_eq!(page(50, "").await, (vec![newer.to_string(), older.to_string()], unreadable.clone(), String::new()));
    let (first, none, token) = page(1, "").await;
    assert_eq!((first, none), (vec![newer.to_string()], Vec::new()));
    assert_eq!(page(1, &token).await, (vec![older.to_string()], unreadable, older.to_string()));
    let ingests = v1::CancelJobsRequest { kind: "ingest".into(), count_only: true, ..Default::default() };
    assert_eq!(world.engine.cancel_many(&world.tenant, ingests).await.expect("counted").matching, 2);
    let queue = world.engine.queue(&world.tenant).await.expect("it answers");
    assert_eq!(queue.oldest_queued_unix_ms, world.job(&older).await.created_unix_ms);
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_another_spec_is_refused() {
    let world = World::new().await;
    let keyed = |kind| v1::SubmitJobRequest { idempotency_key: "build-7".into(), ..request(kind) };
    let first = world.accept(keyed(ingest())).await.expect("accepted");
    let again = world.accept(keyed(ingest())).await.expect("accepted");
    assert_eq!(first.id, again.id);
    world.objects.lost.store(true, Ordering::SeqCst);
    let much_later = world.accept(keyed(ingest())).await.expect("accepted, although its photos are gone since");
    assert_eq!(first.id, much_later.id);
    let other = v1::SubmitJobRequest { priority: 3, ..keyed(ingest()) };
    assert_eq!(world.accept(other).await.expect_err("differs").code, ErrorCode::IdempotencyConflict);
    let page = world.engine.list(&world.tenant, v1::ListJobsRequest::default()).await.expect("a page");
    assert_eq!(page.jobs.len(), 1);
}

#[tokio::test]
async fn fifty_submissions_at_once_with_one_key_become_one_job() {
    let world = World::new().await;
    let keyed = v1::SubmitJobRequest { idempotency_key: "same".into(), ..request(ingest()) };
    let response = world.engine.submit_many(&world.tenant, vec![keyed; 50]).await.expect("answered");
    let ids: std::collections::BTreeSet<String> = response
        .verdicts
        .into_iter()
        .map(|verdict| match verdict.verdict {
            Some(v1::submit_verdict::Verdict::Accepted(accepted)) => accepted.job.expect("a job").id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_missing_input_is_refused_with_its_field_and_the_way_to_see_what_exists() {
    let world = World::new().await;
    let missing = world.accept(request(finetune("nothing"))).await.expect_err("no such dataset");
    assert_eq!((missing.code, missing.field.as_str()), (ErrorCode::NotFound, "finetune.dataset"));
    assert!(missing.message.contains("list the datasets"), "{}", missing.message);
    let dataset = world.submit(ingest()).await;
    let wrong_kind = world.accept(request(evaluate(&format!("job:{dataset}")))).await.expect_err("no model");
    assert_eq!(wrong_kind.field, "evaluate.model");
    world.objects.lost.store(true, Ordering::SeqCst);
    let not_uploaded = world.accept(request(ingest())).await.expect_err("no such object");
    assert_eq!((not_uploaded.code, not_uploaded.field.as_str()), (ErrorCode::NotFound, "ingest.source"));
}

#[tokio::test]
async fn an_output_that_is_not_in_the_object_store_is_never_committed() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    world.objects.lost.store(true, Ordering::SeqCst);
    worker.end(&world.engine, success(b"m")).await;
    let job = world.job(&id).await;
    assert_eq!((job.state(), job.attempts[0].outcome()), (JobState::Queued, AttemptOutcome::Failed));
    assert!(world.engine.get_dataset(&world.tenant, "stamps").await.is_err(), "no name points at nothing");
}

#[tokio::test]
async fn cancelling_ends_a_queued_job_at_once_and_a_running_job_when_its_worker_has_stopped() {
    let world = World::new().await;
    let queued = world.submit(ingest()).await;
    let cancelled = world.engine.cancel(&world.tenant, &queued).await.expect("it exists");
    assert_eq!(cancelled.state(), JobState::Cancelled);
    let running = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    let asked = world.engine.cancel(&world.tenant, &running).await.expect("it exists");
    assert_eq!((asked.state(), asked.cancel_requested), (JobState::Running, true));
    let answer = worker.poll(&world.engine).await;
    assert!(answer.leases[0].cancel, "the worker is told");
    worker.end(&world.engine, v1::task_outcome::Outcome::Cancelled(v1::TaskCancelled {})).await;
    assert_eq!(world.state(&running).await, JobState::Cancelled);
    let again = world.engine.cancel(&world.tenant, &running).await.expect("cancelling again is fine");
    assert_eq!(again.failure.expect("it says why").code(), ErrorCode::Cancelled);
}

#[tokio::test]
async fn pages_list_every_job_once_and_the_newest_first() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        world.clock.advance_ms(1);
        ids.push(world.submit(ingest()).await.to_string());
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let list = v1::ListJobsRequest { page_size: 3, page_token, ..v1::ListJobsRequest::default() };
        let page = world.engine.list(&world.tenant, list).await.expect("a page");
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ids);
    let none = v1::ListJobsRequest { kind: "classify".into(), ..v1::ListJobsRequest::default() };
    assert!(world.engine.list(&world.tenant, none).await.expect("a page").jobs.is_empty());
    let bad = v1::ListJobsRequest { kind: "nothing".into(), ..v1::ListJobsRequest::default() };
    let refused = world.engine.list(&world.tenant, bad).await.expect_err("no such kind");
    assert_eq!(Refusal::from(refused).field, "kind");
}

#[tokio::test]
async fn jobs_are_listed_by_the_beginning_or_the_end_of_their_ids_also_the_unreadable_ones() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.submit(ingest()).await.to_string());
        world.clock.advance_ms(1);
    }
    world.spoil(&format!("job:{}", ids[2])).await;
    let list = async |part: &str| {
        let request = v1::ListJobsRequest { id_part: part.to_owned(), ..Default::default() };
        let page = world.engine.list(&world.tenant, request).await.expect("a page");
        assert!(page.next_page_token.is_empty(), "all ids were looked at");
        (page.jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(), page.unreadable_job_ids)
    };
    assert_eq!(list(&ids[0][20..]).await, (vec![ids[0].clone()], vec![]));
    assert_eq!(list(&ids[1].to_uppercase()).await, (vec![ids[1].clone()], vec![]));
    assert_eq!(list(&ids[2][20..]).await, (vec![], vec![ids[2].clone()]));
    assert_eq!(list(&ids[0][..6]).await, (vec![ids[1].clone(), ids[0].clone()], vec![ids[2].clone()]));
    assert_eq!(list("nothing").await, (vec![], vec![]));
}

#[tokio::test]
async fn a_job_that_has_not_ended_says_what_its_last_failed_attempt_said() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let listed = async || {
        let page = world.engine.list(&world.tenant, v1::ListJobsRequest::default()).await.expect("a page");
        page.jobs[0].last_failed_attempt.clone()
    };
    assert_eq!(listed().await, None);
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, crash()).await;
    assert_eq!(world.state(&id).await, JobState::Queued);
    let attempt = listed().await.expect("it crashed");
    assert_eq!((attempt.number, attempt.outcome(), attempt.host.as_str()), (1, AttemptOutcome::Crashed, "w1-host"));
    assert!(attempt.failure.expect("it says why").message.contains("signal 9"));
    world.pass(2_000).await;
    worker.start(&world.engine).await;
    assert!(listed().await.is_some(), "also while the next attempt runs");
    worker.end(&world.engine, success(b"m")).await;
    assert_eq!(listed().await, None, "the job has ended");
}

#[tokio::test]
async fn a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    use futures::StreamExt as _;
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut watch = world.engine.watch(&world.tenant, &id, 0).await.expect("it exists");
    let first = watch.next().await.expect("an event").expect("the store answers");
    assert!(matches!(first.update, Some(v1::watch_job_response::Update::Event(ref event)) if event.sequence == 1));
    let keepalive = watch.next().await.expect("a sign of life").expect("the store answers");
    assert!(matches!(keepalive.update, Some(v1::watch_job_response::Update::Keepalive(_))));
    drop(watch);
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    // These are more events than the job's own record holds.
    worker.request.leases[0].events = (1..=20).map(|n| log(n, "a line")).collect();
    worker.end(&world.engine, crash()).await;
    world.pass(1_000).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    let all = world.history(&id).await;
    assert!(all.iter().map(|event| event.sequence).eq(1..=all.len() as u64), "{all:?}");
    for seen in 0..all.len() {
        let rest = world.engine.watch(&world.tenant, &id, seen as u64).await.expect("it exists");
        let rest: Vec<_> = rest.map(|update| update.expect("the store answers").update).collect().await;
        let expected: Vec<_> =
            all[seen..].iter().cloned().map(|event| Some(v1::watch_job_response::Update::Event(event))).collect();
        assert_eq!(rest, expected, "from event {seen} to the end");
    }
}

#[tokio::test]
async fn a_watcher_is_woken_by_events() {
    use futures::StreamExt as _;
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let watch = world.engine.watch(&world.tenant, &id, 0).await.expect("it exists");
    let watching = tokio::spawn(watch.collect::<Vec<_>>());
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    let updates = watching.await.expect("the watch ends with the job");
    assert!(updates.iter().all(Result::is_ok));
}
