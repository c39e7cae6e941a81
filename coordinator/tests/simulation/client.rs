//! A client that submits jobs, some of them twice and some of them after others, cancels a few, follows one, and looks at the end of
//! all of them.

use std::time::Duration;

use futures::TryStreamExt as _;
use rand::{RngExt as _, rngs::StdRng};
use sortinghat_proto::{
    ObjectRef,
    v1::{
        self, JobState, UploadObjectRequest, job_spec::Kind, upload_object_request::Part, watch_job_response::Update,
    },
};
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::{COORDINATORS, ledger::Ledger, network::Clients};

const JOBS: usize = 24;
/// Jobs are submitted over this time, so that faults meet every part of their lives.
const SUBMISSION: Duration = Duration::from_secs(18);

struct Client {
    ledger: Ledger,
    dice: StdRng,
    coordinators: Vec<Clients>,
}

/// Submits everything, waits for the end of everything, and checks it.
pub(crate) async fn run(ledger: Ledger, dice: StdRng) -> turmoil::Result {
    let coordinators = COORDINATORS.into_iter().map(Clients::of).collect();
    let mut client = Client { ledger, dice, coordinators };
    let source = client.upload(b"an upload manifest").await;
    let mut jobs: Vec<String> = Vec::new();
    for number in 0..JOBS {
        let job = client.submit(number, &jobs, &source).await;
        jobs.push(job);
        if client.dice.random_range(0..8) == 0 {
            let job = jobs[client.dice.random_range(0..jobs.len())].clone();
            client.persist(async |mut coordinator| cancel(&mut coordinator, &job).await).await;
        }
        let pause = SUBMISSION.as_millis() as u64 * 2 / JOBS as u64;
        sleep(Duration::from_millis(client.dice.random_range(0..pause))).await;
    }
    for job in &jobs {
        let history = client.follow(job).await;
        let job = client.persist(async |mut coordinator| get(&mut coordinator, job).await).await;
        client.ledger.check(&job, &history);
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

async fn get(coordinator: &mut Clients, job_id: &str) -> Result<v1::Job, Status> {
    let request = v1::GetJobRequest { job_id: job_id.to_owned() };
    Ok(coordinator.jobs.get_job(request).await?.into_inner().job.expect("a job"))
}

/// Whether trying again may help.
fn is_passing(status: &Status) -> bool {
    assert!(!status.message().contains("invariant"), "{status}");
    !matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::PermissionDenied)
}

impl Client {
    fn any_coordinator(&mut self) -> Clients {
        self.coordinators[self.dice.random_range(0..self.coordinators.len())].clone()
    }

    /// Tries again, with either coordinator, until it succeeds.
    async fn persist<T>(&mut self, call: impl AsyncFn(Clients) -> Result<T, Status>) -> T {
        loop {
            match call(self.any_coordinator()).await {
                Ok(answer) => return answer,
                Err(status) => assert!(is_passing(&status), "{status}"),
            }
            sleep(Duration::from_millis(self.dice.random_range(50..500))).await;
        }
    }

    async fn upload(&mut self, content: &'static [u8]) -> ObjectRef {
        let object = ObjectRef::of(content);
        let header = object.clone();
        self.persist(async |mut coordinator| {
            let parts = [Part::Header(header.clone().into()), Part::Data(content.into())];
            let messages: Vec<_> = parts.into_iter().map(|part| UploadObjectRequest { part: Some(part) }).collect();
            coordinator.artifacts.upload_object(futures::stream::iter(messages)).await.map(drop)
        })
        .await;
        object
    }

    /// Submits a job until it is acknowledged, and now and then once more.
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

    /// The whole history of a job, event by event, from whichever coordinator answers.
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
