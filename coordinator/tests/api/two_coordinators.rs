//! Two coordinators over one Redis. It does not matter which of them a caller talks to.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt as _;
use sortinghat_coordinator::{
    config::{ObjectStoreUrl, Settings},
    store::RedisServer,
};
use sortinghat_proto::{
    ObjectRef,
    v1::{
        FindMissingObjectsRequest, GetJobRequest, JobState, LeaseReport, PauseQueueRequest, ResumeQueueRequest,
        WatchJobRequest, job_event::Event, watch_job_response::Update,
    },
};
use tempfile::TempDir;

use crate::harness::{ByHand, Coordinator, collecting};

/// How long anything may take that includes no fault and no wait.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pair {
    first: Coordinator,
    second: Coordinator,
    _redis: RedisServer,
    _folder: TempDir,
}

/// Starts two coordinators that share a Redis and the objects, and nothing else.
async fn pair() -> Pair {
    pair_with(Settings::default()).await
}

/// Starts two such coordinators with these settings.
async fn pair_with(settings: Settings) -> Pair {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let redis = RedisServer::start(folder.path());
    let settings = Settings {
        store: redis.url().parse().ok(),
        object_store: ObjectStoreUrl::of_folder(&folder.path().join("objects")).ok(),
        ..settings
    };
    let (first, second) =
        tokio::join!(Coordinator::start_with(settings.clone()), Coordinator::start_with(settings.clone()));
    Pair { first, second, _redis: redis, _folder: folder }
}

#[tokio::test]
async fn a_worker_that_switches_in_the_middle_of_a_lease_keeps_it_and_commits_once() {
    let pair = pair().await;
    let (mut first, second) = (pair.first.client().await, pair.second.client().await);
    let job_id = first.submit_ingest("stamps").await;
    let mut worker = ByHand::new(first.clone());
    let lease = worker.take().await;
    let key = lease.key.clone().expect("a lease has a key");
    for (round, client) in [&second, &first, &second].into_iter().enumerate() {
        worker.switch_to(client.clone());
        let beat = round as u64;
        let report = LeaseReport { task_id: key.task_id.clone(), epoch: key.epoch, beat, ..LeaseReport::default() };
        let answer = worker.synchronize(vec![report], 0, 0).await.expect("either one answers");
        assert_eq!(answer.leases.len(), 1, "the worker holds its lease");
        assert_eq!(answer.leases[0].key, lease.key, "the lease has the same epoch");
        assert!(answer.leases[0].assignment.is_none(), "the assignment is not repeated");
    }
    worker.finish(&lease).await;
    worker.switch_to(first.clone());
    worker.finish(&lease).await;
    let job = first.jobs.get_job(GetJobRequest { job_id }).await.expect("it exists").into_inner().job.expect("a job");
    assert_eq!((job.state(), job.attempts.len()), (JobState::Succeeded, 1));
    assert_eq!(job.output.expect("it succeeded").name, "stamps@1");
}

#[tokio::test]
async fn a_worker_whose_coordinator_has_stopped_goes_on_at_the_other() {
    let pair = pair().await;
    let (mut first, mut second) = (pair.first.client().await, pair.second.client().await);
    let job_id = first.submit_ingest("stamps").await;
    let mut worker = ByHand::new(first);
    let lease = worker.take().await;
    pair.first.ask_to_stop();
    pair.first.stopped().await;
    worker.switch_to(second.clone());
    worker.confirm(&lease).await;
    worker.finish(&lease).await;
    let job = second.jobs.get_job(GetJobRequest { job_id }).await.expect("it exists").into_inner().job.expect("a job");
    assert_eq!((job.state(), job.attempts.len()), (JobState::Succeeded, 1));
}

#[tokio::test]
async fn each_job_is_claimed_once_whichever_coordinator_the_workers_ask() {
    const JOBS: usize = 40;
    const WORKERS: usize = 8;
    let pair = pair().await;
    let (mut first, second) = (pair.first.client().await, pair.second.client().await);
    let request = first.ingest_request("stamps").await;
    for _ in 0..JOBS {
        first.jobs.submit_job(request.clone()).await.expect("accepted");
    }
    let workers = (0..WORKERS).map(|number| {
        let client = if number % 2 == 0 { first.clone() } else { second.clone() };
        let mut worker = ByHand::named(&format!("worker-{number}"), client);
        async move {
            let mut claimed = Vec::new();
            for _ in 0..JOBS / WORKERS {
                let lease = worker.take().await;
                claimed.push(lease.key.clone().expect("a lease has a key").task_id);
                worker.finish(&lease).await;
            }
            claimed
        }
    });
    let claimed = tokio::time::timeout(PATIENCE, futures::future::join_all(workers)).await.expect("enough for all");
    let tasks: BTreeSet<String> = claimed.into_iter().flatten().collect();
    assert_eq!(tasks.len(), JOBS, "no task was claimed twice");
}

#[tokio::test]
async fn a_queue_that_is_paused_at_one_starts_nothing_at_the_other_until_it_is_resumed() {
    let pair = pair().await;
    let (mut first, second) = (pair.first.client().await, pair.second.client().await);
    first.jobs.pause_queue(PauseQueueRequest::default()).await.expect("it answers");
    first.submit_ingest("stamps").await;
    let mut worker = ByHand::new(second);
    let told = worker.synchronize(vec![], 1, 0).await.expect("a worker may call");
    assert!(told.leases.is_empty());
    let resume = async {
        first.jobs.resume_queue(ResumeQueueRequest::default()).await.expect("it answers");
    };
    let both = tokio::time::timeout(PATIENCE, futures::future::join(worker.take(), resume)).await;
    let (lease, ()) = both.expect("the held poll is woken");
    worker.finish(&lease).await;
}

#[tokio::test]
async fn a_watch_at_one_coordinator_reports_the_events_of_the_other() {
    let pair = pair().await;
    let (mut first, mut second) = (pair.first.client().await, pair.second.client().await);
    let job_id = first.submit_ingest("stamps").await;
    let request = WatchJobRequest { job_id, ..WatchJobRequest::default() };
    let mut events = second.jobs.watch_job(request).await.expect("it exists").into_inner();
    let mut worker = ByHand::new(first);
    let lease = worker.take().await;
    worker.finish(&lease).await;
    let mut states = Vec::new();
    let watched = async {
        while let Some(update) = events.next().await {
            let Some(Update::Event(event)) = update.expect("the stream goes on").update else { continue };
            if let Some(Event::StateChanged(changed)) = event.event {
                states.push(changed.state());
            }
        }
    };
    tokio::time::timeout(PATIENCE, watched).await.expect("it ends with the job");
    assert_eq!(states, [JobState::Queued, JobState::Running, JobState::Succeeded]);
}

#[tokio::test]
async fn objects_are_collected_unless_either_coordinator_was_asked_for_them() {
    let pair = pair_with(collecting()).await;
    let (mut first, mut second) = (pair.first.client().await, pair.second.client().await);
    first.submit_ingest("stamps").await;
    let mut worker = ByHand::new(second.clone());
    let lease = worker.take().await;
    let shard = worker.finish_dataset(&lease).await;
    let (stray, reused) = (first.upload(b"stray").await, second.upload(b"reused").await);
    let digests = vec![reused.digest.to_string()];
    let begun = tokio::time::Instant::now();
    while first.read(&stray.digest).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it is never removed");
        let request = FindMissingObjectsRequest { digests: digests.clone() };
        let found = second.artifacts.find_missing_objects(request).await.expect("allowed").into_inner();
        assert_eq!(found.missing, [""; 0], "the object that is asked for all the time is kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for digest in [&shard, &ObjectRef::of(b"photo").digest, &reused.digest] {
        second.read(digest).await.expect("the object is still needed");
    }
    first.await_removal(&reused.digest).await;
}
