//! The conversation with workers: what they are given, what they report, and what they are told.

use std::sync::Arc;

use sortinghat_coordinator::{
    auth::{Caller, Served},
    store::{ManualClock, MemoryStore},
};
use sortinghat_proto::v1::{self, AttemptOutcome, JobState, job_event::Event};
use tokio::sync::oneshot;

use crate::{
    interrupted::Interrupted,
    unsure::Odd,
    world::{LEASE_MS, Objects, START, Worker, World, crash, finetune, ingest, log, request, settings, success},
};

#[tokio::test]
async fn a_worker_gets_as_many_tasks_as_it_has_slots_and_the_most_urgent_first() {
    let world = World::new().await;
    let calm = world.submit(ingest()).await;
    world.clock.advance_ms(1);
    let urgent = world.accept(v1::SubmitJobRequest { priority: 5, ..request(ingest()) }).await.expect("accepted");
    world.clock.advance_ms(1);
    world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 2);
    worker.poll(&world.engine).await;
    let mut jobs: Vec<&str> = worker.assignments.values().map(|assignment| assignment.job_id.as_str()).collect();
    jobs.sort_unstable();
    let mut expected = [calm.as_str(), urgent.id.as_str()];
    expected.sort_unstable();
    assert_eq!(jobs, expected);
    worker.poll(&world.engine).await;
    assert_eq!(worker.assignments.len(), 2, "its slots are full");
}

#[tokio::test]
async fn a_lease_whose_answer_was_lost_is_told_again_with_the_same_epoch() {
    let world = World::new().await;
    world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    let mut lost = worker.request.clone();
    lost.sequence = 1;
    let first = world.engine.synchronize(&Caller::everyone(), lost).await.expect("answered");
    worker.request.sequence = 1;
    let again = worker.poll(&world.engine).await;
    assert!(again.leases[0].assignment.is_some());
    assert_eq!(first.leases[0].key, again.leases[0].key);
    assert_eq!(
        worker.poll(&world.engine).await.leases[0].assignment,
        None,
        "the assignment is not repeated once the worker has reported the lease"
    );
}

#[tokio::test]
async fn a_draining_worker_gets_no_task_and_returns_the_tasks_that_it_has() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 2);
    worker.start(&world.engine).await;
    // Two jobs of the same millisecond have no order.
    world.pass(1).await;
    world.submit(ingest()).await;
    worker.request.draining = true;
    worker.end(&world.engine, v1::task_outcome::Outcome::Returned("draining".into())).await;
    worker.poll(&world.engine).await;
    assert!(worker.request.leases.is_empty());
    let job = world.job(&id).await;
    assert_eq!((job.state(), job.attempts[0].outcome()), (JobState::Queued, AttemptOutcome::Returned));
    let mut other = Worker::new("w2", 1);
    assert_eq!(
        other.start(&world.engine).await.job_id,
        id.as_str(),
        "the returned task is ready at once, in its old place"
    );
}

#[tokio::test]
async fn a_draining_worker_is_told_of_a_task_that_its_abandoned_message_has_just_claimed() {
    let clock = Arc::new(ManualClock::new(START));
    let store = Arc::new(Odd::new(MemoryStore::new(clock.clone()), Interrupted::default()));
    let world = World::keeping(store.clone(), clock, Arc::new(Objects::default()), settings()).await;
    let mut worker = Worker::new("w1", 2);
    world.submit(ingest()).await;
    worker.start(&world.engine).await;
    let id = world.submit(ingest()).await;
    let mut next = || {
        worker.request.sequence += 1;
        worker.request.clone()
    };
    let (first, mut last) = (next(), v1::SynchronizeRequest { draining: true, ..next() });
    let returned = v1::task_outcome::Outcome::Returned("draining".into());
    last.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(returned) });
    let engine = world.engine.clone();
    let abandoned = tokio::spawn(async move { engine.synchronize(&Caller::everyone(), first).await });
    let (engine, caller) = (world.engine.clone(), abandoned.abort_handle());
    let (sender, leaving) = oneshot::channel();
    store.applying.before("job:", async move {
        caller.abort();
        sender
            .send(tokio::spawn(async move { engine.synchronize(&Caller::everyone(), last).await }))
            .expect("the test waits for it");
        // Let the last message go as far as it can.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    });
    let answer = leaving.await.expect("a task was claimed").await.expect("no panic").expect("answered");
    let given: Vec<&str> =
        answer.leases.iter().filter_map(|lease| Some(lease.assignment.as_ref()?.job_id.as_str())).collect();
    assert_eq!(given, [id.as_str()]);
}

#[tokio::test]
async fn a_newer_message_ends_the_held_message() {
    let world = World::new().await;
    let held = v1::SynchronizeRequest { sequence: 5, wait_ms: 60_000, ..Worker::new("w1", 1).request };
    let newer = v1::SynchronizeRequest { sequence: 6, wait_ms: 0, ..held.clone() };
    let engine = world.engine.clone();
    let mut holding = tokio::spawn(async move { engine.synchronize(&Caller::everyone(), held).await });
    // The list shows the worker once its message has arrived.
    while world.engine.list_workers().await.expect("answered").is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(futures::future::poll_immediate(&mut holding).await.is_none(), "the message is held");
    world.engine.synchronize(&Caller::everyone(), newer.clone()).await.expect("answered at once");
    let superseded = holding.await.expect("it ends").expect_err("the older message is refused");
    assert!(superseded.to_string().contains("superseded"));
    let older = v1::SynchronizeRequest { sequence: 5, ..newer };
    assert!(world.engine.synchronize(&Caller::everyone(), older).await.is_err(), "an older message is refused");
}

#[tokio::test]
async fn a_worker_whose_message_is_held_gets_a_job_as_soon_as_it_is_submitted() {
    let world = World::new().await;
    let held = v1::SynchronizeRequest { sequence: 1, wait_ms: 60_000, ..Worker::new("w1", 1).request };
    let engine = world.engine.clone();
    let holding = tokio::spawn(async move { engine.synchronize(&Caller::everyone(), held).await });
    while world.engine.list_workers().await.expect("answered").is_empty() {
        tokio::task::yield_now().await;
    }
    let id = world.submit(ingest()).await;
    let answer = holding.await.expect("it ends").expect("answered");
    assert_eq!(answer.leases[0].assignment.as_ref().expect("new").job_id, id.as_str());
}

#[tokio::test]
async fn draining_the_engine_ends_held_polls_and_watches() {
    use futures::StreamExt as _;
    let world = World::new().await;
    let held = v1::SynchronizeRequest { sequence: 1, wait_ms: 60_000, ..Worker::new("w1", 0).request };
    let engine = world.engine.clone();
    let holding = tokio::spawn(async move { engine.synchronize(&Caller::everyone(), held).await });
    let id = world.submit(ingest()).await;
    let watch = world.engine.watch(&world.tenant, &id, 0).await.expect("it exists");
    world.engine.drain();
    holding.await.expect("it ends").expect("with an answer");
    assert!(watch.count().await <= 1);
}

#[tokio::test]
async fn an_event_is_recorded_once_however_often_it_is_reported() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    let both = vec![log(1, "one"), log(2, "two")];
    worker.request.leases[0].events = both.clone();
    let answer = worker.poll(&world.engine).await;
    assert_eq!(answer.leases[0].acknowledged_events, 2);
    worker.request.leases[0].events = [both, vec![log(3, "three")]].concat();
    worker.poll(&world.engine).await;
    worker.request.leases[0].events = (4..=200).map(|sequence| log(sequence, &"long ".repeat(2_000))).collect();
    worker.end(&world.engine, success(b"m")).await;
    let lines = world.history(&id).await.into_iter().filter_map(|event| match event.event {
        Some(Event::Log(line)) => Some(line.text),
        _ => None,
    });
    let lines: Vec<String> = lines.collect();
    assert_eq!(lines[..3], ["one", "two", "three"]);
    assert_eq!(lines.len(), 200, "events are recorded once even when they take several batches");
    assert!(lines[3].len() <= sortinghat_proto::limits::MAX_TEXT_BYTES);
}

#[tokio::test]
async fn a_poll_with_nothing_new_writes_nothing() {
    let world = World::new().await;
    world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    let before = world.writes("before").await;
    for _ in 0..10 {
        worker.poll(&world.engine).await;
        world.sweep().await;
    }
    assert_eq!(world.writes("after").await, before + 1, "nothing between the two probes");
}

#[tokio::test]
async fn an_attempt_with_too_many_log_lines_is_cut_off_and_still_succeeds() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    let limit = sortinghat_proto::limits::MAX_EVENTS_PER_ATTEMPT / 4;
    worker.request.leases[0].events = (1..=limit + 100).map(|sequence| log(sequence, "line")).collect();
    worker.end(&world.engine, success(b"m")).await;
    let logs = world.history(&id).await.into_iter().filter(|event| matches!(event.event, Some(Event::Log(_))));
    assert_eq!(logs.count() as u64, limit);
    assert_eq!(world.state(&id).await, JobState::Succeeded);
}

#[tokio::test]
async fn a_worker_that_is_silent_for_a_lease_is_not_listed() {
    let world = World::new().await;
    Worker::new("b", 1).poll(&world.engine).await;
    Worker::new("a", 1).poll(&world.engine).await;
    let hosts = |list: Vec<(v1::Worker, Served)>| -> Vec<String> { list.into_iter().map(|(w, _)| w.id).collect() };
    assert_eq!(hosts(world.engine.list_workers().await.expect("answered")), ["a", "b"]);
    world.clock.advance_ms(LEASE_MS + 1);
    assert!(hosts(world.engine.list_workers().await.expect("answered")).is_empty());
}

#[tokio::test]
async fn an_unreadable_gate_counts_as_paused_and_does_not_affect_other_tenants() {
    let world = World::new().await;
    let failing = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    let waiting = world.submit(ingest()).await;
    world.plant(&format!("queue:{}", world.tenant), "unreadable", Vec::new()).await;
    world.clock.advance_ms(1);
    world.submit_many(&"other".parse().expect("a tenant"), &request(ingest()), 1).await;
    worker.end(&world.engine, crash()).await;
    assert!(worker.request.leases.is_empty(), "the outcome was acknowledged");
    assert_eq!(worker.start(&world.engine).await.tenant, "other");
    Worker::new("w2", 1).poll(&world.engine).await;
    for id in [&failing, &waiting] {
        assert_eq!(world.state(id).await, JobState::Queued, "a job whose gate cannot be read does not start");
    }
    let refusal = world.engine.queue(&world.tenant).await.expect_err("the record is unreadable");
    assert!(refusal.to_string().contains("cannot be read"), "{refusal:?}");
}

#[tokio::test]
async fn a_ready_queue_whose_name_cannot_be_parsed_delays_no_other_job() {
    let world = World::new().await;
    world.plant("newer", "", vec![("open-queues".into(), "a lane of a newer version:tenant:".into())]).await;
    let id = world.submit(ingest()).await;
    assert_eq!(Worker::new("w1", 1).start(&world.engine).await.job_id, id.as_str());
}

#[tokio::test]
async fn an_unreadable_ready_task_is_passed_over() {
    let world = World::new().await;
    let unreadable = world.submit(ingest()).await;
    world.spoil(&format!("job:{unreadable}")).await;
    let mut worker = Worker::new("w1", 1);
    for _ in 0..2 {
        world.clock.advance_ms(1);
        let job = world.submit(ingest()).await;
        assert_eq!(worker.start(&world.engine).await.job_id, job.as_str());
        worker.end(&world.engine, success(b"dataset")).await;
    }
}

#[tokio::test]
async fn a_worker_whose_task_became_unreadable_gets_other_tasks_once_its_lease_is_over() {
    let world = World::new().await;
    let unreadable = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    world.spoil(&format!("job:{unreadable}")).await;
    world
        .engine
        .synchronize(&Caller::everyone(), worker.request.clone())
        .await
        .expect_err("another coordinator may be able to read it");
    let next = world.submit(ingest()).await;
    // The worker reports this once its lease has ended.
    worker.request.leases.clear();
    worker.request.free_slots = 1;
    assert_eq!(worker.start(&world.engine).await.job_id, next.as_str());
    worker.end(&world.engine, success(b"dataset")).await;
    assert_eq!(world.state(&next).await, JobState::Succeeded);
}

#[tokio::test]
async fn the_change_of_a_running_job_by_another_coordinator_is_not_lost() {
    let world = World::new().await;
    let other = world.beside(settings());
    let parent = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.poll(&world.engine).await;
    let child = other.submit(finetune(&format!("job:{parent}"))).await;
    worker.end(&world.engine, success(b"dataset")).await;
    world.sweep().await;
    assert_eq!(world.state(&child).await, JobState::Queued, "its parent has told it");
}
