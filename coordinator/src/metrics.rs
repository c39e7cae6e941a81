//! The pages for operators, over plain HTTP: `/metrics` for Prometheus, `/healthz`, which looks at the store, and the probes of Kubernetes,
//! which do not. A store that is down must neither take all coordinators out of service nor restart them: `/livez` and `/startupz` only say
//! that the process answers, and `/readyz` says 503 once it was told to stop.

use std::{sync::OnceLock, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// The upper bounds of the latency buckets, in seconds. The last ones are for calls that wait for something.
const LATENCY_BUCKETS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];
/// The upper bounds of the buckets of how many batches are committed together. These are counts and not seconds.
const GROUP_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];
/// How often samples are folded into buckets while no page is requested.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Page {
    recorder: PrometheusHandle,
    engine: Engine,
    /// Cancelled when the process is told to stop.
    leaving: CancellationToken,
}

/// The process's recorder. The first call installs it; samples are kept from then on.
pub(crate) fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || {
        let handle = PrometheusBuilder::new()
            .set_buckets(&LATENCY_BUCKETS_S)
            .expect("there are buckets")
            .set_buckets_for_metric(Matcher::Full("sortinghat_store_group_batches".to_owned()), &GROUP_BUCKETS)
            .expect("there are buckets")
            .install_recorder()
            .expect("nothing else in this process installs a recorder");
        describe_counter!("sortinghat_grpc_calls_total", "Calls that ended, by method and gRPC code");
        describe_gauge!("sortinghat_grpc_calls_in_flight", "Calls that have not ended, by method");
        describe_histogram!("sortinghat_grpc_call_seconds", "Seconds from a call's start to its answer's last byte");
        describe_histogram!(
            "sortinghat_store_group_batches",
            "Batches that one commit of the queue's file takes together"
        );
        handle
    };
    RECORDER.get_or_init(install).clone()
}

/// Serves the pages until `stop` is cancelled. They say that the process is not ready once `leaving` is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    engine: Engine,
    leaving: CancellationToken,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let recorder = recorder();
    let pages = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(health_page))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/startupz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .with_state(Page { recorder: recorder.clone(), engine, leaving });
    let upkeep = async {
        let mut ticks = tokio::time::interval(UPKEEP_PERIOD);
        loop {
            ticks.tick().await;
            recorder.run_upkeep();
        }
    };
    tokio::select! {
        served = axum::serve(listener, pages).with_graceful_shutdown(stop.cancelled_owned()).into_future() => served,
        () = upkeep => Ok(()),
    }
}

async fn metrics_page(State(page): State<Page>) -> String {
    page.recorder.render()
}

async fn ready_page(State(page): State<Page>) -> (StatusCode, &'static str) {
    match page.leaving.is_cancelled() {
        false => (StatusCode::OK, "ok\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "told to stop\n"),
    }
}

async fn health_page(State(page): State<Page>) -> (StatusCode, String) {
    match page.engine.check_work().await {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
    }
}
