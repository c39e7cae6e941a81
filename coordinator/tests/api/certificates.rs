//! Certificates that change while the coordinator serves.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use nix::sys::signal::{Signal, raise};
use sortinghat_coordinator::config::Settings;
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{Coordinator, page};

/// A change is noticed within this time.
const NOTICED: Duration = Duration::from_secs(10);

fn pem(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/tls").join(name)).expect("it is committed")
}

/// Replaces a file at once.
fn replace(folder: &TempDir, file: &str, content: &[u8]) {
    let next = folder.path().join("next");
    fs::write(&next, content).expect("writable");
    fs::rename(next, folder.path().join(file)).expect("writable");
}

/// A coordinator with the first certificate, and the folder that it is in.
async fn coordinator() -> (Coordinator, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    replace(&folder, "cert.pem", &pem("cert.pem"));
    replace(&folder, "key.pem", &pem("key.pem"));
    let settings = Settings {
        tls_cert: Some(folder.path().join("cert.pem")),
        tls_key: Some(folder.path().join("key.pem")),
        metrics_listen: "127.0.0.1:0".parse().ok(),
        ..Settings::default()
    };
    (Coordinator::start_with(settings).await, folder)
}

/// A new connection that trusts this certificate; `None` if the server shows another one.
async fn connect(address: SocketAddr, trusted: &str) -> Option<HealthClient<Channel>> {
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem(trusted))).domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{address}")).expect("a URL");
    endpoint.tls_config(trusting).expect("a certificate").connect().await.ok().map(HealthClient::new)
}

async fn check(client: &mut HealthClient<Channel>) {
    client.check(HealthCheckRequest::default()).await.expect("it goes on");
}

/// Waits for a new connection on which the server shows this certificate.
async fn until_shown(address: SocketAddr, certificate: &str) -> HealthClient<Channel> {
    let begun = Instant::now();
    loop {
        if let Some(client) = connect(address, certificate).await {
            return client;
        }
        assert!(begun.elapsed() < NOTICED, "the change is never noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn new_connections_are_shown_the_new_certificate_and_open_ones_go_on() {
    let (coordinator, folder) = coordinator().await;
    let mut old = connect(coordinator.address, "cert.pem").await.expect("the first certificate");
    assert!(connect(coordinator.address, "next-cert.pem").await.is_none());
    replace(&folder, "cert.pem", &pem("next-cert.pem"));
    replace(&folder, "key.pem", &pem("next-key.pem"));
    check(&mut until_shown(coordinator.address, "next-cert.pem").await).await;
    assert!(connect(coordinator.address, "cert.pem").await.is_none());
    check(&mut old).await;
}

#[tokio::test]
async fn a_certificate_without_its_key_keeps_the_last_good_ones_and_raises_a_metric() {
    let (coordinator, folder) = coordinator().await;
    let pages = coordinator.metrics_address.expect("metrics are served");
    replace(&folder, "cert.pem", &pem("next-cert.pem"));
    let begun = Instant::now();
    while !page(pages, "/metrics").await.contains(r#"sortinghat_stale_files{files="certificate"} 1"#) {
        assert!(begun.elapsed() < NOTICED, "the metric is never raised");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check(&mut connect(coordinator.address, "cert.pem").await.expect("the first certificate is in use")).await;
    replace(&folder, "key.pem", &pem("next-key.pem"));
    check(&mut until_shown(coordinator.address, "next-cert.pem").await).await;
}

#[tokio::test]
async fn a_hundred_swaps_fail_no_call_and_no_connection() {
    let (coordinator, folder) = coordinator().await;
    let mut old = connect(coordinator.address, "cert.pem").await.expect("the first certificate");
    for number in 1..=100 {
        let name = if number % 2 == 0 { "" } else { "next-" };
        replace(&folder, "cert.pem", &pem(&format!("{name}cert.pem")));
        replace(&folder, "key.pem", &pem(&format!("{name}key.pem")));
        raise(Signal::SIGHUP).expect("a signal can be sent to ourselves");
        check(&mut old).await;
        check(&mut until_shown(coordinator.address, &format!("{name}cert.pem")).await).await;
    }
}
