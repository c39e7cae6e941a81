//! What a worker counts and times for its operators. The names of tenants are in none of it.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use sortinghat_objects::{Trouble, is_missing};
use sortinghat_pages::Metric;
use sortinghat_proto::{
    JobKind,
    protocol::PROTOCOL_TEXT,
    v1::{self, task_outcome::Outcome},
};

/// The upper bounds of the buckets of tasks, in seconds: from the classify of one photo to a long training.
const TASK_BUCKETS_S: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0];
/// The upper bounds of the buckets of requests to the object store, in seconds.
const STORE_BUCKETS_S: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

const CLAIMED: Metric = Metric::counter("sortinghat_worker_tasks_claimed_total", "Tasks that were taken, by kind");
const TASK_SECONDS: Metric = Metric::histogram(
    "sortinghat_worker_task_seconds",
    "Seconds from the start of a task to its end, by kind and outcome",
    &TASK_BUCKETS_S,
);
const DEATHS: Metric = Metric::counter(
    "sortinghat_worker_executor_deaths_total",
    "Executors that died or were killed, by cause; not those that gave way to another tenant's",
);
const STORE_SECONDS: Metric = Metric::histogram(
    "sortinghat_worker_object_store_seconds",
    "Seconds until the object store has answered a request, by operation",
    &STORE_BUCKETS_S,
);
const STORE_ERRORS: Metric = Metric::counter(
    "sortinghat_worker_object_store_errors_total",
    "Requests that the object store failed, by operation and reason",
);
const PLAIN: [Metric; 8] = [
    Metric::gauge("sortinghat_worker_slots", "Tasks that may run at a time"),
    Metric::gauge("sortinghat_worker_tasks_running", "Tasks that run"),
    Metric::gauge("sortinghat_worker_able", "1 while the worker can work; 0 while something keeps it from that"),
    Metric::counter("sortinghat_worker_executor_starts_total", "Executors that became ready"),
    Metric::counter("sortinghat_worker_executor_switches_total", "Executors replaced, as the task is another tenant's"),
    Metric::counter("sortinghat_worker_cache_hits_total", "Objects that were in the cache"),
    Metric::counter("sortinghat_worker_cache_misses_total", "Objects that were fetched into the cache"),
    Metric::counter("sortinghat_worker_exchange_failures_total", "Messages that no coordinator has answered"),
];

/// Why an executor is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// It ended by itself, with a task or without one.
    Died,
    /// Memory ran out.
    OutOfMemory,
    /// It used more than a task may.
    Excess,
    /// Its lease was about to end.
    Lease,
    /// It showed no progress.
    Stall,
    /// It did not stop when it was asked to.
    Deaf,
}

impl Death {
    const ALL: [Self; 6] = [Self::Died, Self::OutOfMemory, Self::Excess, Self::Lease, Self::Stall, Self::Deaf];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::OutOfMemory => "out_of_memory",
            Self::Excess => "excess",
            Self::Lease => "lease",
            Self::Stall => "stall",
            Self::Deaf => "deaf",
        }
    }
}

/// A request to the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Reads an object.
    Get,
    /// Asks for the length of an object.
    Head,
    /// Stores an object.
    Put,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Get, Self::Head, Self::Put];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
        }
    }
}

/// Makes the process keep these metrics from now on, with a zero for each of them.
pub(crate) fn install(slots: usize) {
    let labelled = [CLAIMED, TASK_SECONDS, DEATHS, STORE_SECONDS, STORE_ERRORS];
    let build = [("program", "worker"), ("version", env!("CARGO_PKG_VERSION")), ("protocol", PROTOCOL_TEXT)];
    sortinghat_pages::install(&[&labelled[..], &PLAIN].concat(), &build);
    PLAIN.iter().for_each(|metric| metric.start(&[]));
    for kind in JobKind::ALL.iter().map(|kind| ("kind", kind.as_str())) {
        CLAIMED.start(&[kind]);
        OUTCOMES.iter().for_each(|outcome| TASK_SECONDS.start(&[kind, ("outcome", outcome)]));
    }
    Death::ALL.iter().for_each(|death| DEATHS.start(&[("cause", death.as_str())]));
    for operation in Operation::ALL.map(|operation| ("operation", operation.as_str())) {
        STORE_SECONDS.start(&[operation]);
        REASONS.iter().for_each(|reason| STORE_ERRORS.start(&[operation, ("reason", reason)]));
    }
    gauge!("sortinghat_worker_slots").set(slots as f64);
}

/// A task was taken.
pub(crate) fn claimed(assignment: &v1::Assignment) {
    counter!(CLAIMED.name(), "kind" => kind_of(assignment)).increment(1);
}

/// A task that runs. It is counted as running until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    kind: &'static str,
    begun: tokio::time::Instant,
}

impl Running {
    /// A task that begins now.
    pub(crate) fn begin(assignment: &v1::Assignment) -> Self {
        gauge!("sortinghat_worker_tasks_running").increment(1.0);
        Self { kind: kind_of(assignment), begun: tokio::time::Instant::now() }
    }

    /// The task has ended in this way.
    pub(crate) fn end(self, outcome: &Outcome) {
        let seconds = self.begun.elapsed().as_secs_f64();
        histogram!(TASK_SECONDS.name(), "kind" => self.kind, "outcome" => word_of(outcome)).record(seconds);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        gauge!("sortinghat_worker_tasks_running").decrement(1.0);
    }
}

/// An executor is ready.
pub(crate) fn executor_started() {
    counter!("sortinghat_worker_executor_starts_total").increment(1);
}

/// An executor was replaced by one for another tenant.
pub(crate) fn executor_switched() {
    counter!("sortinghat_worker_executor_switches_total").increment(1);
}

/// An executor is no more.
pub(crate) fn executor_died(death: Death) {
    counter!(DEATHS.name(), "cause" => death.as_str()).increment(1);
}

/// An object was looked for in the cache.
pub(crate) fn looked_into_cache(is_hit: bool) {
    match is_hit {
        true => counter!("sortinghat_worker_cache_hits_total").increment(1),
        false => counter!("sortinghat_worker_cache_misses_total").increment(1),
    }
}

/// The object store has answered, or failed to.
pub(crate) fn asked_store(operation: Operation, took: Duration, error: Option<&object_store::Error>) {
    histogram!(STORE_SECONDS.name(), "operation" => operation.as_str()).record(took.as_secs_f64());
    if let Some(error) = error {
        let (operation, reason) = (operation.as_str(), reason_of(error));
        counter!(STORE_ERRORS.name(), "operation" => operation, "reason" => reason).increment(1);
    }
}

/// No coordinator has answered a message.
pub(crate) fn exchange_failed() {
    counter!("sortinghat_worker_exchange_failures_total").increment(1);
}

/// Whether the worker can work now.
pub(crate) fn is_able(is_able: bool) {
    gauge!("sortinghat_worker_able").set(f64::from(u8::from(is_able)));
}

fn kind_of(assignment: &v1::Assignment) -> &'static str {
    assignment.spec.as_ref().and_then(v1::JobSpec::job_kind).map_or("unknown", JobKind::as_str)
}

const OUTCOMES: [&str; 6] = ["succeeded", "failed", "crashed", "returned", "cancelled", "divided"];

const fn word_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded(_) => OUTCOMES[0],
        Outcome::Failed(_) => OUTCOMES[1],
        Outcome::Crashed(_) => OUTCOMES[2],
        Outcome::Returned(_) => OUTCOMES[3],
        Outcome::Cancelled(_) => OUTCOMES[4],
        Outcome::Divided(_) => OUTCOMES[5],
    }
}

const REASONS: [&str; 7] = ["missing", "denied", "no_bucket", "no_credentials", "wrong_region", "full", "unavailable"];

fn reason_of(error: &object_store::Error) -> &'static str {
    match Trouble::of(error) {
        _ if is_missing(error) => REASONS[0],
        Trouble::Denied => REASONS[1],
        Trouble::NoBucket => REASONS[2],
        Trouble::NoCredentials => REASONS[3],
        Trouble::WrongRegion => REASONS[4],
        Trouble::Full => REASONS[5],
        Trouble::Unavailable => REASONS[6],
    }
}
