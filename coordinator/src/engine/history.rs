//! What the rules' effects mean for a job's record and its history.

use sortinghat_proto::{
    limits::MAX_SHOWN_ATTEMPTS,
    time::UnixMs,
    v1::{self, job_event::Event},
};

use super::records::{JobRecord, StoredAttempt};
use crate::queue::{Effect, Lease};

/// Enters an effect into the job's attempts, and returns the event for its history. `host` is the claiming worker's.
pub(super) fn record(job: &mut JobRecord, effect: Effect, host: &str, now: UnixMs) -> Event {
    match effect {
        Effect::AttemptStarted(lease) => {
            let attempt = started(&lease, host);
            job.started.get_or_insert(now);
            job.attempts.push(StoredAttempt(attempt.clone()));
            let surplus = job.attempts.len().saturating_sub(MAX_SHOWN_ATTEMPTS);
            job.attempts.drain(..surplus);
            Event::AttemptStarted(attempt)
        }
        Effect::AttemptEnded { lease, outcome, failure } => {
            let mut attempt = started(&lease, "");
            if let Some(shown) = job.attempts.iter().rfind(|shown| shown.0.epoch == lease.token.epoch) {
                attempt.host.clone_from(&shown.0.host);
            }
            attempt.finished_unix_ms = now.to_wire();
            attempt.outcome = outcome.into();
            attempt.failure = failure;
            if let Some(shown) = job.attempts.iter_mut().rfind(|shown| shown.0.epoch == lease.token.epoch) {
                shown.0 = attempt.clone();
            }
            Event::AttemptEnded(attempt)
        }
    }
}

fn started(lease: &Lease, host: &str) -> v1::Attempt {
    v1::Attempt {
        number: lease.attempt,
        worker_id: lease.token.worker.to_string(),
        host: host.to_owned(),
        epoch: lease.token.epoch,
        started_unix_ms: lease.started.to_wire(),
        ..v1::Attempt::default()
    }
}
