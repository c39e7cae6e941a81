//! The jobs of a run: their submission until it is acknowledged, and the ledger of acknowledged jobs.

use std::{net::SocketAddr, path::Path, time::Duration};

use sortinghat_client::{Client, Endpoint, JobFilter};
use sortinghat_proto::{
    ObjectRef,
    limits::MAX_PAGE_SIZE,
    v1::{
        ClassifySpec, EvaluateSpec, FailureClass, FinetuneSpec, IngestSpec, Job, JobSpec, Requirements,
        SubmitJobRequest, SubmitJobsRequest, SubmitVerdict, job_service_client::JobServiceClient, job_spec::Kind,
        submit_verdict::Verdict,
    },
};
use sortinghat_tests::{Dice, SIMULATED_LABEL, photos};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::{Failure, PATIENCE, run::unix_ms, settings::Round, workforce::ENDLESS};

/// How many jobs one call brings.
const JOBS_PER_CALL: usize = 100;
/// How long one call may take before its answer counts as lost and the call is repeated.
const ANSWER_BOUND: Duration = Duration::from_secs(4);

/// The pause after a call that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// The workers that run a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Workers with executors.
    Real,
    /// Simulated workers.
    Simulated,
}

/// An acknowledged job.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) request: SubmitJobRequest,
    pub(crate) id: String,
    pub(crate) sort: Sort,
}

/// Submits jobs, and keeps a ledger of the acknowledged ones.
pub(crate) struct Jobs {
    service: JobServiceClient<Channel>,
    pub(crate) client: Client,
    seed: u64,
    round: u32,
    /// The photos of simulated jobs, which no worker reads.
    blank: ObjectRef,
    photos: ObjectRef,
    /// The simulated model of simulated classifications.
    model: String,
    pub(crate) ledger: Vec<Entry>,
}

impl Jobs {
    /// Connects to the coordinator at `address` and uploads the inputs of the jobs.
    pub(crate) async fn prepare(address: SocketAddr, folder: &Path, seed: u64) -> Result<Self, Failure> {
        let url = format!("http://{address}");
        let service = JobServiceClient::new(Channel::from_shared(url.clone())?.connect_lazy());
        let client = Client::connect(Endpoint::local(url)).await?.with_patience(PATIENCE);
        let files = photos::write_classes(&folder.join("photos"), 4, 64);
        let photos = client.upload(&files, |_| {}).await?;
        let blank = client.upload(&files[..1], |_| {}).await?;
        let mut jobs =
            Self { service, client, seed, round: 0, blank, photos, model: String::new(), ledger: Vec::new() };
        jobs.prepare_model().await?;
        Ok(jobs)
    }

    /// Lets simulated workers create the model of simulated classifications.
    async fn prepare_model(&mut self) -> Result<(), Failure> {
        let ingest = self.simulated("base-dataset".to_owned(), self.ingest("base"));
        let dataset = self.submit(vec![ingest], Sort::Simulated).await?.remove(0);
        let finetune = FinetuneSpec { dataset: format!("job:{dataset}"), ..FinetuneSpec::default() };
        let finetune = self.simulated("base-model".to_owned(), Kind::Finetune(finetune));
        let job = self.submit(vec![finetune], Sort::Simulated).await?.remove(0);
        let mut watch = self.client.watch(&job, 0);
        while watch.next().await?.is_some() {}
        let output = self.client.get_job(&job).await?.output;
        self.model = output.ok_or("the simulated model was not made")?.name;
        Ok(())
    }

    /// Begins a round with an empty ledger.
    pub(crate) fn begin(&mut self, round: Round) {
        self.round = round.number;
        self.ledger.clear();
    }

    /// Submits `count` simulated jobs for this step of the round. Some of them depend on others.
    pub(crate) async fn submit_simulated(&mut self, step: u32, count: u32) -> Result<(), Failure> {
        let mut dice = Dice::of(self.seed, "jobs", u64::from(self.round) << 32 | u64::from(step));
        let requests = (0..count).map(|number| {
            let key = format!("load-{}-{step}-{number}", self.round);
            let kind = match dice.below(100) {
                0..50 => self.ingest(&key),
                50..65 => self.ingest("shared"),
                _ => self.classify(self.model.clone(), &self.blank),
            };
            let parents = if dice.chance(10) && !self.ledger.is_empty() {
                vec![dice.pick(&self.ledger).id.clone()]
            } else {
                Vec::new()
            };
            let priority = dice.below(3) as i32 - 1;
            SubmitJobRequest { parents, priority, ..self.simulated(key, kind) }
        });
        let requests = requests.collect();
        let ids = self.submit(requests, Sort::Simulated).await?;
        for id in ids.iter().filter(|_| dice.chance(3)) {
            self.client.cancel_job(id).await?;
        }
        Ok(())
    }

    /// Submits one chain of real jobs: a dataset, a model that is trained on it, the model's evaluation, and predictions.
    pub(crate) async fn submit_real(&mut self, step: u32) -> Result<(), Failure> {
        let chain = format!("real-{}-{step}", self.round);
        let ingest = IngestSpec {
            dataset_name: "shapes".to_owned(),
            source: Some(self.photos.clone().into()),
            ..IngestSpec::default()
        };
        let dataset = self.submit_one(real(format!("{chain}-ingest"), Kind::Ingest(ingest))).await?;
        let finetune = photos::short_training(format!("job:{dataset}"));
        let model = self.submit_one(real(format!("{chain}-finetune"), Kind::Finetune(finetune))).await?;
        let model = format!("job:{model}");
        let evaluate = EvaluateSpec { model: model.clone(), ..EvaluateSpec::default() };
        self.submit_one(real(format!("{chain}-evaluate"), Kind::Evaluate(evaluate))).await?;
        let classify = self.classify(model, &self.photos);
        self.submit_one(real(format!("{chain}-classify"), classify)).await?;
        Ok(())
    }

    /// Submits a job that runs until it is cancelled, and returns its id.
    pub(crate) async fn submit_endless(&mut self, step: u32) -> Result<String, Failure> {
        let name = format!("{ENDLESS}-{}-{step}", self.round);
        let request = SubmitJobRequest { priority: 10, ..self.simulated(name.clone(), self.ingest(&name)) };
        Ok(self.submit(vec![request], Sort::Simulated).await?.remove(0))
    }

    /// Submits a job to check that the queue works.
    pub(crate) async fn submit_probe(&mut self, step: u32) -> Result<Probe, Failure> {
        let key = format!("probe-{}-{step}", self.round);
        let request = self.simulated(key, self.ingest("probe"));
        let now = unix_ms();
        let job = self.submit(vec![request], Sort::Simulated).await?.remove(0);
        let job = self.client.get_job(&job).await?;
        Ok(Probe { lead_ms: job.created_unix_ms - now, has_ended: job.finished_unix_ms > 0 })
    }

    /// Submits jobs that no worker may take. They are not in the ledger.
    pub(crate) async fn submit_backlog(&mut self, count: u32) -> Result<(), Failure> {
        let labels = [("work".to_owned(), "unwanted".to_owned())].into();
        let requirements = Requirements { labels, ..Requirements::default() };
        let job = |number| request(format!("backlog-{number}"), self.ingest("backlog"), requirements.clone());
        let requests: Vec<_> = (0..count).map(job).collect();
        for chunk in requests.chunks(JOBS_PER_CALL) {
            submit_all(&mut self.service, chunk).await?;
        }
        Ok(())
    }

    async fn submit_one(&mut self, request: SubmitJobRequest) -> Result<String, Failure> {
        Ok(self.submit(vec![request], Sort::Real).await?.remove(0))
    }

    /// Submits every job of the ledger again, and returns the ids in the answers.
    pub(crate) async fn submit_again(&mut self) -> Result<Vec<String>, Failure> {
        let mut ids = Vec::with_capacity(self.ledger.len());
        for chunk in self.ledger.chunks(JOBS_PER_CALL) {
            let requests: Vec<_> = chunk.iter().map(|entry| entry.request.clone()).collect();
            ids.extend(submit_all(&mut self.service, &requests).await?);
        }
        Ok(ids)
    }

    /// Submits until every job is acknowledged, and returns their ids in order.
    async fn submit(&mut self, requests: Vec<SubmitJobRequest>, sort: Sort) -> Result<Vec<String>, Failure> {
        let mut ids = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(JOBS_PER_CALL) {
            let accepted = submit_all(&mut self.service, chunk).await?;
            let entries = chunk.iter().zip(&accepted);
            self.ledger.extend(entries.map(|(request, id)| Entry { request: request.clone(), id: id.clone(), sort }));
            ids.extend(accepted);
        }
        Ok(ids)
    }

    fn simulated(&self, key: String, kind: Kind) -> SubmitJobRequest {
        let labels = [SIMULATED_LABEL].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        request(key, kind, Requirements { labels, ..Requirements::default() })
    }

    fn ingest(&self, name: &str) -> Kind {
        let source = Some(self.blank.clone().into());
        Kind::Ingest(IngestSpec { dataset_name: name.to_owned(), source, ..IngestSpec::default() })
    }

    fn classify(&self, model: String, source: &ObjectRef) -> Kind {
        Kind::Classify(ClassifySpec { model, source: Some(source.clone().into()), ..ClassifySpec::default() })
    }
}

/// A job that was submitted after a fault.
pub(crate) struct Probe {
    /// How far the queue's clock is ahead, in milliseconds.
    pub(crate) lead_ms: i64,
    /// Whether the job had ended already when it was looked up.
    pub(crate) has_ended: bool,
}

/// The requirements of a job for workers with executors. Simulated workers have no device.
fn real(key: String, kind: Kind) -> SubmitJobRequest {
    request(key, kind, Requirements { device_kind: "cpu".to_owned(), ..Requirements::default() })
}

fn request(key: String, kind: Kind, requirements: Requirements) -> SubmitJobRequest {
    SubmitJobRequest {
        idempotency_key: key,
        spec: Some(JobSpec { kind: Some(kind) }),
        requirements: Some(requirements),
        ..SubmitJobRequest::default()
    }
}

/// Submits jobs under their keys, again and again, until each is acknowledged. Returns their ids.
pub(crate) async fn submit_all(
    service: &mut JobServiceClient<Channel>,
    requests: &[SubmitJobRequest],
) -> Result<Vec<String>, Failure> {
    let mut ids = vec![String::new(); requests.len()];
    let deadline = Instant::now() + PATIENCE;
    let mut refusal = String::new();
    loop {
        let open: Vec<usize> = (0..ids.len()).filter(|place| ids[*place].is_empty()).collect();
        if open.is_empty() {
            return Ok(ids);
        }
        if Instant::now() > deadline {
            return Err(format!("{} submissions were not acknowledged in time: {refusal}", open.len()).into());
        }
        let jobs = open.iter().map(|place| requests[*place].clone()).collect();
        let call = service.submit_jobs(SubmitJobsRequest { jobs });
        match tokio::time::timeout(ANSWER_BOUND, call).await {
            Ok(Ok(answer)) => match take(&open, answer.into_inner().verdicts, &mut ids)? {
                Some(message) => refusal = message,
                None => continue,
            },
            Ok(Err(status)) => refusal = status.to_string(),
            Err(late) => refusal = late.to_string(),
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

/// All jobs that match a filter.
pub(crate) async fn list_all(client: &Client, filter: &JobFilter) -> Result<Vec<Job>, Failure> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let page = client.list_jobs(filter, MAX_PAGE_SIZE, &token).await?;
        if let Some(id) = page.unreadable_job_ids.first() {
            return Err(format!("job {id} cannot be read").into());
        }
        all.extend(page.jobs);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        token = page.next_page_token;
    }
}

/// Notes the ids of accepted jobs. Jobs that were refused for now stay open, and the last reason is returned.
fn take(open: &[usize], verdicts: Vec<SubmitVerdict>, ids: &mut [String]) -> Result<Option<String>, Failure> {
    let mut refusal = None;
    for (place, verdict) in open.iter().zip(verdicts) {
        match verdict.verdict.ok_or("a verdict is empty")? {
            Verdict::Accepted(accepted) => ids[*place] = accepted.job.ok_or("an accepted job is missing")?.id,
            Verdict::Refused(failure) if failure.failure_class() == FailureClass::Infrastructure => {
                refusal = Some(failure.message);
            }
            Verdict::Refused(failure) => return Err(format!("a submission was refused: {failure:?}").into()),
        }
    }
    Ok(refusal)
}
