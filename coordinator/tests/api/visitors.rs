//! Callers without a token: how many connections and calls they may keep, and that others are still served.

use std::net::{Ipv4Addr, SocketAddr};

use futures::FutureExt as _;
use hyper_util::rt::TokioIo;
use sortinghat_proto::limits;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::Coordinator;

/// Another address of this machine, which others than the test's usual clients use.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn connect_from_elsewhere(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ELSEWHERE, 0).into())?;
    socket.connect(to).await
}

async fn channel_from_elsewhere(to: SocketAddr) -> Channel {
    let connect = tower::service_fn(move |_| async move { connect_from_elsewhere(to).await.map(TokioIo::new) });
    let endpoint = Endpoint::try_from(format!("http://{to}")).expect("an address");
    endpoint.connect_with_connector(connect).await.expect("it connects")
}

#[tokio::test]
async fn idle_connections_from_one_address_are_bounded_and_callers_from_another_are_served() {
    let coordinator = Coordinator::start().await;
    let mut idle = Vec::new();
    for _ in 0..limits::DEFAULT_MAX_UNKNOWN_CONNECTIONS_PER_ADDRESS {
        idle.push(connect_from_elsewhere(coordinator.address).await.expect("it connects"));
    }
    // The server speaks first on a connection that it keeps.
    for connection in &mut idle {
        assert_ne!(connection.read(&mut [0; 64]).await.expect("it is open"), 0);
    }
    let mut waiting = connect_from_elsewhere(coordinator.address).await.expect("the kernel accepts it");
    coordinator.client().await.submit_ingest("stamps").await;
    let mut said = [0; 64];
    assert!(waiting.read(&mut said).now_or_never().is_none(), "the server does not speak yet");
    drop(idle.pop());
    assert_ne!(waiting.read(&mut said).await.expect("there is a place now"), 0);
}

#[tokio::test]
async fn health_watches_from_one_address_are_bounded_and_checks_from_another_are_answered() {
    let coordinator = Coordinator::start().await;
    let mut elsewhere = HealthClient::new(channel_from_elsewhere(coordinator.address).await);
    let mut watches = Vec::new();
    let refused = loop {
        match elsewhere.watch(HealthCheckRequest::default()).await {
            Ok(watch) => watches.push(watch),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.code(), watches.len()), (Code::ResourceExhausted, limits::MAX_OPEN_CALLS_IN_FLIGHT / 8));
    let mut here = HealthClient::new(coordinator.channel().await);
    here.check(HealthCheckRequest::default()).await.expect("there is room for others");
}

#[tokio::test]
async fn a_message_repeats_little_of_what_was_sent() {
    let coordinator = Coordinator::start().await;
    let job_id = "x".repeat(1 << 20);
    let refused = coordinator.client().await.jobs.get_job(sortinghat_proto::v1::GetJobRequest { job_id }).await;
    let message = refused.expect_err("it is no id").message().to_owned();
    assert!(message.len() < 200 && message.starts_with("\"xxx"), "{message}");
}
