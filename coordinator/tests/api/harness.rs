//! A coordinator on a free port of loopback, and its clients.

use std::{net::SocketAddr, time::Duration};

use futures::TryStreamExt as _;
use sortinghat_coordinator::{
    app::{App, AppError, Drained},
    config::{Config, Settings, StoreUrl},
};
use sortinghat_proto::{
    Digest, ObjectRef,
    limits::SESSION_SECRET_BYTES,
    manifest::{self, DatasetManifest, Document as _, UploadManifest, UploadedFile},
    v1::{
        IngestSpec, JobSpec, Lease, LeaseReport, ReadObjectRequest, SubmitJobRequest, SynchronizeRequest,
        SynchronizeResponse, TaskOutcome, TaskSucceeded, UploadObjectRequest, WorkerDescription,
        artifact_service_client::ArtifactServiceClient, job_service_client::JobServiceClient, job_spec::Kind,
        task_outcome::Outcome, upload_object_request::Part, worker_service_client::WorkerServiceClient,
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Sends a token with every call, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("plain text"));
        }
        Ok(request)
    }
}

type Transport = InterceptedService<Channel, Bearer>;

/// The clients of one caller.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) jobs: JobServiceClient<Transport>,
    pub(crate) artifacts: ArtifactServiceClient<Transport>,
    pub(crate) workers: WorkerServiceClient<Transport>,
}

/// A coordinator in this process.
pub(crate) struct Coordinator {
    /// The address that the coordinator listens on.
    pub(crate) address: SocketAddr,
    /// The address of its metrics, if they are served.
    pub(crate) metrics_address: Option<SocketAddr>,
    stop: CancellationToken,
    served: JoinHandle<Result<Drained, AppError>>,
    _folder: TempDir,
}

impl Coordinator {
    /// Starts a coordinator that lets every caller in and keeps its queue in memory.
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// Starts a coordinator with these tokens.
    pub(crate) async fn start_with_tokens(tokens: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), tokens).expect("writable");
        Self::start_with(Settings { credentials: Some(file.path().to_owned()), ..Settings::default() }).await
    }

    /// Starts a coordinator with these settings, in its own folder.
    pub(crate) async fn start_with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = Settings {
            listen: "127.0.0.1:0".parse().ok(),
            data_dir: Some(folder.path().to_owned()),
            store: Some(StoreUrl::Memory),
            ..Settings::default()
        };
        let config = Config::resolve(settings.over(own)).expect("valid");
        let app = App::build(config, None).await.expect("it can listen");
        let address = app.address().expect("it listens");
        let metrics_address = app.metrics_address();
        let stop = CancellationToken::new();
        let served = tokio::spawn(app.serve(stop.clone().cancelled_owned()));
        Self { address, metrics_address, stop, served, _folder: folder }
    }

    /// Asks the coordinator to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the coordinator has stopped.
    pub(crate) async fn stopped(self) -> Drained {
        self.served.await.expect("it does not panic").expect("it serves until it is asked to stop")
    }

    pub(crate) async fn channel(&self) -> Channel {
        channel(self.address).await
    }

    pub(crate) async fn client(&self) -> Client {
        client(self.address, None).await
    }

    pub(crate) async fn client_with(&self, token: &str) -> Client {
        client(self.address, Some(token.to_owned())).await
    }
}

/// The answer of an HTTP page, including its headers.
pub(crate) async fn page(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("answered");
    answer
}

/// The lines of a tokens file for a token that is also the id of its identity.
pub(crate) fn token(token: &str, rights: &str) -> String {
    format!("[[tokens]]\nid = '{token}'\nsha256 = '{}'\n{rights}\n", Digest::of(token.as_bytes()))
}

/// Settings with which objects that nothing refers to are removed soon, and jobs are forgotten soon.
pub(crate) fn collecting() -> Settings {
    Settings {
        lease_ttl: "300ms".parse().ok(),
        object_grace: "3s".parse().ok(),
        retention: "0s".parse().ok(),
        ..Settings::default()
    }
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address makes a URL");
    endpoint.connect().await.expect("the coordinator listens")
}

/// Clients of the coordinator at `address`.
pub(crate) async fn client(address: SocketAddr, token: Option<String>) -> Client {
    client_over(channel(address).await, token)
}

/// Clients over this connection.
pub(crate) fn client_over(channel: Channel, token: Option<String>) -> Client {
    let bearer = Bearer(token);
    Client {
        jobs: JobServiceClient::with_interceptor(channel.clone(), bearer.clone()),
        artifacts: ArtifactServiceClient::with_interceptor(channel.clone(), bearer.clone()),
        workers: WorkerServiceClient::with_interceptor(channel, bearer),
    }
}

/// A request to ingest an upload as the dataset `name`.
pub(crate) fn ingest_of(name: &str, source: ObjectRef) -> SubmitJobRequest {
    let ingest = IngestSpec { dataset_name: name.to_owned(), source: Some(source.into()), ..IngestSpec::default() };
    SubmitJobRequest { spec: Some(JobSpec { kind: Some(Kind::Ingest(ingest)) }), ..SubmitJobRequest::default() }
}

/// The messages that upload `content` announced as `header`, in pieces of `piece_bytes`.
pub(crate) fn upload_messages(header: ObjectRef, content: &[u8], piece_bytes: usize) -> Vec<UploadObjectRequest> {
    let pieces = content.chunks(piece_bytes).map(|piece| Part::Data(piece.to_vec().into()));
    let parts = std::iter::once(Part::Header(header.into())).chain(pieces);
    parts.map(|part| UploadObjectRequest { part: Some(part) }).collect()
}

impl Client {
    /// Uploads `content`.
    pub(crate) async fn upload(&mut self, content: &[u8]) -> ObjectRef {
        self.try_upload(content).await.expect("accepted")
    }

    /// Uploads `content`; returns the refusal if there is one.
    pub(crate) async fn try_upload(&mut self, content: &[u8]) -> Result<ObjectRef, Status> {
        let object = ObjectRef::of(content);
        let messages = upload_messages(object.clone(), content, 1 << 20);
        let stored = self.artifacts.upload_object(futures::stream::iter(messages)).await?;
        assert_eq!(stored.into_inner().object, Some(object.clone().into()));
        Ok(object)
    }

    /// Reads an object's content, in the pieces in which it arrives.
    pub(crate) async fn read(&mut self, digest: &Digest) -> Result<Vec<Vec<u8>>, Status> {
        let request = ReadObjectRequest { digest: digest.to_string() };
        let pieces = self.artifacts.read_object(request).await?.into_inner();
        pieces.map_ok(|piece| piece.data.to_vec()).try_collect().await
    }

    /// Waits until an object is removed. A read does not keep it from being removed.
    pub(crate) async fn await_removal(&mut self, digest: &Digest) {
        let begun = Instant::now();
        while self.read(digest).await.is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the object is never removed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A request to ingest one uploaded photo as the dataset `name`.
    pub(crate) async fn ingest_request(&mut self, name: &str) -> SubmitJobRequest {
        let photo = self.upload(b"photo").await;
        let files = vec![UploadedFile::new("cats/a.png", photo)];
        let source = self.upload(&manifest::encode(&UploadManifest::of(files))).await;
        ingest_of(name, source)
    }

    /// Submits a request to ingest one uploaded photo, and returns the job's id.
    pub(crate) async fn submit_ingest(&mut self, name: &str) -> String {
        let request = self.ingest_request(name).await;
        self.jobs.submit_job(request).await.expect("accepted").into_inner().job.expect("a job").id
    }
}

/// The upload that an ingest reads.
pub(crate) fn source_of(lease: &Lease) -> ObjectRef {
    let spec = lease.assignment.as_ref().and_then(|assignment| assignment.spec.clone()).expect("a spec");
    spec.source().cloned().expect("it has one").try_into().expect("valid")
}

/// A worker whose messages a test sends one by one.
pub(crate) struct ByHand {
    client: Client,
    id: String,
    sequence: u64,
}

impl ByHand {
    pub(crate) fn new(client: Client) -> Self {
        Self::named("by-hand", client)
    }

    /// A worker with this id, beside others.
    pub(crate) fn named(id: &str, client: Client) -> Self {
        Self { client, id: id.to_owned(), sequence: 0 }
    }

    /// Talks to another coordinator from now on.
    pub(crate) fn switch_to(&mut self, client: Client) {
        self.client = client;
    }

    /// Reports its leases. The coordinator may hold its answer for `wait_ms`.
    pub(crate) async fn synchronize(
        &mut self,
        leases: Vec<LeaseReport>,
        free_slots: u32,
        wait_ms: u32,
    ) -> Result<SynchronizeResponse, Status> {
        self.sequence += 1;
        let description = WorkerDescription {
            host: "by-hand".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: "cpu".to_owned(),
            slots: 1,
            threads: 1,
            ..WorkerDescription::default()
        };
        let request = SynchronizeRequest {
            worker_id: self.id.clone(),
            session_secret: vec![7; SESSION_SECRET_BYTES],
            sequence: self.sequence,
            description: Some(description),
            leases,
            free_slots,
            wait_ms,
            ..SynchronizeRequest::default()
        };
        self.client.workers.synchronize(request).await.map(tonic::Response::into_inner)
    }

    /// Waits for a task.
    pub(crate) async fn take(&mut self) -> Lease {
        loop {
            let mut response = self.synchronize(vec![], 1, 1000).await.expect("a worker may call");
            if let Some(lease) = response.leases.pop() {
                return lease;
            }
        }
    }

    /// Reports that it runs the task.
    pub(crate) async fn confirm(&mut self, lease: &Lease) {
        let key = lease.key.clone().expect("a lease has a key");
        let report = LeaseReport { task_id: key.task_id, epoch: key.epoch, beat: 1, ..LeaseReport::default() };
        self.synchronize(vec![report], 0, 0).await.expect("a worker may call");
    }

    /// Reports the task as done, with an uploaded manifest, until the report is acknowledged.
    pub(crate) async fn finish(&mut self, lease: &Lease) {
        let manifest = serde_json::json!({ "format": DatasetManifest::FORMAT, "source": source_of(lease) });
        self.finish_with(lease, manifest.to_string().as_bytes()).await;
    }

    /// Reports an ingest as done, with a dataset in one shard, and returns the shard.
    pub(crate) async fn finish_dataset(&mut self, lease: &Lease) -> Digest {
        let shard = self.client.upload(b"shard").await;
        let manifest = serde_json::json!({
            "format": DatasetManifest::FORMAT,
            "shards": [shard],
            "source": source_of(lease),
        });
        let manifest = manifest.to_string();
        self.finish_with(lease, manifest.as_bytes()).await;
        shard.digest
    }

    /// Reports the task as done with this manifest.
    async fn finish_with(&mut self, lease: &Lease, manifest: &[u8]) {
        let manifest = self.client.upload(manifest).await;
        self.report_success(lease, manifest).await;
    }

    /// Reports the task as done with this object as its manifest, until the report is acknowledged.
    pub(crate) async fn report_success(&mut self, lease: &Lease, manifest: ObjectRef) {
        let key = lease.key.clone().expect("a lease has a key");
        let succeeded = TaskSucceeded { manifest: Some(manifest.into()), summary: "done".to_owned() };
        let report = LeaseReport {
            task_id: key.task_id.clone(),
            epoch: key.epoch,
            beat: 1,
            outcome: Some(TaskOutcome { outcome: Some(Outcome::Succeeded(succeeded)) }),
            ..LeaseReport::default()
        };
        loop {
            let response = self.synchronize(vec![report.clone()], 0, 0).await.expect("a worker may call");
            if response.acknowledged.contains(&key) {
                return;
            }
        }
    }
}
