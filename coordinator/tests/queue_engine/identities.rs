//! Workers by their identity: a worker runs tasks of the tenants that it serves, and nobody else speaks for it.

use std::{collections::BTreeSet, sync::Arc};

use sortinghat_coordinator::{
    auth::{Caller, Proof, Role, Served},
    engine::EngineError,
};
use sortinghat_proto::{
    JobId, Tenant,
    limits::SESSION_SECRET_BYTES,
    v1::{self, ErrorCode, JobState},
};

use crate::world::{LEASE_MS, Worker, World, finetune, ingest, request, settings, success};

/// For how long a session is kept, in milliseconds.
const KEPT_MS: u64 = 24 * 3_600_000;

fn tenant(name: &str) -> Tenant {
    name.parse().expect("a tenant")
}

/// The holder of a worker's token that serves these tenants.
fn serving(id: &str, tenants: &[&str]) -> Caller {
    let served: BTreeSet<Tenant> = tenants.iter().map(|name| tenant(name)).collect();
    Caller {
        id: id.parse().expect("a name"),
        proof: Proof::Token,
        role: Role::Worker,
        tenant: None,
        serves: Served::These(Arc::new(served)),
        expires: None,
        is_alone: false,
    }
}

fn worker(id: &str, tenants: &[&str]) -> Worker {
    Worker { caller: serving(id, tenants), ..Worker::new(id, 1) }
}

async fn submit_for(world: &World, name: &str) -> JobId {
    let jobs = vec![request(ingest())];
    let response = world.engine.submit_many(&tenant(name), jobs).await.expect("answered");
    let Some(v1::submit_verdict::Verdict::Accepted(accepted)) = response.verdicts[0].verdict.clone() else {
        panic!("refused")
    };
    accepted.job.expect("a job").id.parse().expect("an id")
}

async fn refusal(world: &World, worker: &Worker) -> ErrorCode {
    world.engine.synchronize(&worker.caller, worker.request.clone()).await.expect_err("refused").code()
}

#[tokio::test]
async fn a_worker_is_given_tasks_of_the_tenants_that_it_serves_and_of_no_other() {
    let world = World::new().await;
    let (of_a, of_b) = (submit_for(&world, "a").await, submit_for(&world, "b").await);
    let mut only_b = worker("w1", &["b", "c"]);
    assert_eq!(only_b.start(&world.engine).await.job_id, of_b.as_str(), "the older job is of another tenant");
    only_b.end(&world.engine, success(b"m")).await;
    only_b.poll(&world.engine).await;
    assert!(only_b.request.leases.is_empty(), "nothing is left for it");
    let mut all = Worker::new("w2", 1);
    assert_eq!(all.start(&world.engine).await.job_id, of_a.as_str());
}

#[tokio::test]
async fn a_worker_that_waits_is_woken_for_its_own_tenants_and_not_for_others() {
    let world = World::new().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let (engine, stopped) = (world.engine.clone(), stop.clone());
    let upkeep = tokio::spawn(async move { engine.run(stopped).await });
    let mut waiting = Vec::new();
    for (id, name) in [("w1", "a"), ("w2", "b")] {
        let mut worker = worker(id, &[name]);
        worker.request.wait_ms = u32::MAX;
        let engine = world.engine.clone();
        waiting.push(tokio::spawn(async move {
            worker.poll(&engine).await;
            worker
        }));
    }
    while world.engine.list_workers().await.expect("answered").len() < 2 {
        tokio::task::yield_now().await;
    }
    let job = submit_for(&world, "b").await;
    let woken = waiting.pop().expect("two wait").await.expect("no panic");
    assert_eq!(woken.request.leases[0].task_id, format!("{job}.0"));
    assert!(!waiting[0].is_finished(), "there is nothing for it");
    waiting[0].abort();
    stop.cancel();
    upkeep.await.expect("no panic");
}

#[tokio::test]
async fn a_worker_that_serves_a_tenant_no_longer_loses_its_tasks_and_their_results() {
    let world = World::new().await;
    let job = submit_for(&world, "a").await;
    let mut worker = worker("w1", &["a"]);
    worker.start(&world.engine).await;
    worker.caller = serving("w1", &["b"]);
    let answer = worker.end(&world.engine, success(b"m")).await;
    assert!(answer.leases.is_empty() && answer.acknowledged.len() == 1, "it need not say so again: {answer:?}");
    let state = async || world.engine.get(&tenant("a"), &job).await.expect("it exists").state();
    assert_eq!(state().await, JobState::Running, "its result was not taken");
    world.pass(LEASE_MS + 1).await;
    world.pass(2_000).await;
    let mut other = self::worker("w2", &["a"]);
    other.start(&world.engine).await;
    other.end(&world.engine, success(b"m")).await;
    assert_eq!(state().await, JobState::Succeeded);
}

#[tokio::test]
async fn the_cache_of_a_worker_that_does_not_serve_the_tenant_delays_no_task() {
    let world = World::new().await;
    let mut maker = Worker::new("maker", 1);
    submit_for(&world, "a").await;
    maker.start(&world.engine).await;
    maker.end(&world.engine, success(b"dataset")).await;
    let mut foreign = worker("foreign", &["b"]);
    foreign.request.cached = vec![sortinghat_proto::Digest::of(b"dataset").to_string()];
    foreign.poll(&world.engine).await;
    let training = world.engine.submit_many(&tenant("a"), vec![request(finetune("stamps@1"))]).await;
    training.expect("accepted");
    let mut own = worker("own", &["a"]);
    own.start(&world.engine).await;
}

/// A world in which the worker `w1` runs a task, and the worker.
async fn with_a_running_task() -> (World, JobId, Worker) {
    let world = World::new().await;
    let job = world.submit(ingest()).await;
    let mut honest = Worker { caller: serving("gpu-1", &["local"]), ..Worker::new("w1", 1) };
    honest.start(&world.engine).await;
    (world, job, honest)
}

#[tokio::test]
async fn nobody_speaks_for_a_worker_without_its_secret_and_its_identity() {
    let (world, job, mut honest) = with_a_running_task().await;
    let forged = |caller: &Caller, secret: u8| {
        let mut rogue = Worker { caller: caller.clone(), ..Worker::new("w1", 1) };
        rogue.request = honest.request.clone();
        rogue.request.sequence = u64::MAX;
        rogue.request.session_secret = vec![secret; SESSION_SECRET_BYTES];
        rogue.request.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(success(b"forged")) });
        rogue
    };
    for rogue in [forged(&honest.caller, 8), forged(&serving("gpu-2", &["local"]), 7), forged(&Caller::everyone(), 7)] {
        assert_eq!(refusal(&world, &rogue).await, ErrorCode::PermissionDenied);
    }
    assert_eq!(world.state(&job).await, JobState::Running, "no forged result was taken");
    honest.poll(&world.engine).await;
    assert_eq!(honest.request.leases.len(), 1, "it was not locked out by a sequence, and holds its lease");
    honest.end(&world.engine, success(b"m")).await;
    assert_eq!(world.state(&job).await, JobState::Succeeded);
}

#[tokio::test]
async fn a_coordinator_that_has_never_heard_of_the_worker_knows_whose_it_is() {
    let (world, job, mut honest) = with_a_running_task().await;
    let beside = world.beside(settings());
    let mut rogue = Worker { caller: serving("gpu-2", &["local"]), ..Worker::new("w1", 1) };
    assert_eq!(refusal(&beside, &rogue).await, ErrorCode::PermissionDenied);
    rogue.caller = honest.caller.clone();
    rogue.request.session_secret = vec![8; SESSION_SECRET_BYTES];
    assert_eq!(refusal(&beside, &rogue).await, ErrorCode::PermissionDenied);
    honest.end(&beside.engine, success(b"m")).await;
    assert_eq!(world.state(&job).await, JobState::Succeeded);
}

#[tokio::test]
async fn the_messages_of_a_known_worker_write_nothing_about_its_session() {
    let (world, _, mut honest) = with_a_running_task().await;
    honest.poll(&world.engine).await;
    let before = world.writes("before").await;
    honest.poll(&world.engine).await;
    assert_eq!(world.writes("after").await, before + 1, "the probe alone was written");
}

#[tokio::test]
async fn a_worker_of_an_older_version_is_told_to_be_replaced() {
    let world = World::new().await;
    for length in [0, SESSION_SECRET_BYTES - 1] {
        let mut old = Worker::new("w1", 1);
        old.request.session_secret = vec![7; length];
        let refused = world.engine.synchronize(&old.caller, old.request.clone()).await.expect_err("refused");
        let EngineError::Refused(refusal) = refused else { panic!("{refused}") };
        assert!(refusal.message.contains("older version: replace it"), "{refusal}");
    }
}

#[tokio::test]
async fn a_session_lasts_as_long_as_its_worker_talks_and_is_forgotten_later() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    worker.poll(&world.engine).await;
    assert!(world.holds("session:w1").await);
    // Another coordinator, which has to ask the store, finds the session half over and prolongs it.
    world.clock.advance_ms(KEPT_MS / 2 + 1);
    worker.poll(&world.beside(settings()).engine).await;
    assert_eq!(world.pass(KEPT_MS / 2).await.sessions, 0, "it was prolonged");
    assert_eq!((world.holds("session:w1").await, world.index("sessions").await.len()), (true, 1));
    assert_eq!(world.pass(KEPT_MS / 2 + 1).await.sessions, 1);
    assert_eq!((world.holds("session:w1").await, world.index("sessions").await.len()), (false, 0));
    worker.poll(&world.engine).await;
    assert!(world.holds("session:w1").await, "a worker that comes back begins anew");
}

#[tokio::test]
async fn a_first_message_whose_commit_is_unsure_begins_one_session() {
    for seed in 0..20 {
        let world = World::unsure(seed, settings()).await;
        let mut worker = Worker::new("w1", 1);
        worker.poll(&world.engine).await;
        assert_eq!(world.index("sessions").await.len(), 1, "seed {seed}");
    }
}
