//! Floods from outside and from another tenant: an honest tenant is served, and the coordinator's memory stays bounded.
//!
//! It prints how long the honest tenant's calls took before and during each flood.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use futures::{StreamExt as _, future::join_all, stream};
use hyper_util::rt::TokioIo;
use sortinghat_proto::{
    Digest, ObjectRef, limits,
    v1::{
        GetJobRequest, GetQueueRequest, PackIndex, UploadObjectRequest, UploadObjectsRequest,
        artifact_service_client::ArtifactServiceClient, job_service_client::JobServiceClient,
        upload_object_request::Part, upload_objects_request as pack,
    },
};
use sortinghat_tests::{Process, start_coordinator};
use tokio::{net::TcpSocket, task::JoinSet, time::Instant};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// The most memory that the coordinator may ever have held, in MiB.
const MOST_MEMORY_MIB: u64 = 512;
/// The address of those who flood. The honest tenant calls from 127.0.0.1.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Calls of the honest tenant beside each flood.
const CALLS: usize = 300;

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    fn new(token: &str) -> Self {
        Self(format!("Bearer {token}").parse().expect("ASCII"))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Jobs = JobServiceClient<InterceptedService<Channel, Bearer>>;
type Artifacts = ArtifactServiceClient<InterceptedService<Channel, Bearer>>;

#[tokio::test(flavor = "multi_thread")]
async fn no_flood_keeps_an_honest_tenant_from_being_served_or_fills_the_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = folder.path().join("tokens.toml");
    let line = |name: &str| {
        let sha256 = Digest::of(name.as_bytes());
        format!("[[tokens]]\nid = '{name}'\nsha256 = '{sha256}'\ntenant = '{name}'\nrole = 'user'\n")
    };
    fs::write(&tokens, line("honest") + &line("hostile")).expect("writable");
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let log = folder.path().join("log");
    let (process, address) = start_coordinator(&folder.path().join("data"), listen, &log, |command| {
        command.arg("--credentials").arg(&tokens);
    });
    Honest::connect(address).await.p99("no flood").await;

    let idle = idle_connections(address).await;
    Honest::connect(address).await.p99("1,500 idle connections").await;
    drop(idle);

    let watches = health_watches(address).await;
    Honest::connect(address).await.p99("1,500 health watches").await;
    drop(watches);

    let strangers = calls(address, "stranger", "01".to_owned(), Code::Unauthenticated);
    Honest::connect(address).await.p99("calls with an unknown token").await;
    drop(strangers);

    let long_ids = calls(address, "hostile", "x".repeat(4_000_000), Code::InvalidArgument);
    Honest::connect(address).await.p99("calls with ids of 4 MB").await;
    drop(long_ids);

    let known = known_connections(address).await;
    Honest::connect(address).await.p99("1,500 connections of one identity").await;
    drop(known);

    let parked = parked_uploads(address);
    Honest::connect(address).await.p99("150 parked uploads of 8 MiB").await;
    Honest::connect(address).await.upload().await;
    drop(parked);

    let parked = parked_packs(address);
    Honest::connect(address).await.p99("150 parked packs of 8 MiB").await;
    Honest::connect(address).await.upload().await;
    drop(parked);

    let most = most_memory_mib(&process);
    println!("the coordinator held {most} MiB at most");
    assert!(most <= MOST_MEMORY_MIB, "{most} MiB");
    let log_bytes = log.metadata().expect("it logs").len();
    assert!(log_bytes < 100_000, "the log has {log_bytes} bytes");
}

/// The tenant that only wants to work. Its connection is made beside the flood, too.
struct Honest {
    jobs: Jobs,
    artifacts: Artifacts,
}

impl Honest {
    async fn connect(address: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await.expect("up");
        let bearer = Bearer::new("honest");
        let jobs = JobServiceClient::with_interceptor(channel.clone(), bearer.clone());
        Self { jobs, artifacts: ArtifactServiceClient::with_interceptor(channel, bearer) }
    }

    /// Calls again and again, and prints how long the calls took.
    async fn p99(&self, beside: &str) {
        let mut jobs = self.jobs.clone();
        let mut took = Vec::new();
        for _ in 0..CALLS {
            let began = Instant::now();
            jobs.get_queue(GetQueueRequest::default()).await.unwrap_or_else(|refused| panic!("{beside}: {refused}"));
            took.push(began.elapsed());
        }
        took.sort();
        let (p50, p99) = (took[CALLS / 2], took[CALLS * 99 / 100]);
        println!("{beside}: p50 {p50:.1?}, p99 {p99:.1?}");
    }

    async fn upload(&self) {
        let content = b"an honest photo".to_vec();
        let messages = stream::iter(upload(&content, content.len()));
        self.artifacts.clone().upload_object(messages).await.expect("there is memory for it");
    }
}

/// The messages of an upload of `content` up to this byte.
fn upload(content: &[u8], until: usize) -> Vec<UploadObjectRequest> {
    let header = Part::Header(ObjectRef::of(content).into());
    let pieces = content[..until].chunks(1 << 20).map(|piece| Part::Data(piece.to_vec().into()));
    std::iter::once(header).chain(pieces).map(|part| UploadObjectRequest { part: Some(part) }).collect()
}

async fn connect_from_elsewhere(to: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ELSEWHERE, 0).into())?;
    socket.connect(to).await
}

async fn channel_from_elsewhere(to: SocketAddr) -> Channel {
    let connect = tower::service_fn(move |_| async move { connect_from_elsewhere(to).await.map(TokioIo::new) });
    let endpoint = Endpoint::try_from(format!("http://{to}")).expect("an address");
    endpoint.connect_with_connector_lazy(connect)
}

async fn idle_connections(to: SocketAddr) -> Vec<std::io::Result<tokio::net::TcpStream>> {
    join_all((0..1500).map(|_| connect_from_elsewhere(to))).await
}

async fn health_watches(to: SocketAddr) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    for _ in 0..5 {
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel_from_elsewhere(to).await);
        watches.spawn(async move {
            let mut open = Vec::new();
            for _ in 0..300 {
                open.extend(client.watch(tonic_health::pb::HealthCheckRequest::default()).await.ok());
            }
            std::future::pending::<()>().await;
        });
    }
    watches
}

/// Calls of four clients, one after the other, for as long as the result is kept. Each must be refused with `code`, or for want of room.
fn calls(to: SocketAddr, token: &'static str, job_id: String, code: Code) -> JoinSet<()> {
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let job_id = job_id.clone();
        calls.spawn(async move {
            let channel = channel_from_elsewhere(to).await;
            let mut jobs = JobServiceClient::with_interceptor(channel, Bearer::new(token));
            loop {
                let refused = jobs.get_job(GetJobRequest { job_id: job_id.clone() }).await.expect_err("refused");
                assert!([code, Code::ResourceExhausted].contains(&refused.code()), "{refused}");
            }
        });
    }
    calls
}

/// Connections on each of which the hostile tenant has called: as many as it may have. It tries to open many more, which are refused.
async fn known_connections(to: SocketAddr) -> Vec<Jobs> {
    let connect = async |_| {
        let mut jobs = JobServiceClient::with_interceptor(channel_from_elsewhere(to).await, Bearer::new("hostile"));
        let called = jobs.get_queue(GetQueueRequest::default()).await;
        called.map(|_| jobs)
    };
    let tried: Vec<_> = stream::iter(0..1500).map(connect).buffer_unordered(64).collect().await;
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for tried in tried {
        match tried {
            Ok(jobs) => open.push(jobs),
            Err(status) => refused.push(status),
        }
    }
    assert_eq!(open.len(), limits::DEFAULT_MAX_OPEN_PER_IDENTITY);
    for refused in refused {
        assert!(refused.message().contains("max_open_per_identity"), "{refused}");
    }
    open
}

/// Uploads that lack their last byte and never end.
fn parked_uploads(to: SocketAddr) -> JoinSet<()> {
    let mut uploads = JoinSet::new();
    for number in 0..150_u8 {
        uploads.spawn(async move {
            let mut content = vec![7; 8 << 20];
            content[0] = number;
            let messages = stream::iter(upload(&content, content.len() - 1)).chain(stream::pending());
            let channel = channel_from_elsewhere(to).await;
            let mut artifacts = ArtifactServiceClient::with_interceptor(channel, Bearer::new("hostile"));
            // It is refused, or it never ends.
            let _ = artifacts.upload_object(messages).await;
        });
    }
    uploads
}

/// Packs whose last object lacks its last byte, and which never end.
fn parked_packs(to: SocketAddr) -> JoinSet<()> {
    let mut packs = JoinSet::new();
    for number in 0..150_u8 {
        packs.spawn(async move {
            let object = vec![number; 8 << 10];
            let objects = vec![ObjectRef::of(&object).into(); 999];
            let last = ObjectRef { size_bytes: 100 << 10, ..ObjectRef::of(b"never sent") };
            let index = PackIndex { objects: [objects, vec![last.into()]].concat() };
            let contents = vec![number; 999 * object.len() + (100 << 10) - 1];
            let pieces = contents.chunks(1 << 20).map(|piece| pack::Part::Data(piece.to_vec().into()));
            let parts: Vec<_> = std::iter::once(pack::Part::Index(index)).chain(pieces).collect();
            let messages = parts.into_iter().map(|part| UploadObjectsRequest { part: Some(part) });
            let channel = channel_from_elsewhere(to).await;
            let mut artifacts = ArtifactServiceClient::with_interceptor(channel, Bearer::new("hostile"));
            // It is refused, or it never ends.
            let _ = artifacts.upload_objects(stream::iter(messages).chain(stream::pending())).await;
        });
    }
    packs
}

fn most_memory_mib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}
