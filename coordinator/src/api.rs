//! The gRPC services: thin handlers that parse, call the engine or the object store, and convert.

mod arrival;
mod artifacts;
mod guard;
mod job_places;
mod jobs;
mod methods;
mod places;
mod record;
mod workers;

use std::time::Duration;

use sortinghat_proto::{
    DESCRIPTORS, limits,
    v1::{
        artifact_service_server::ArtifactServiceServer, job_service_server::JobServiceServer,
        worker_service_server::WorkerServiceServer,
    },
};
use tonic::{
    Request,
    service::Routes,
    transport::{Server, server::Router},
};
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};

use crate::{
    auth::{Authenticator, Caller},
    engine::Engine,
    objects::Objects,
};
pub(crate) use guard::BulkThreads;
use guard::GuardLayer;
use job_places::JobPlaces;

/// Calls at a time on one connection.
const MAX_STREAMS_PER_CONNECTION: u32 = 1000;
/// How often a quiet connection is asked whether it is still there, and how long it has to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The services that answer health checks by name; the empty name is the whole server.
const HEALTH_NAMES: [&str; 4] =
    ["", "sortinghat.v1.JobService", "sortinghat.v1.ArtifactService", "sortinghat.v1.WorkerService"];

/// A server whose every call passes the guard.
pub(crate) type GuardedRouter = Router<Stack<GuardLayer, Identity>>;

/// A server that still lacks its services.
pub(crate) type PlainServer = Server;

/// All services behind `authenticator`, on a server that may have TLS configured. Calls that bring many jobs are run by `bulk`.
pub(crate) fn router(
    server: PlainServer,
    authenticator: Authenticator,
    engine: &Engine,
    objects: Objects,
    health: &HealthReporter,
    bulk: BulkThreads,
) -> GuardedRouter {
    let jobs = JobServiceServer::new(jobs::Jobs { engine: engine.clone(), places: JobPlaces::default() });
    let artifacts = ArtifactServiceServer::new(artifacts::Artifacts { engine: engine.clone(), objects });
    let workers = WorkerServiceServer::new(workers::Workers { engine: engine.clone() });
    let health = tonic_health::server::HealthService::from_health_reporter(health.clone());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let valid = "the descriptors were made by the compiler";
    // No compression: a limit on a message's size would not bound what it expands to.
    let routes = Routes::new(jobs.max_decoding_message_size(limits::MAX_MESSAGE_BYTES))
        .add_service(artifacts.max_decoding_message_size(limits::MAX_MESSAGE_BYTES))
        .add_service(workers.max_decoding_message_size(limits::MAX_MESSAGE_BYTES))
        .add_service(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection().build_v1().expect(valid))
        .add_service(reflection().build_v1alpha().expect(valid));
    server
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(GuardLayer::new(authenticator, bulk))
        .add_routes(routes)
}

/// Tells health checks whether calls are welcome.
pub(crate) async fn report_health(health: &HealthReporter, status: tonic_health::ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// The caller that the guard let in.
fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().expect("the guard lets no call of ours pass without a caller").clone()
}
