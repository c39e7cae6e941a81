//! Scheduling: which task a worker gets next, and that no task is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sortinghat_coordinator::engine::Settings;
use sortinghat_proto::{
    Tenant,
    limits::MAX_REQUIREMENT_CLASSES,
    v1::{self, ErrorCode, JobState},
};

use crate::world::{START, Worker, World, ingest, request, settings, success};

fn tenant(name: &str) -> Tenant {
    name.parse().expect("a tenant")
}

fn in_lane(lane: v1::Lane) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest { lane: lane.into(), ..request(ingest()) }
}

fn requiring(requirements: v1::Requirements) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest { requirements: Some(requirements), ..request(ingest()) }
}

/// Ends the tasks of a worker, so that it takes the next task in the same call, and returns that task.
async fn next(world: &World, worker: &mut Worker) -> Option<v1::Assignment> {
    for lease in &mut worker.request.leases {
        lease.outcome = Some(v1::TaskOutcome { outcome: Some(success(lease.task_id.as_bytes())) });
    }
    worker.request.free_slots = worker.request.description.as_ref().map_or(0, |description| description.slots);
    worker.poll(&world.engine).await;
    let lease = worker.request.leases.last()?;
    Some(worker.assignments[&(lease.task_id.clone(), lease.epoch)].clone())
}

#[tokio::test]
async fn interactive_jobs_go_first_but_one_claim_in_eight_is_a_bulk_job() {
    let world = World::new().await;
    world.submit_many(&world.tenant, &in_lane(v1::Lane::Bulk), 3).await;
    world.submit_many(&world.tenant, &in_lane(v1::Lane::Interactive), 20).await;
    let mut worker = Worker::new("w1", 1);
    let mut lanes = String::new();
    while let Some(assignment) = next(&world, &mut worker).await {
        let job = world.job(&assignment.job_id.parse().expect("an id")).await;
        lanes.push(if job.lane() == v1::Lane::Interactive { 'i' } else { 'b' });
    }
    assert_eq!(lanes, "iiiiiiibiiiiiiibiiiiiib");
}

#[tokio::test]
async fn a_tenant_with_ten_thousand_jobs_delays_a_single_job_of_another_tenant_by_at_most_two_tasks() {
    const TASK_MS: u64 = 1_000;
    for (slots, priority) in [(1, 0), (2, 0), (5, 0), (5, 10)] {
        let world = World::new().await;
        let (many, single) = (tenant("many"), tenant("single"));
        let urgent = v1::SubmitJobRequest { priority, ..request(ingest()) };
        world.submit_many(&many, &urgent, 10_000).await;
        let mut workers: Vec<Worker> = (0..slots).map(|number| Worker::new(&format!("w{number}"), 1)).collect();
        let started = async |workers: &mut [Worker]| {
            let mut tenants = Vec::new();
            for worker in workers {
                // The tasks do not all end at the same moment.
                world.pass(TASK_MS / slots).await;
                tenants.push(next(&world, worker).await.expect("there is enough to do").tenant);
            }
            tenants
        };
        for _ in 0..10 {
            started(&mut workers).await;
        }
        world.submit_many(&single, &request(ingest()), 1).await;
        let mut after = Vec::new();
        while !after.contains(&single.to_string()) {
            after.extend(started(&mut workers).await);
        }
        let before = after.iter().take_while(|tenant| **tenant != single.as_str()).count();
        assert!(before <= 2, "{before} tasks started before the single job with {slots} slots, priority {priority}");
    }
}

#[tokio::test]
async fn slots_are_shared_between_tenants_by_their_weights() {
    let weights = HashMap::from([(tenant("heavy"), 3)]);
    let world = World::with(Settings { weights, ..settings() }).await;
    for name in ["light", "heavy"] {
        world.submit_many(&tenant(name), &request(ingest()), 200).await;
    }
    for slots in [1, 8] {
        let mut workers: Vec<Worker> = (0..slots).map(|number| Worker::new(&format!("w{slots}-{number}"), 1)).collect();
        let mut run: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..32 / slots {
            for worker in &mut workers {
                let assignment = next(&world, worker).await.expect("there is enough to do");
                *run.entry(assignment.tenant).or_default() += 1;
            }
        }
        assert_eq!(run["heavy"], 24, "{slots} slots: {run:?}");
        for worker in &mut workers {
            worker.request.draining = true;
            next(&world, worker).await;
        }
    }
}

#[tokio::test]
async fn a_job_waits_for_a_worker_that_meets_its_requirements_and_delays_no_other_job() {
    let world = World::new().await;
    let labels = [("zone".to_owned(), "eu".to_owned())];
    let needs = v1::Requirements {
        device_kind: "cuda".into(),
        min_device_memory_bytes: 8 << 30,
        labels: labels.clone().into(),
        ..v1::Requirements::default()
    };
    let demanding = world.accept(requiring(needs.clone())).await.expect("accepted");
    assert_eq!((demanding.lane(), demanding.requirements), (v1::Lane::Bulk, Some(needs)));
    let modest = world.submit(ingest()).await;
    let mut plain = Worker::new("plain", 2);
    plain.poll(&world.engine).await;
    let given: Vec<&str> = plain.assignments.values().map(|assignment| assignment.job_id.as_str()).collect();
    assert_eq!(given, [modest.as_str()]);
    let mut able = Worker::new("able", 2);
    let description = able.request.description.as_mut().expect("it has one");
    description.device = "cuda:0".into();
    description.device_memory_bytes = 8 << 30;
    description.labels = labels.into();
    assert_eq!(able.start(&world.engine).await.job_id, demanding.id);
}

#[tokio::test]
async fn the_number_of_different_requirements_is_bounded_so_that_claims_stay_cheap() {
    let world = World::new().await;
    let of_size = |bytes| requiring(v1::Requirements { min_memory_bytes: bytes, ..v1::Requirements::default() });
    for bytes in 1..=MAX_REQUIREMENT_CLASSES as u64 {
        world.accept(of_size(bytes)).await.expect("accepted");
    }
    let refusal = world.accept(of_size(1 << 40)).await.expect_err("one too many");
    assert_eq!((refusal.code, refusal.field.as_str()), (ErrorCode::ResourceExhausted, "requirements"));
    world.accept(of_size(1)).await.expect("more jobs with the same requirements are accepted");
    world.accept(request(ingest())).await.expect("a job without requirements is always accepted");
}

#[tokio::test]
async fn the_requirements_of_jobs_that_cannot_start_yet_count_for_as_long_as_the_jobs_wait() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let world = World::new().await;
    let parent = world.submit(ingest()).await;
    let of_size = |bytes| requiring(v1::Requirements { min_memory_bytes: bytes, ..v1::Requirements::default() });
    let child = |bytes| v1::SubmitJobRequest { parents: vec![parent.to_string()], ..of_size(bytes) };
    let not_before_unix_ms = START.plus_ms(DAY_MS).to_wire();
    let delayed = |bytes| v1::SubmitJobRequest { not_before_unix_ms, ..of_size(bytes) };
    let first = world.accept(delayed(1)).await.expect("accepted");
    for bytes in 2..=MAX_REQUIREMENT_CLASSES as u64 {
        world.accept(if bytes % 2 == 0 { child(bytes) } else { delayed(bytes) }).await.expect("accepted");
    }
    let linger_ms = settings().queue_linger_ms;
    for _ in 0..3 {
        assert_eq!(world.pass(linger_ms).await.closed, 0);
    }
    for request in [of_size(1 << 40), child(1 << 40), delayed(1 << 40)] {
        assert_eq!(world.accept(request).await.expect_err("one too many").code, ErrorCode::ResourceExhausted);
    }
    world.engine.cancel(&world.tenant, &first.id.parse().expect("an id")).await.expect("it waits");
    world.pass(linger_ms).await;
    assert_eq!(world.pass(linger_ms).await.closed, 1);
    world.accept(child(1 << 40)).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn coordinators_that_claim_at_the_same_time_lease_every_task_once() {
    const JOBS: usize = 200;
    let world = World::new().await;
    world.submit_many(&world.tenant, &request(ingest()), JOBS).await;
    let coordinators = [world.beside(settings()), world.beside(settings()), world.beside(settings())];
    let claims = (0..12).map(|number| {
        let engine = coordinators[number % coordinators.len()].engine.clone();
        tokio::spawn(async move {
            let mut worker = Worker::new(&format!("w{number}"), 5);
            let mut given = Vec::new();
            loop {
                let before = worker.assignments.len();
                worker.poll(&engine).await;
                if worker.assignments.len() == before {
                    return given;
                }
                given.extend(worker.request.leases.iter().map(|lease| lease.task_id.clone()));
                for lease in &mut worker.request.leases {
                    lease.outcome = Some(v1::TaskOutcome { outcome: Some(success(b"m")) });
                }
                worker.request.free_slots = 5;
            }
        })
    });
    let mut given = Vec::new();
    for claimed in futures::future::join_all(claims).await {
        given.extend(claimed.expect("it ends"));
    }
    let different: BTreeSet<&String> = given.iter().collect();
    assert_eq!((given.len(), different.len()), (JOBS, JOBS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_task_is_lost_while_queues_open_and_close_at_the_same_time() {
    const JOBS: usize = 300;
    let hasty = || Settings { queue_linger_ms: 0, ..settings() };
    let world = World::with(hasty()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let sweepers: Vec<_> = (0..2)
        .map(|_| {
            let (sweeper, stop) = (world.beside(hasty()), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    sweeper.sweep().await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let submitter = {
        let world = world.beside(hasty());
        tokio::spawn(async move {
            for _ in 0..JOBS {
                world.submit_many(&world.tenant, &request(ingest()), 1).await;
                tokio::task::yield_now().await;
            }
        })
    };
    let mut worker = Worker::new("w1", 4);
    while worker.assignments.len() < JOBS {
        if next(&world, &mut worker).await.is_none() {
            tokio::task::yield_now().await;
        }
    }
    submitter.await.expect("it ends");
    stop.cancel();
    for sweeper in sweepers {
        sweeper.await.expect("it ends");
    }
    next(&world, &mut worker).await;
    let list = v1::ListJobsRequest { states: vec![JobState::Succeeded.into()], page_size: 1000, ..Default::default() };
    assert_eq!(world.engine.list(&world.tenant, list).await.expect("a page").jobs.len(), JOBS);
}

#[tokio::test]
async fn a_queue_is_closed_when_it_has_been_empty_for_a_while_and_its_next_job_opens_it() {
    let world = World::new().await;
    world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    let linger_ms = settings().queue_linger_ms;
    for _ in 0..3 {
        assert_eq!(world.pass(linger_ms).await.closed, 0, "it holds a task");
    }
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    assert_eq!(world.pass(linger_ms).await.closed, 0, "the queue has only just become empty");
    assert_eq!(world.pass(linger_ms).await.closed, 1);
    let id = world.submit(ingest()).await;
    assert_eq!(worker.start(&world.engine).await.job_id, id.as_str());
}
