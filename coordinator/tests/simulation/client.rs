//! A client. It submits jobs: some of them twice, some with parents, some with start times or deadlines. It cancels single jobs and many at
//! once, pauses the queue, waits for the end of every job, and retries the jobs that did not succeed.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{
    ObjectRef,
    manifest::{self, UploadManifest, UploadedFile},
    v1::{
        self, JobState, UploadObjectRequest, job_spec::Kind, upload_object_request::Part, watch_job_response::Update,
    },
};
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::{COORDINATORS, ledger::Ledger, network::Clients, store::now};

const JOBS: usize = 24;
/// Jobs are submitted during this time, so that faults hit every stage of a job.
const SUBMISSION: Duration = Duration::from_secs(18);
/// The time until a job's deadline, in milliseconds. It is longer than any fault delays the acceptance of a job.
const TIME_MS: std::ops::Range<u64> = 25_000..40_000;

struct Client {
    ledger: Ledger,
    dice: StdRng,
    coordinators: Vec<Clients>,
}

/// Submits all jobs, waits until they have ended, and checks them.
pub(crate) async fn run(ledger: Ledger, dice: StdRng) -> turmoil::Result {
    let coordinators = COORDINATORS.into_iter().map(Clients::of).collect();
    let mut client = Client { ledger, dice, coordinators };
    let photo = client.upload(b"a photo").await;
    let files = vec![UploadedFile::new("cats/a.png", photo)];
    let source = client.upload(&manifest::encode(&UploadManifest::of(files))).await;
    let mut jobs: Vec<String> = Vec::new();
    for number in 0..JOBS {
        let job = client.submit(number, &jobs, &source).await;
        jobs.push(job);
        if client.dice.random_range(0..8) == 0 {
            let job = jobs[client.dice.random_range(0..jobs.len())].clone();
            client.persist(async |mut coordinator| cancel(&mut coordinator, &job).await).await;
        }
        match client.dice.random_range(0..24) {
            0 => client.persist(cancel_blocked).await,
            1 => client.pause_for_a_while().await,
            _ => {}
        }
        let pause = SUBMISSION.as_millis() as u64 * 2 / JOBS as u64;
        sleep(Duration::from_millis(client.dice.random_range(0..pause))).await;
    }
    for job in &jobs {
        let job = client.check(job).await;
        // A retry refers to the retries of its parents, which may not exist.
        if job.state() != JobState::Succeeded && job.parents.is_empty() {
            let retry = client.retry(&job.id).await;
            client.check(&retry).await;
        }
    }
    let datasets = client.persist(async |mut coordinator| {
        let request = v1::ListDatasetsRequest { page_size: 1_000, ..v1::ListDatasetsRequest::default() };
        Ok(coordinator.artifacts.list_datasets(request).await?.into_inner().datasets)
    });
    let names = datasets.await.into_iter().map(|dataset| dataset.name).collect();
    client.ledger.check_names(names);
    Ok(())
}

async fn cancel(coordinator: &mut Clients, job_id: &str) -> Result<(), Status> {
    let request = v1::CancelJobRequest { job_id: job_id.to_owned() };
    coordinator.jobs.cancel_job(request).await.map(drop)
}

async fn cancel_blocked(mut coordinator: Clients) -> Result<(), Status> {
    let request = v1::CancelJobsRequest { states: vec![JobState::Blocked.into()], ..v1::CancelJobsRequest::default() };
    coordinator.jobs.cancel_jobs(request).await.map(drop)
}

async fn get(coordinator: &mut Clients, job_id: &str) -> Result<v1::Job, Status> {
    let request = v1::GetJobRequest { job_id: job_id.to_owned() };
    Ok(coordinator.jobs.get_job(request).await?.into_inner().job.expect("a job"))
}

/// Whether another attempt may succeed.
fn is_passing(status: &Status) -> bool {
    assert!(!status.message().contains("invariant"), "{status}");
    !matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::PermissionDenied)
}

impl Client {
    fn any_coordinator(&mut self) -> Clients {
        self.coordinators[self.dice.random_range(0..self.coordinators.len())].clone()
    }

    /// Repeats a call, with either coordinator, until it succeeds.
    async fn persist<T>(&mut self, call: impl AsyncFn(Clients) -> Result<T, Status>) -> T {
        loop {
            match call(self.any_coordinator()).await {
                Ok(answer) => return answer,
                Err(status) => assert!(is_passing(&status), "{status}"),
            }
            sleep(Duration::from_millis(self.dice.random_range(50..500))).await;
        }
    }

    async fn upload(&mut self, content: &[u8]) -> ObjectRef {
        let object = ObjectRef::of(content);
        let (header, content) = (object.clone(), Bytes::copy_from_slice(content));
        self.persist(async |mut coordinator| {
            let parts = [Part::Header(header.clone().into()), Part::Data(content.clone())];
            let messages: Vec<_> = parts.into_iter().map(|part| UploadObjectRequest { part: Some(part) }).collect();
            coordinator.artifacts.upload_object(futures::stream::iter(messages)).await.map(drop)
        })
        .await;
        object
    }

    /// Submits a job until it is acknowledged, and sometimes once more.
    async fn submit(&mut self, number: usize, jobs: &[String], source: &ObjectRef) -> String {
        let ingest = v1::IngestSpec {
            dataset_name: format!("set{}", number % 3),
            source: Some(source.clone().into()),
            ..v1::IngestSpec::default()
        };
        let mut request = v1::SubmitJobRequest {
            idempotency_key: format!("job-{number}"),
            spec: Some(v1::JobSpec { kind: Some(Kind::Ingest(ingest)) }),
            priority: self.dice.random_range(-2..=2),
            ..v1::SubmitJobRequest::default()
        };
        if !jobs.is_empty() && self.dice.random_range(0..3) == 0 {
            request.parents = vec![jobs[self.dice.random_range(0..jobs.len())].clone()];
        }
        if self.dice.random_range(0..6) == 0 {
            request.not_before_unix_ms = now().plus_ms(self.dice.random_range(0..5_000)).to_wire();
        }
        if self.dice.random_range(0..6) == 0 {
            request.deadline_unix_ms = now().plus_ms(self.dice.random_range(TIME_MS)).to_wire();
        }
        let mut job = String::new();
        for _ in 0..1 + usize::from(self.dice.random_range(0..4) == 0) {
            let request = request.clone();
            let accepted = self.persist(async |mut coordinator| {
                Ok(coordinator.jobs.submit_job(request.clone()).await?.into_inner().job.expect("a job"))
            });
            job = accepted.await.id;
            self.ledger.accepted(&format!("job-{number}"), &job);
        }
        job
    }

    /// Pauses the queue for a while.
    async fn pause_for_a_while(&mut self) {
        self.persist(async |mut coordinator| {
            coordinator.jobs.pause_queue(v1::PauseQueueRequest::default()).await.map(drop)
        })
        .await;
        sleep(Duration::from_millis(self.dice.random_range(0..3_000))).await;
        self.persist(async |mut coordinator| {
            coordinator.jobs.resume_queue(v1::ResumeQueueRequest::default()).await.map(drop)
        })
        .await;
    }

    /// Waits until a job has ended, and checks it.
    async fn check(&mut self, job: &str) -> v1::Job {
        let history = self.follow(job).await;
        let job = self.persist(async |mut coordinator| get(&mut coordinator, job).await).await;
        self.ledger.check(&job, &history);
        job
    }

    /// Retries a job until the retry is acknowledged.
    async fn retry(&mut self, job: &str) -> String {
        let key = format!("retry-{job}");
        let request = v1::RetryJobRequest { job_id: job.to_owned(), idempotency_key: key.clone() };
        let accepted = self.persist(async |mut coordinator| {
            Ok(coordinator.jobs.retry_job(request.clone()).await?.into_inner().job.expect("a job"))
        });
        let job = accepted.await.id;
        self.ledger.accepted(&key, &job);
        job
    }

    /// Follows a job to its end and returns its whole history, from whichever coordinator answers.
    async fn follow(&mut self, job: &str) -> Vec<v1::JobEvent> {
        let mut history: Vec<v1::JobEvent> = Vec::new();
        loop {
            let after_sequence = history.last().map_or(0, |event| event.sequence);
            let request = v1::WatchJobRequest { job_id: job.to_owned(), after_sequence };
            let mut coordinator = self.any_coordinator();
            if let Ok(answer) = coordinator.jobs.watch_job(request).await {
                let mut updates = answer.into_inner();
                while let Ok(Some(update)) = updates.try_next().await {
                    history.extend(match update.update {
                        Some(Update::Event(event)) => Some(event),
                        _ => None,
                    });
                }
            }
            if history.last().is_some_and(ends) {
                return history;
            }
            sleep(Duration::from_millis(self.dice.random_range(50..500))).await;
        }
    }
}

fn ends(event: &v1::JobEvent) -> bool {
    use v1::job_event::Event;
    match &event.event {
        Some(Event::StateChanged(changed)) => {
            matches!(changed.state(), JobState::Succeeded | JobState::Failed | JobState::Cancelled)
        }
        _ => false,
    }
}
