use serde_json::{Value, json};
use sortinghat_proto::v1::{self, explain_job_response::Reason};

use super::{attempt, failure};
use crate::show::job::state_word;

/// Why a job is in its state: "reason" names the field that holds the details.
pub(crate) fn explanation(job: &str, explained: &v1::ExplainJobResponse) -> Value {
    let (reason, details) = match &explained.reason {
        Some(Reason::Ended(ended)) => (
            "ended",
            json!({ "finished_unix_ms": ended.finished_unix_ms, "failure": ended.failure.as_ref().map(failure) }),
        ),
        Some(Reason::Runs(runs)) => {
            ("runs", json!({ "attempt": runs.attempt.as_ref().map(attempt), "gives_way": runs.gives_way }))
        }
        Some(Reason::Parents(waits)) => {
            let parents = waits.parents.iter();
            let parents = parents.map(|parent| json!({ "job_id": parent.job_id, "state": state_word(parent.state()) }));
            ("parents", json!({ "parents": parents.collect::<Vec<_>>() }))
        }
        Some(Reason::Backoff(backoff)) => {
            let last = backoff.last_attempt.as_ref().map(attempt);
            ("backoff", json!({ "until_unix_ms": backoff.until_unix_ms, "last_attempt": last }))
        }
        Some(Reason::NoWorker(v1::WaitsForAnyWorker {})) => ("no_worker", json!({})),
        Some(Reason::NoCapableWorker(waits)) => {
            ("no_capable_worker", json!({ "workers": waits.workers.iter().map(shortfalls).collect::<Vec<_>>() }))
        }
        Some(Reason::Turn(turn)) => (
            "turn",
            json!({
                "place": turn.place, "place_is_a_bound": turn.place_is_a_bound, "tenants": turn.tenants,
                "slots": turn.slots, "estimated_wait_ms": turn.estimated_wait_ms,
            }),
        ),
        Some(Reason::NotBefore(waits)) => ("not_before", json!({ "not_before_unix_ms": waits.not_before_unix_ms })),
        Some(Reason::Paused(paused)) => ("paused", json!({ "since_unix_ms": paused.since_unix_ms })),
        None => ("unknown", Value::Null),
    };
    json!({
        "job_id": job, "state": state_word(explained.state()), "sentence": explained.sentence,
        "reason": reason, reason: details,
    })
}

fn shortfalls(worker: &v1::WorkerShortfalls) -> Value {
    let short = worker.shortfalls.iter();
    let short = short.map(|s| json!({ "requirement": s.requirement, "required": s.required, "has": s.has }));
    json!({ "worker_id": worker.worker_id, "host": worker.host, "shortfalls": short.collect::<Vec<_>>() })
}
