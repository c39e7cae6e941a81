//! A coordinator, its simulated workers and its producer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use parking_lot::Mutex;
use sortinghat_client::{Client, Endpoint, Submission};
use sortinghat_proto::{
    JobKind, ObjectRef,
    manifest::{self, UploadManifest, UploadedFile},
    v1::{
        Assignment, ClassifySpec, FinetuneSpec, IngestSpec, JobSpec, SubmitJobRequest, SubmitJobsRequest,
        SubmitVerdict, TaskSucceeded, job_service_client::JobServiceClient, job_spec::Kind, submit_verdict::Verdict,
        task_outcome::Outcome,
    },
};
use sortinghat_tests::{
    Identity, Process, SimulatedWorker, Work, lasting_address, output, start_coordinator, start_redis,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Builder,
    sync::Notify,
    time::Instant,
};
use tonic::transport::Channel;

use crate::{
    AHEAD, Failure, SLOTS,
    measure::{Latency, Throughput, cpu_of, memory_of_mib, own_cpu},
};

/// How long the CPU time of the idle coordinator is measured.
const IDLE: Duration = Duration::from_secs(10);

/// The store of the coordinator's queue. Both stores sync a write before they acknowledge it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store {
    Embedded,
    Redis,
}

impl Store {
    pub(crate) const ALL: [Self; 2] = [Self::Embedded, Self::Redis];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "sortinghat, embedded store",
            Self::Redis => "sortinghat, appendfsync always",
        }
    }
}

/// A coordinator of our own.
pub(crate) struct Ours {
    coordinator: Process,
    /// The Redis server and its port.
    redis: Option<(Process, u16)>,
    address: SocketAddr,
    producer: Producer,
    craft: Arc<Craft>,
    workers: Vec<SimulatedWorker>,
    /// How many tasks its workers take ahead of their slots.
    ahead: u32,
    // Declared after the coordinator, which writes into it and so must end first.
    _folder: TempDir,
}

/// Submits jobs over its own connection.
pub(crate) struct Producer {
    service: JobServiceClient<Channel>,
    job: SubmitJobRequest,
}

/// Finishes every task at once with the same manifest for each kind, and records when each task started.
struct Craft {
    manifests: HashMap<JobKind, ObjectRef>,
    starts: Mutex<HashMap<String, Instant>>,
    finished: AtomicU64,
    progress: Notify,
}

impl Work for Craft {
    fn start(&self, task: &Assignment) -> Duration {
        self.starts.lock().insert(task.job_id.clone(), Instant::now());
        Duration::ZERO
    }

    fn finish(&self, task: &Assignment) -> Outcome {
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.progress.notify_one();
        let kind = task.spec.as_ref().and_then(|spec| spec.job_kind()).expect("only known kinds are submitted");
        let manifest = Some(self.manifests[&kind].clone().into());
        Outcome::Succeeded(TaskSucceeded { manifest, summary: String::new() })
    }
}

impl Craft {
    async fn until_finished(&self, count: u64) {
        while self.finished.load(Ordering::Relaxed) < count {
            self.progress.notified().await;
        }
    }
}

impl Ours {
    pub(crate) async fn start(store: Store) -> Result<Self, Failure> {
        Self::start_beside(store, &[]).await
    }

    /// Starts a coordinator, with these settings of its Redis if that is its store.
    pub(crate) async fn start_beside(store: Store, redis: &[&str]) -> Result<Self, Failure> {
        let folder = TempDir::with_prefix("sortinghat-bench-")?;
        let redis = match store {
            Store::Embedded => None,
            Store::Redis => Some(start_redis(folder.path(), redis)),
        };
        let log = folder.path().join("coordinator.log");
        let (coordinator, address) = start_coordinator(folder.path(), lasting_address(), &log, |command| {
            command.args(["--log-filter", "warn"]);
            // No limit keeps a benchmark from filling the queue.
            command.args(["--max-waiting-jobs-per-tenant", "1000000000", "--max-waiting-tasks", "1000000000"]);
            if let Some((_, port)) = &redis {
                let objects = format!("file://{}", folder.path().join("objects").display());
                command.args(["--store", &format!("redis://127.0.0.1:{port}"), "--object-store", &objects]);
            }
        });
        let url = format!("http://{address}");
        let client = Client::connect(Endpoint::local(url.clone())).await?;
        let photo = client.upload_bytes(b"photo".to_vec().into()).await?;
        let files = vec![UploadedFile::new("a/photo.png", photo)];
        let source = client.upload_bytes(manifest::encode(&UploadManifest::of(files)).into()).await?;
        let craft = Arc::new(Craft {
            manifests: manifests(&client, &source).await?,
            starts: Mutex::default(),
            finished: AtomicU64::new(0),
            progress: Notify::new(),
        });
        let worker = worker(address, 0, AHEAD, &craft);
        let model = make_model(&client, source.clone()).await?;
        worker.drain().await;
        let classify = ClassifySpec { source: Some(source.into()), model, ..ClassifySpec::default() };
        let spec = JobSpec { kind: Some(Kind::Classify(classify)) };
        let job = SubmitJobRequest { spec: Some(spec), ..SubmitJobRequest::default() };
        let producer = Producer::connect(address, job).await?;
        Ok(Self { coordinator, redis, address, producer, craft, workers: Vec::new(), ahead: AHEAD, _folder: folder })
    }

    /// This coordinator, with workers that take this many tasks ahead of their slots.
    pub(crate) fn taking_ahead(self, ahead: u32) -> Self {
        Self { ahead, ..self }
    }

    fn worker(&self, number: usize) -> SimulatedWorker {
        worker(self.address, number, self.ahead, &self.craft)
    }

    /// Submits jobs in bulk while workers take and complete them. The producer has its own thread, as the producers of the other
    /// contenders have their own process.
    pub(crate) async fn cycles(&mut self, jobs: usize, bulk: usize, workers: usize) -> Result<Throughput, Failure> {
        let workers: Vec<SimulatedWorker> = (1..=workers).map(|number| self.worker(number)).collect();
        let (address, job) = (self.address, self.job());
        let produce = async move { Producer::connect(address, job).await?.submit_all(jobs, bulk).await };
        let target = self.craft.finished.load(Ordering::Relaxed) + jobs as u64;
        let (began, server, own) = (Instant::now(), self.cpu()?, own_cpu()?);
        tokio::task::spawn_blocking(move || Builder::new_current_thread().enable_all().build()?.block_on(produce))
            .await??;
        self.craft.until_finished(target).await;
        join_all(workers.into_iter().map(SimulatedWorker::drain)).await;
        Ok(Throughput::of(jobs, began.elapsed(), self.cpu()? - server, own_cpu()? - own))
    }

    /// Submits one job every 20 ms and measures how soon each of them starts.
    pub(crate) async fn trickle(&mut self, jobs: usize) -> Result<Latency, Failure> {
        if self.workers.is_empty() {
            self.workers.push(self.worker(2));
        }
        let target = self.craft.finished.load(Ordering::Relaxed) + jobs as u64;
        let mut sent = Vec::with_capacity(jobs);
        for _ in 0..jobs {
            let at = Instant::now();
            sent.extend(self.producer.submit(1).await?.into_iter().map(|id| (id, at)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.craft.until_finished(target).await;
        let starts = self.craft.starts.lock();
        let samples = sent.iter().map(|(id, at)| starts[id].duration_since(*at).as_secs_f64() * 1e3);
        Ok(Latency::of(samples.collect()))
    }

    /// Queues jobs that no worker takes yet.
    pub(crate) async fn fill(&mut self, jobs: usize) -> Result<(), Failure> {
        self.producer.submit_all(jobs, 1_000).await
    }

    /// Waits until Redis is not rewriting its file. It rewrites the file beside its other work whenever the file has doubled.
    pub(crate) async fn until_redis_rewrites_nothing(&self) -> Result<(), Failure> {
        let Some((_, port)) = &self.redis else { return Ok(()) };
        let mut connection = TcpStream::connect(("127.0.0.1", *port)).await?;
        loop {
            connection.write_all(b"INFO persistence\r\n").await?;
            let mut reply = vec![0; 4096];
            let length = connection.read(&mut reply).await?;
            let reply = String::from_utf8_lossy(&reply[..length]);
            if ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"].iter().all(|sign| reply.contains(sign)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lets workers take and complete some of the queued jobs.
    pub(crate) async fn drain_some(&mut self, jobs: usize) -> Result<Throughput, Failure> {
        let target = self.craft.finished.load(Ordering::Relaxed) + jobs as u64;
        let (began, server, own) = (Instant::now(), self.cpu()?, own_cpu()?);
        // Each worker has its own id.
        let worker = self.worker(1_000_000 + target as usize);
        self.craft.until_finished(target).await;
        let cost = Throughput::of(jobs, began.elapsed(), self.cpu()? - server, own_cpu()? - own);
        worker.drain().await;
        Ok(cost)
    }

    /// Lets this many workers wait for work, and returns the coordinator's CPU time meanwhile, in percent of one core.
    pub(crate) async fn idle_cpu_percent(&mut self, count: usize) -> Result<f64, Failure> {
        self.workers = (0..count).map(|number| self.worker(1_000 + number)).collect();
        // Waits until all workers have connected and wait for work.
        tokio::time::sleep(IDLE / 2).await;
        let before = self.cpu()?;
        tokio::time::sleep(IDLE).await;
        Ok((self.cpu()? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0)
    }

    pub(crate) fn memory_mib(&self) -> Result<f64, Failure> {
        memory_of_mib(self.coordinator.pid().as_raw())
    }

    /// The CPU time of the coordinator and its Redis.
    fn cpu(&self) -> Result<Duration, Failure> {
        let servers = [Some(&self.coordinator), self.redis.as_ref().map(|(redis, _)| redis)];
        servers.into_iter().flatten().map(|server| cpu_of(server.pid().as_raw())).sum()
    }

    /// The address that the coordinator listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The job that is submitted again and again.
    pub(crate) fn job(&self) -> SubmitJobRequest {
        self.producer.job.clone()
    }
}

impl Producer {
    pub(crate) async fn connect(address: SocketAddr, job: SubmitJobRequest) -> Result<Self, Failure> {
        let endpoint = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(Self { service: JobServiceClient::new(endpoint.connect().await?), job })
    }

    async fn submit_all(&mut self, jobs: usize, bulk: usize) -> Result<(), Failure> {
        let mut left = jobs;
        while left > 0 {
            self.submit(left.min(bulk)).await?;
            left -= left.min(bulk);
        }
        Ok(())
    }

    /// Submits this many jobs in one call and returns their ids.
    pub(crate) async fn submit(&mut self, count: usize) -> Result<Vec<String>, Failure> {
        let jobs = vec![self.job.clone(); count];
        let verdicts = self.service.submit_jobs(SubmitJobsRequest { jobs }).await?.into_inner().verdicts;
        let ids = verdicts.into_iter().map(|verdict| match verdict.verdict {
            Some(Verdict::Accepted(accepted)) => Ok(accepted.job.ok_or("a job is missing")?.id),
            other => Err(format!("a submission was refused: {other:?}").into()),
        });
        ids.collect()
    }
}

fn worker(address: SocketAddr, number: usize, ahead: u32, craft: &Arc<Craft>) -> SimulatedWorker {
    let identity = Identity { id: format!("bench-{number}"), slots: SLOTS, ahead };
    SimulatedWorker::start(address, identity, craft.clone())
}

/// What the tasks of each kind make: a dataset of this upload, a model of that dataset, and predictions by that model.
async fn manifests(client: &Client, source: &ObjectRef) -> Result<HashMap<JobKind, ObjectRef>, Failure> {
    let upload = async |kind, inputs: &[ObjectRef]| {
        client.upload_bytes(output(kind, inputs).to_string().into_bytes().into()).await
    };
    let dataset = upload(JobKind::Ingest, std::slice::from_ref(source)).await?;
    let model = upload(JobKind::Finetune, std::slice::from_ref(&dataset)).await?;
    let predictions = upload(JobKind::Classify, &[model.clone(), source.clone()]).await?;
    Ok([(JobKind::Ingest, dataset), (JobKind::Finetune, model), (JobKind::Classify, predictions)].into())
}

/// Creates a model, so that a classification can be submitted, and returns its name.
async fn make_model(client: &Client, source: ObjectRef) -> Result<String, Failure> {
    let ingest = IngestSpec { dataset_name: "bench".to_owned(), source: Some(source.into()), ..IngestSpec::default() };
    let dataset = client.submit(&submission(Kind::Ingest(ingest))?).await?.id;
    let finetune = FinetuneSpec { dataset: format!("job:{dataset}"), ..FinetuneSpec::default() };
    let model = client.submit(&submission(Kind::Finetune(finetune))?).await?.id;
    let mut watch = client.watch(&model, 0);
    while watch.next().await?.is_some() {}
    Ok(client.get_job(&model).await?.output.ok_or("no model was made")?.name)
}

/// Whether a job was accepted.
pub(crate) fn is_accepted(verdict: &SubmitVerdict) -> bool {
    matches!(verdict.verdict, Some(Verdict::Accepted(_)))
}

pub(crate) fn submission(kind: Kind) -> Result<Submission, Failure> {
    Ok(Submission::new(JobSpec { kind: Some(kind) }.try_into().map_err(|refusal| format!("{refusal:?}"))?))
}
