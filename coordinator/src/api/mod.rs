//! The gRPC services: thin handlers that parse, call the engine or the object store, and convert.

mod admission;
mod arrival;
mod artifacts;
mod gate;
mod guard;
mod identity;
mod jobs;
mod methods;
mod record;
mod uploads;
mod visitors;
mod workers;

use std::time::Duration;

use sortinghat_proto::{
    DESCRIPTORS, Refusal, STATUS_DESCRIPTORS, Tenant, limits,
    v1::{
        ErrorCode,
        artifact_service_server::{self, ArtifactServiceServer},
        identity_service_server::{self, IdentityServiceServer},
        job_service_server::{self, JobServiceServer},
        worker_service_server::{self, WorkerServiceServer},
    },
};
use tokio::sync::watch;
use tonic::{
    Request, Status,
    service::Routes,
    transport::{Server, server::Router},
};
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};

use crate::{
    auth::{Authenticator, Caller, Role},
    engine::{Engine, EngineError},
    objects::Objects,
};
use admission::{JobAdmission, UploadMemory};
pub(crate) use guard::BulkThreads;
use guard::GuardLayer;
pub(crate) use visitors::{Connection, Visitors};

/// How many calls may be under way on one connection.
const MAX_STREAMS_PER_CONNECTION: u32 = 1000;
/// How many bytes of one call, and of all calls of one connection, may be on their way or unread. Over a round trip of 50 ms these are 20 and
/// 160 MB/s. The memory that a flood can take is bounded by the former and the places of calls, since it may come over many connections.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// How often a quiet connection is asked whether it is still alive.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long a connection has to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The name under which a health check is told whether new work is taken. It is for readiness and not for liveness: it does not help to
/// start the process again.
const READINESS: &str = "readiness";
/// The services that answer health checks by name; the empty name is the whole server.
const HEALTH_NAMES: [&str; 5] = [
    "",
    job_service_server::SERVICE_NAME,
    artifact_service_server::SERVICE_NAME,
    worker_service_server::SERVICE_NAME,
    identity_service_server::SERVICE_NAME,
];

/// The only place where an error of the engine becomes an answer.
impl From<EngineError> for Status {
    fn from(error: EngineError) -> Self {
        Refusal::from(error).into()
    }
}

/// A server whose every call passes the guard.
pub(crate) type GuardedRouter = Router<Stack<GuardLayer, Identity>>;

/// A server that still lacks its services.
pub(crate) type PlainServer = Server;

/// Who may call, and how much at a time.
pub(crate) struct Callers {
    /// The tokens and certificates that are valid now.
    pub(crate) tokens: watch::Receiver<Authenticator>,
    /// How many connections one of them may have open, and how many calls under way.
    pub(crate) most_open: usize,
}

/// All services for these callers, on a server that may have TLS configured. Calls that bring many jobs run on `bulk`.
pub(crate) fn router(
    server: PlainServer,
    callers: Callers,
    engine: &Engine,
    objects: Objects,
    health: &HealthReporter,
    bulk: BulkThreads,
) -> GuardedRouter {
    let jobs = JobServiceServer::new(jobs::Jobs { engine: engine.clone(), admission: JobAdmission::default() });
    let artifacts = ArtifactServiceServer::new(artifacts::Artifacts {
        engine: engine.clone(),
        objects,
        memory: UploadMemory::default(),
    });
    let workers = WorkerServiceServer::new(workers::Workers { engine: engine.clone() });
    let health = tonic_health::server::HealthService::from_health_reporter(health.clone());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(STATUS_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let valid = "the descriptors were made by the compiler";
    // Compression stays off: the limit on a message's size would not bound the size that it expands to.
    let routes = Routes::new(jobs.max_decoding_message_size(limits::MAX_MESSAGE_BYTES))
        .add_service(artifacts.max_decoding_message_size(limits::MAX_MESSAGE_BYTES))
        .add_service(workers.max_decoding_message_size(limits::MAX_MESSAGE_BYTES))
        .add_service(IdentityServiceServer::new(identity::Identities))
        .add_service(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection().build_v1().expect(valid))
        .add_service(reflection().build_v1alpha().expect(valid));
    server
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(GuardLayer::new(callers.tokens, callers.most_open, bulk))
        .add_routes(routes)
}

/// The names by which the metrics know the methods.
pub(crate) fn method_names() -> impl Iterator<Item = &'static str> {
    methods::all().map(methods::Method::short_name)
}

/// Tells health checks by the name [`READINESS`] whether new work is taken. The other names do not depend on any store.
pub(crate) async fn report_readiness(health: &HealthReporter, status: tonic_health::ServingStatus) {
    health.set_service_status(READINESS, status).await;
}

/// Tells health checks whether the coordinator takes calls.
pub(crate) async fn report_health(health: &HealthReporter, status: tonic_health::ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// The tenant of the caller, of whose jobs and objects the call is.
fn tenant<T>(request: &Request<T>) -> Tenant {
    caller(request).tenant.expect("the guard lets only callers with a tenant call these methods")
}

/// The tenant that a request names, which only an operator may choose; the caller's own if the request names none.
fn tenant_named<T>(request: &Request<T>, named: &str) -> Result<Tenant, Refusal> {
    let caller = caller(request);
    let named = if named.is_empty() { None } else { Some(named.parse::<Tenant>()?) };
    match (caller.role, named, caller.tenant) {
        (Role::Operator | Role::Everyone, Some(named), _) => Ok(named),
        (_, None, Some(own)) => Ok(own),
        (_, Some(named), Some(own)) if named == own => Ok(own),
        (_, None, None) => Err(Refusal::invalid("tenant", "an operator has no queue of its own: name a tenant")),
        (_, Some(_), _) => {
            let message = format!("{} may not see the queue of another tenant", caller.id);
            Err(Refusal::new(ErrorCode::PermissionDenied, message).at("tenant"))
        }
    }
}

/// The caller that the guard let in.
fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().expect("the guard adds the caller to every call of our services").clone()
}
