//! The pages for operators, over plain HTTP: `/metrics` for Prometheus, the probes, and `/healthz` for whoever wants to know whether new work is
//! taken, which depends on the store.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use sortinghat_pages::{Label, Metric, Probes};
use sortinghat_proto::{
    JobKind,
    protocol::PROTOCOL_TEXT,
    v1::{AttemptOutcome, JobState},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{api, engine::Engine};

/// The upper bounds of the latency buckets, in seconds. The last ones are for calls that wait for something.
const LATENCY_BUCKETS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];
/// The upper bounds of the buckets of how many batches are committed together. These are counts and not seconds.
const GROUP_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

const CALLS: Metric = Metric::counter("sortinghat_grpc_calls_total", "Calls that ended, by method and gRPC code");
const CALLS_IN_FLIGHT: Metric =
    Metric::gauge("sortinghat_grpc_calls_in_flight", "Calls that have not ended, by method");
const CALL_SECONDS: Metric = Metric::histogram(
    "sortinghat_grpc_call_seconds",
    "Seconds from a call's start to its answer's last byte, by method",
    &LATENCY_BUCKETS_S,
);
const SUBMITTED: Metric = Metric::counter("sortinghat_jobs_submitted_total", "Jobs that were accepted, by kind");
const JOBS_ENDED: Metric = Metric::counter("sortinghat_jobs_ended_total", "Jobs that ended, by kind and state");
const STARTED: Metric =
    Metric::counter("sortinghat_attempts_started_total", "Attempts that a worker was given, by kind");
const ATTEMPTS_ENDED: Metric =
    Metric::counter("sortinghat_attempts_ended_total", "Attempts that ended, by kind and outcome");
const TASKS: Metric =
    Metric::gauge("sortinghat_tasks", "Tasks that have not ended, by phase: blocked, ready or leased");
const RELOADS: Metric =
    Metric::counter("sortinghat_reloads_total", "Changed files that were taken into use, by what they hold");
const STALE: Metric =
    Metric::gauge("sortinghat_stale_files", "1 while changed files cannot be used, by what they hold; else 0");

/// There is none without TLS: a zero would say that a certificate has ended long ago.
const EXPIRY: Metric = Metric::gauge(
    "sortinghat_certificate_expiry_timestamp_seconds",
    "When a certificate stops being valid, in seconds since 1970, by the setting that names it",
);

/// The metrics that have labels.
const LABELLED: [Metric; 11] = [
    CALLS,
    CALLS_IN_FLIGHT,
    CALL_SECONDS,
    SUBMITTED,
    JOBS_ENDED,
    STARTED,
    ATTEMPTS_ENDED,
    TASKS,
    RELOADS,
    STALE,
    EXPIRY,
];

/// The metrics without labels.
const PLAIN: [Metric; 29] = [
    Metric::counter("sortinghat_tls_handshakes_failed_total", "TLS handshakes that failed or took too long"),
    Metric::counter("sortinghat_connections_refused_total", "Connections that were closed, as too many are unknown"),
    Metric::counter("sortinghat_quota_refusals_total", "Submissions refused, as too many jobs or tasks wait"),
    Metric::counter("sortinghat_contended_commands_total", "Commands given up, as too many change the same thing"),
    Metric::counter(
        "sortinghat_invariant_violations_total",
        "Changes refused, as they would break a promise: a defect",
    ),
    Metric::counter("sortinghat_bulk_cancelled_jobs_total", "Jobs cancelled by calls that cancel many"),
    Metric::counter("sortinghat_deadlines_missed_total", "Tasks that were not done by their deadline"),
    Metric::counter("sortinghat_jobs_forgotten_total", "Jobs that were removed after their retention"),
    Metric::counter("sortinghat_leases_expired_total", "Leases that ended without having been renewed"),
    Metric::counter("sortinghat_task_retries_total", "Tasks that became ready again after a failed attempt"),
    Metric::counter("sortinghat_preemptions_total", "Tasks that gave way to more urgent ones"),
    Metric::counter("sortinghat_claim_failures_total", "Claims of tasks that the store failed"),
    Metric::counter("sortinghat_sweep_failures_total", "Sweeps that the store failed"),
    Metric::gauge("sortinghat_open_queues", "Queues that have ready tasks and are not paused"),
    Metric::counter(
        "sortinghat_unverified_outcomes_total",
        "Successes taken without a look at their objects, as the store failed",
    ),
    Metric::counter("sortinghat_refused_outputs_total", "Successes refused, as they are not what their task makes"),
    Metric::counter("sortinghat_stale_completions_total", "Outcomes of attempts that had lost their lease"),
    Metric::counter("sortinghat_renewals_refused_total", "Leases that were not renewed, as somebody else has the task"),
    Metric::counter("sortinghat_events_dropped_total", "Events of attempts beyond what a history keeps"),
    Metric::counter("sortinghat_foreign_worker_messages_total", "Messages refused, as another process is that worker"),
    Metric::counter("sortinghat_collection_failures_total", "Collections of objects that a store failed"),
    Metric::counter("sortinghat_objects_suspected_total", "Objects found to which nothing refers"),
    Metric::counter("sortinghat_objects_removed_total", "Objects removed, as nothing referred to them"),
    Metric::counter("sortinghat_object_bytes_removed_total", "Bytes of the objects that were removed"),
    Metric::counter("sortinghat_unfinished_uploads_removed_total", "Files of unfinished uploads that were removed"),
    Metric::counter("sortinghat_checkpoints_removed_total", "Checkpoints removed, as no attempt goes on from them"),
    Metric::counter("sortinghat_store_commit_failures_total", "Commits that the queue's store failed"),
    Metric::histogram(
        "sortinghat_store_group_batches",
        "Batches that one commit of the queue's store takes together",
        &GROUP_BUCKETS,
    ),
    Metric::gauge("sortinghat_store_data_loss_allowed", "1 if the Redis may lose acknowledged jobs; else 0"),
];

/// The metrics of a Redis.
const OF_REDIS: [Metric; 2] = [
    Metric::counter("sortinghat_store_reconnects_total", "Connections to Redis that were opened again"),
    Metric::counter("sortinghat_store_lost_writes_total", "Acknowledged writes that Redis has lost"),
];

/// Makes the process keep its metrics from now on, with a zero for each of them.
pub(crate) fn install() {
    let all: Vec<Metric> = [&LABELLED[..], &PLAIN, &OF_REDIS].concat();
    let build = [("program", "coordinator"), ("version", env!("CARGO_PKG_VERSION")), ("protocol", PROTOCOL_TEXT)];
    sortinghat_pages::install(&all, &build);
    PLAIN.iter().chain(&OF_REDIS).for_each(|metric| metric.start(&[]));
    for method in api::method_names() {
        CALLS.start(&[("method", method), ("code", "OK")]);
        [CALLS_IN_FLIGHT, CALL_SECONDS].iter().for_each(|metric| metric.start(&[("method", method)]));
    }
    for kind in JobKind::ALL.iter().map(|kind| ("kind", kind.as_str())) {
        [SUBMITTED, STARTED].iter().for_each(|metric| metric.start(&[kind]));
        ended_states().for_each(|state| JOBS_ENDED.start(&[kind, state]));
        outcomes().for_each(|outcome| ATTEMPTS_ENDED.start(&[kind, outcome]));
    }
    ["blocked", "ready", "leased"].iter().for_each(|phase| TASKS.start(&[("phase", phase)]));
    for files in [("files", "tokens"), ("files", "certificate")] {
        [RELOADS, STALE].iter().for_each(|metric| metric.start(&[files]));
    }
}

fn ended_states() -> impl Iterator<Item = Label> {
    [JobState::Succeeded, JobState::Failed, JobState::Cancelled].into_iter().map(|state| ("state", state.as_str_name()))
}

fn outcomes() -> impl Iterator<Item = Label> {
    let all = (1..).map_while(|number| AttemptOutcome::try_from(number).ok());
    all.map(|outcome| ("outcome", outcome.as_str_name()))
}

/// Serves the pages until `stop` is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    engine: Engine,
    probes: Probes,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let health = Router::new().route("/healthz", get(health_page)).with_state(engine);
    sortinghat_pages::serve(listener, probes, Some(health), stop).await
}

async fn health_page(State(engine): State<Engine>) -> (StatusCode, String) {
    match engine.check_work().await {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
    }
}
