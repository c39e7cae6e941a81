use std::path::Path;

use futures::{StreamExt as _, stream};
use sortinghat_coordinator::{
    app::{App, Drained},
    config::{Config, ObjectStoreUrl, Settings},
};
use sortinghat_proto::v1::{ListJobsRequest, WatchJobRequest};
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{ByHand, Coordinator, page};

/// The names of the services that reflection lists.
macro_rules! reflected_services {
    ($version:ident, $coordinator:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new($coordinator.channel().await);
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = client.server_reflection_info(stream::iter([question])).await.expect("served");
        let answer = answers.into_inner().message().await.expect("an answer").expect("one answer");
        match answer.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<String>>()
            }
            other => panic!("a list of services was asked for: {other:?}"),
        }
    }};
}

#[tokio::test]
async fn both_versions_of_reflection_list_our_services() {
    let coordinator = Coordinator::start().await;
    for services in [reflected_services!(v1, coordinator), reflected_services!(v1alpha, coordinator)] {
        for name in ["sortinghat.v1.JobService", "sortinghat.v1.ArtifactService", "sortinghat.v1.WorkerService"] {
            assert!(services.iter().any(|service| service == name), "{name} in {services:?}");
        }
    }
}

#[tokio::test]
async fn health_turns_from_serving_to_not_serving_when_it_drains() {
    let coordinator = Coordinator::start().await;
    let mut health = HealthClient::new(coordinator.channel().await);
    let request = HealthCheckRequest { service: "sortinghat.v1.JobService".to_owned() };
    let mut statuses = health.watch(request).await.expect("served").into_inner();
    let mut next = async || -> Option<HealthCheckResponse> { statuses.message().await.expect("told") };
    assert_eq!(next().await.map(|answer| answer.status()), Some(ServingStatus::Serving));
    coordinator.ask_to_stop();
    assert_eq!(next().await.map(|answer| answer.status()), Some(ServingStatus::NotServing));
}

#[tokio::test]
async fn a_drain_ends_watches_and_held_polls_and_cuts_nothing_off() {
    // A poll is held for a third of a lease: without the drain it would outlast the grace period.
    let (lease_ttl, drain_grace) = ("1h".parse().ok(), "20s".parse().ok());
    let coordinator = Coordinator::start_with(Settings { lease_ttl, drain_grace, ..Settings::default() }).await;
    let mut client = coordinator.client().await;
    let mut worker = ByHand::new(coordinator.client().await);
    worker.synchronize(vec![], 1, 0).await.expect("known");
    let held = tokio::spawn(async move { worker.synchronize(vec![], 0, u32::MAX).await });
    let job_id = client.submit_ingest("stamps").await;
    let watch = client.jobs.watch_job(WatchJobRequest { job_id, after_sequence: 0 }).await.expect("it exists");
    let mut watch = watch.into_inner();
    watch.next().await.expect("the first event").expect("an event");

    coordinator.ask_to_stop();
    while watch.next().await.is_some() {}
    // The call is answered or refused, but not left hanging.
    let _ = held.await.expect("the call ends");
    drop(client);
    assert_eq!(coordinator.stopped().await, Drained::Fully);
}

#[tokio::test]
async fn an_unknown_method_of_our_services_is_unimplemented() {
    let coordinator = Coordinator::start().await;
    let mut client = tonic::client::Grpc::new(coordinator.channel().await);
    client.ready().await.expect("connected");
    let codec = tonic_prost::ProstCodec::<ListJobsRequest, ListJobsRequest>::default();
    let path = http::uri::PathAndQuery::from_static("/sortinghat.v1.JobService/Explode");
    let status = client.unary(Request::new(ListJobsRequest::default()), path, codec).await.expect_err("no such method");
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn over_tls_the_server_shows_the_configured_certificate() {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/tls").join(name);
    let settings = Settings { tls_cert: Some(file("cert.pem")), tls_key: Some(file("key.pem")), ..Settings::default() };
    let coordinator = Coordinator::start_with(settings).await;
    let certificate = Certificate::from_pem(std::fs::read(file("cert.pem")).expect("it is committed"));
    let trusting = ClientTlsConfig::new().ca_certificate(certificate).domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{}", coordinator.address)).expect("a URL");
    let channel = endpoint.tls_config(trusting).expect("a certificate").connect().await.expect("trusted");
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.expect("served");
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);

    let plain = Channel::from_shared(format!("http://{}", coordinator.address)).expect("a URL").connect().await;
    if let Ok(channel) = plain {
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.expect_err("plain text is not answered");
    }
}

#[tokio::test]
async fn the_pages_for_operators_show_the_health_and_the_number_of_calls() {
    let settings = Settings { metrics_listen: "127.0.0.1:0".parse().ok(), ..Settings::default() };
    let coordinator = Coordinator::start_with(settings).await;
    let pages = coordinator.metrics_address.expect("metrics are served");
    let mut client = coordinator.client().await;
    client.jobs.list_jobs(ListJobsRequest::default()).await.expect("allowed");
    assert!(page(pages, "/healthz").await.starts_with("HTTP/1.0 200"));
    let metrics = page(pages, "/metrics").await;
    let line = "sortinghat_grpc_calls_total{method=\"JobService/ListJobs\",code=\"OK\"} ";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_queue_with_the_objects_of_another_queue_is_not_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = |name: &str| Settings {
        listen: "127.0.0.1:0".parse().ok(),
        data_dir: Some(folder.path().join(name)),
        object_store: ObjectStoreUrl::of_folder(&folder.path().join("objects")).ok(),
        ..Settings::default()
    };
    let build = async |name| App::build(Config::resolve(settings(name)).expect("valid"), None).await;
    for _ in 0..2 {
        drop(build("first").await.expect("its own objects"));
    }
    let refused = build("second").await.err().expect("the objects belong to the first queue").to_string();
    assert!(refused.contains("another queue") && refused.contains("--object-store"), "{refused}");
    std::fs::remove_file(folder.path().join("objects/queue-id")).expect("the object that the message names exists");
    drop(build("second").await.expect("its own objects now"));
}
