use serde_json::{Value, json};
use sortinghat_proto::{
    json::object,
    v1::{self, explain_job_response::Reason},
    words::job_state,
};

use super::{attempt, failure};

/// Why a job is in its state: "reason" names the field that holds the details.
pub(crate) fn explanation(job: &str, explained: &v1::ExplainJobResponse) -> Value {
    let (reason, details) = match &explained.reason {
        Some(Reason::Ended(ended)) => {
            let mut shown = object(ended);
            shown["failure"] = ended.failure.as_ref().map(failure).into();
            ("ended", shown)
        }
        Some(Reason::Runs(runs)) => {
            let mut shown = object(runs);
            shown["attempt"] = runs.attempt.as_ref().map(attempt).into();
            ("runs", shown)
        }
        Some(Reason::Parents(waits)) => ("parents", object(waits)),
        Some(Reason::Backoff(backoff)) => {
            let mut shown = object(backoff);
            shown["last_attempt"] = backoff.last_attempt.as_ref().map(attempt).into();
            ("backoff", shown)
        }
        Some(Reason::NoWorker(waits)) => ("no_worker", object(waits)),
        Some(Reason::NoCapableWorker(waits)) => ("no_capable_worker", object(waits)),
        Some(Reason::NoAbleWorker(waits)) => ("no_able_worker", object(waits)),
        Some(Reason::Turn(turn)) => ("turn", object(turn)),
        Some(Reason::NotBefore(waits)) => ("not_before", object(waits)),
        Some(Reason::Paused(paused)) => ("paused", object(paused)),
        None => ("unknown", Value::Null),
    };
    json!({
        "job_id": job, "state": job_state(explained.state()), "sentence": explained.sentence,
        "reason": reason, reason: details,
    })
}
