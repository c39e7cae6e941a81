//! Preemption: fine-tunes give way to more urgent jobs at a checkpoint.

use sortinghat_proto::{
    JobId, ObjectRef, Tenant,
    limits::MIN_RUN_BEFORE_PREEMPTION_MS,
    v1::{self, AttemptOutcome, JobState, task_outcome::Outcome},
};

use crate::world::{Worker, World, checkpoint, finetune, ingest, request, success};

/// The time between two polls of a worker, in milliseconds. It is less than a third of a lease.
const POLL_MS: u64 = 2_000;

/// A world whose only slot has run a fine-tune of priority 0 for `ran_ms`.
async fn world_with_a_running_fine_tune(ran_ms: u64) -> (World, Worker, JobId) {
    let world = World::new().await;
    world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"dataset")).await;
    let training = world.submit(finetune("stamps@1")).await;
    assert_eq!(worker.start(&world.engine).await.job_id, training.as_str());
    assert!(!is_asked_within(&world, &mut worker, ran_ms).await, "nobody waits");
    (world, worker, training)
}

/// Whether the worker is told within `ms` milliseconds that its task must give way.
async fn is_asked_within(world: &World, worker: &mut Worker, ms: u64) -> bool {
    for _ in 0..ms.div_ceil(POLL_MS) {
        world.pass(POLL_MS).await;
        if worker.poll(&world.engine).await.leases.iter().any(|lease| lease.preempt) {
            return true;
        }
    }
    false
}

/// Checkpoints the newest attempt, returns its task, and returns the id of the job that the worker runs then.
async fn give_way(world: &World, worker: &mut Worker, content: &[u8]) -> String {
    let lease = worker.request.leases.last_mut().expect("it runs a task");
    lease.events = vec![checkpoint(1, content)];
    worker.request.free_slots = 1;
    worker.end(&world.engine, Outcome::Returned("gives way".into())).await;
    worker.poll(&world.engine).await;
    let lease = worker.request.leases.last().expect("the waiting task is offered");
    worker.assignments[&(lease.task_id.clone(), lease.epoch)].job_id.clone()
}

fn of_priority(priority: i32) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest { priority, ..request(ingest()) }
}

fn interactive() -> v1::SubmitJobRequest {
    v1::SubmitJobRequest { lane: v1::Lane::Interactive.into(), ..request(ingest()) }
}

#[tokio::test]
async fn a_fine_tune_gives_its_slot_to_a_more_urgent_job_and_goes_on_from_its_checkpoint() {
    let (world, mut worker, training) = world_with_a_running_fine_tune(MIN_RUN_BEFORE_PREEMPTION_MS).await;
    let urgent = world.accept(of_priority(5)).await.expect("accepted");
    assert!(is_asked_within(&world, &mut worker, 10_000).await);
    assert_eq!(
        give_way(&world, &mut worker, b"step 100").await,
        urgent.id,
        "the urgent job runs, and not the one that gave way"
    );
    assert_eq!(world.state(&training).await, JobState::Queued);
    worker.end(&world.engine, success(b"m")).await;
    world.pass(5_000).await;
    let again = worker.start(&world.engine).await;
    assert_eq!(again.job_id, training.as_str());
    assert_eq!(again.checkpoint, Some(ObjectRef::of(b"step 100").into()));
    worker.end(&world.engine, success(b"model")).await;
    let outcomes: Vec<_> = world.job(&training).await.attempts.iter().map(v1::Attempt::outcome).collect();
    assert_eq!(outcomes, [AttemptOutcome::Returned, AttemptOutcome::Succeeded]);
}

#[tokio::test]
async fn an_interactive_job_takes_the_slot_of_a_bulk_fine_tune() {
    let (world, mut worker, _) = world_with_a_running_fine_tune(MIN_RUN_BEFORE_PREEMPTION_MS).await;
    let urgent = world.accept(interactive()).await.expect("accepted");
    assert!(is_asked_within(&world, &mut worker, 10_000).await);
    assert_eq!(give_way(&world, &mut worker, b"step 1").await, urgent.id);
}

#[tokio::test]
async fn no_attempt_gives_way_before_it_has_run_for_a_while_however_often_its_task_gave_way() {
    let (world, mut worker, training) = world_with_a_running_fine_tune(0).await;
    for round in 0..20_u8 {
        let urgent = world.accept(interactive()).await.expect("accepted");
        let spared = MIN_RUN_BEFORE_PREEMPTION_MS - POLL_MS;
        assert!(!is_asked_within(&world, &mut worker, spared).await, "round {round}: it has only begun");
        assert!(is_asked_within(&world, &mut worker, 10_000).await);
        assert_eq!(give_way(&world, &mut worker, &[round]).await, urgent.id);
        worker.end(&world.engine, success(b"m")).await;
        world.pass(5_000).await;
        assert_eq!(
            worker.start(&world.engine).await.job_id,
            training.as_str(),
            "giving way often does not fail the job"
        );
    }
}

#[tokio::test]
async fn ageing_counts_so_that_an_old_job_does_not_give_way_to_a_slightly_higher_priority() {
    let (world, mut worker, _) = world_with_a_running_fine_tune(2 * MIN_RUN_BEFORE_PREEMPTION_MS).await;
    for priority in [0, 1, 2] {
        world.accept(of_priority(priority)).await.expect("accepted");
        assert!(!is_asked_within(&world, &mut worker, 10_000).await, "priority {priority} is not a step ahead");
    }
    world.accept(of_priority(4)).await.expect("accepted");
    assert!(is_asked_within(&world, &mut worker, 10_000).await);
}

#[tokio::test]
async fn no_task_gives_way_where_that_would_not_help() {
    let (world, mut worker, _) = world_with_a_running_fine_tune(MIN_RUN_BEFORE_PREEMPTION_MS).await;
    let requirements = Some(v1::Requirements { device_kind: "cuda".into(), ..v1::Requirements::default() });
    world.accept(v1::SubmitJobRequest { requirements, ..interactive() }).await.expect("accepted");
    assert!(!is_asked_within(&world, &mut worker, 10_000).await, "the worker of the fine-tune has no GPU");
    world.accept(interactive()).await.expect("accepted");
    let mut idle = Worker::new("idle", 1);
    idle.poll(&world.engine).await;
    assert!(!is_asked_within(&world, &mut worker, 10_000).await, "an idle worker takes it");
}

#[tokio::test]
async fn only_one_task_is_asked_to_give_way_for_one_waiting_job() {
    let (world, mut worker, _) = world_with_a_running_fine_tune(0).await;
    let mut second = Worker::new("w2", 1);
    world.clock.advance_ms(1);
    let newer = world.submit(finetune("stamps@1")).await;
    assert_eq!(second.start(&world.engine).await.job_id, newer.as_str());
    for _ in 0..MIN_RUN_BEFORE_PREEMPTION_MS / POLL_MS {
        second.poll(&world.engine).await;
        assert!(!is_asked_within(&world, &mut worker, POLL_MS).await);
    }
    world.accept(interactive()).await.expect("accepted");
    let mut asked = (false, false);
    for _ in 0..10 {
        asked.1 |= second.poll(&world.engine).await.leases.iter().any(|lease| lease.preempt);
        asked.0 |= is_asked_within(&world, &mut worker, POLL_MS).await;
    }
    assert_eq!(asked, (false, true), "the fine-tune that was submitted last is asked");
}

#[tokio::test]
async fn a_tenant_keeps_its_fair_share_whatever_priority_another_tenant_claims() {
    let (world, mut worker, _) = world_with_a_running_fine_tune(MIN_RUN_BEFORE_PREEMPTION_MS).await;
    let greedy: Tenant = "greedy".parse().expect("a tenant");
    let mut busy = Worker::new("busy", 1);
    world.submit_many(&greedy, &of_priority(10), 3).await;
    assert_eq!(busy.start(&world.engine).await.tenant, "greedy");
    for _ in 0..10 {
        busy.poll(&world.engine).await;
        assert!(!is_asked_within(&world, &mut worker, POLL_MS).await, "each tenant has one of two slots");
    }
    busy.request.draining = true;
    busy.end(&world.engine, success(b"m")).await;
    assert!(
        is_asked_within(&world, &mut worker, 10_000).await,
        "the tenant `greedy` has no slot, and its job is more urgent"
    );
}

#[tokio::test]
async fn a_job_of_a_paused_queue_asks_nobody_to_give_way() {
    let (world, mut worker, _) = world_with_a_running_fine_tune(MIN_RUN_BEFORE_PREEMPTION_MS).await;
    world.engine.pause_queue(&world.tenant).await.expect("it answers");
    world.accept(of_priority(5)).await.expect("accepted");
    assert!(!is_asked_within(&world, &mut worker, 20_000).await, "the urgent job could not start");
    world.engine.resume_queue(&world.tenant).await.expect("it answers");
    assert!(is_asked_within(&world, &mut worker, 20_000).await);
}
