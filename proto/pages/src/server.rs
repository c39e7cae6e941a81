//! The server of the pages.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, time::interval};
use tokio_util::sync::CancellationToken;

use crate::{metric::recorder, process};

/// How often samples are folded into buckets while no page is requested.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// What a process says of itself. Clones say the same.
#[derive(Debug, Clone, Default)]
pub struct Probes(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    has_started: AtomicBool,
    is_leaving: AtomicBool,
}

impl Probes {
    /// Says that the process has started, and is ready.
    pub fn started(&self) {
        self.0.has_started.store(true, Ordering::Relaxed);
    }

    /// Says that the process was told to stop, and is not ready any more.
    pub fn leaving(&self) {
        self.0.is_leaving.store(true, Ordering::Relaxed);
    }

    fn startup(&self) -> (StatusCode, &'static str) {
        match self.0.has_started.load(Ordering::Relaxed) {
            true => (StatusCode::OK, "ok\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        }
    }

    fn readiness(&self) -> (StatusCode, &'static str) {
        match self.0.is_leaving.load(Ordering::Relaxed) {
            true => (StatusCode::SERVICE_UNAVAILABLE, "told to stop\n"),
            false => self.startup(),
        }
    }
}

/// Serves `/metrics`, `/livez`, `/readyz`, `/startupz` and the pages of `others` until `stop` is cancelled.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    probes: Probes,
    others: Option<Router>,
    stop: CancellationToken,
) -> io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(|| async { metrics() }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|State(probes): State<Probes>| async move { probes.readiness() }))
        .route("/startupz", get(|State(probes): State<Probes>| async move { probes.startup() }))
        .with_state(probes)
        .merge(others.unwrap_or_default());
    let upkeep = async {
        let mut ticks = interval(UPKEEP_PERIOD);
        loop {
            ticks.tick().await;
            recorder().into_iter().for_each(PrometheusHandle::run_upkeep);
        }
    };
    tokio::select! {
        served = axum::serve(listener, pages).with_graceful_shutdown(stop.cancelled_owned()).into_future() => served,
        () = upkeep => Ok(()),
    }
}

/// The page for Prometheus; empty if the process keeps no metrics.
fn metrics() -> String {
    let Some(recorder) = recorder() else { return String::new() };
    process::measure();
    recorder.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_from_its_start_until_it_is_told_to_stop() {
        let probes = Probes::default();
        let said = || (probes.startup().0.as_u16(), probes.readiness().0.as_u16());
        assert_eq!(said(), (503, 503));
        probes.started();
        assert_eq!(said(), (200, 200));
        probes.clone().leaving();
        assert_eq!(said(), (200, 503), "a process that leaves has started all the same");
    }
}
