//! Clients that call all the time, and the work of their jobs' workers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use sortinghat_client::{Client, ClientError, Endpoint, JobFilter, Submission};
use sortinghat_proto::{
    JobKind, ObjectRef,
    limits::MAX_PAGE_SIZE,
    manifest::{self, UploadManifest, UploadedFile},
    v1::{
        Assignment, AttemptOutcome, IngestSpec, Job, JobSpec, JobState, TaskSucceeded, job_spec::Kind,
        task_outcome::Outcome,
    },
};
use sortinghat_tests::{Dice, PATIENCE, Work, output};
use tokio::{sync::watch, task::JoinHandle};

/// How many clients call at the same time.
const CLIENTS: usize = 10;
/// How often each client looks at the queue between two jobs.
const COMMANDS: usize = 20;

/// The work of simulated workers, whose tasks do nothing for a while.
pub(crate) struct Craft {
    manifest: ObjectRef,
    /// Photos that no worker reads.
    pub(crate) source: ObjectRef,
}

impl Craft {
    /// Uploads the inputs and outputs of jobs.
    pub(crate) async fn prepare(address: SocketAddr) -> Arc<Self> {
        let client = connect(address).await.expect("it serves");
        let upload = async |content: Vec<u8>| client.upload_bytes(content.into()).await.expect("there is room");
        let files = vec![UploadedFile::new("a/photo.png", upload(b"photo".to_vec()).await)];
        let source = upload(manifest::encode(&UploadManifest::of(files))).await;
        let manifest = upload(output(JobKind::Ingest, std::slice::from_ref(&source)).to_string().into_bytes()).await;
        Arc::new(Self { manifest, source })
    }
}

impl Work for Craft {
    fn start(&self, task: &Assignment) -> Duration {
        Duration::from_millis(Dice::of(task.epoch, &task.task_id, 0).within(50..=300))
    }

    fn finish(&self, _: &Assignment) -> Outcome {
        Outcome::Succeeded(TaskSucceeded { manifest: Some(self.manifest.clone().into()), summary: String::new() })
    }
}

/// Clients that call until they are stopped.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: Vec<Running>,
}

struct Running {
    /// How many jobs the client has followed to their end.
    turns: watch::Receiver<usize>,
    /// The task returns all jobs that the client has submitted.
    jobs: JoinHandle<Result<Vec<String>, ClientError>>,
}

impl Load {
    pub(crate) async fn start(address: SocketAddr, source: ObjectRef) -> Self {
        let stop = watch::Sender::new(false);
        let clients = (0..CLIENTS).map(|number| {
            let (turns, seen) = watch::channel(0);
            let jobs = tokio::spawn(call(address, ingest(number, source.clone()), stop.subscribe(), turns));
            Running { turns: seen, jobs }
        });
        let load = Self { clients: clients.collect(), stop };
        load.go_on().await;
        load
    }

    /// Waits until every client has completed a round that began after this call.
    pub(crate) async fn go_on(&self) {
        let served = self.clients.iter().map(|client| {
            let mut turns = client.turns.clone();
            async move {
                // One round may be under way already.
                let enough = *turns.borrow() + 2;
                // A client that has ended had an error, which `end` reports.
                let _ = turns.wait_for(|turns| *turns >= enough).await;
            }
        });
        tokio::time::timeout(PATIENCE, join_all(served)).await.expect("every client is served");
    }

    /// Stops the clients, and checks their jobs.
    pub(crate) async fn end(self, address: SocketAddr) {
        self.stop.send_replace(true);
        let mut jobs = Vec::new();
        for client in self.clients {
            jobs.extend(client.jobs.await.expect("no panic").expect("no call fails"));
        }
        let client = connect(address).await.expect("it serves");
        let mut handed_back = 0;
        for id in &jobs {
            handed_back += check(&client.get_job(id).await.expect("it was accepted"));
        }
        assert!(handed_back > 0, "workers were replaced while they had tasks");
        assert_eq!(count_jobs(&client).await, jobs.len(), "no submission became two jobs");
        println!("{} jobs, {handed_back} attempts handed back", jobs.len());
    }
}

/// Checks that a job has succeeded, and that draining workers were the only reason for further attempts. Returns how many attempts they gave
/// back.
fn check(job: &Job) -> usize {
    assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
    let (last, earlier) = job.attempts.split_last().expect("it was run");
    assert_eq!(last.outcome(), AttemptOutcome::Succeeded, "{job:?}");
    assert!(earlier.iter().all(|attempt| attempt.outcome() == AttemptOutcome::Returned), "{job:?}");
    earlier.len()
}

async fn count_jobs(client: &Client) -> usize {
    let (mut count, mut token) = (0, String::new());
    loop {
        let page = client.list_jobs(&JobFilter::default(), MAX_PAGE_SIZE, &token).await.expect("it answers");
        count += page.jobs.len();
        if page.next_page_token.is_empty() {
            return count;
        }
        token = page.next_page_token;
    }
}

/// Submits a job, follows it to its end, and looks at it and at the queue, again and again. Returns the jobs.
async fn call(
    address: SocketAddr,
    spec: JobSpec,
    stop: watch::Receiver<bool>,
    turns: watch::Sender<usize>,
) -> Result<Vec<String>, ClientError> {
    let mut client = connect(address).await?;
    let mut jobs = Vec::new();
    while !*stop.borrow() {
        let spec = spec.clone().try_into().expect("well formed");
        let id = client.submit(&Submission::new(spec)).await?.id;
        let mut watch = client.watch(&id, 0);
        while watch.next().await?.is_some() {}
        client.get_job(&id).await?;
        client.list_workers().await?;
        client.list_datasets().await?;
        // Most clients connect again for each job, like commands do. The last client keeps its connection, like a service does.
        for _ in 0..COMMANDS {
            client = connect(address).await?;
            client.get_queue().await?;
        }
        jobs.push(id);
        turns.send_modify(|turns| *turns += 1);
    }
    Ok(jobs)
}

async fn connect(address: SocketAddr) -> Result<Client, ClientError> {
    Client::connect(Endpoint::local(format!("http://{address}"))).await
}

fn ingest(client: usize, source: ObjectRef) -> JobSpec {
    let dataset_name = format!("client-{client}");
    JobSpec { kind: Some(Kind::Ingest(IngestSpec { dataset_name, source: Some(source.into()), ..Default::default() })) }
}
