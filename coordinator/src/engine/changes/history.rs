//! What the rules' effects mean for a job's history, and what the history means for the attempts that a job shows.

use sortinghat_proto::{
    TaskId,
    limits::MAX_SHOWN_ATTEMPTS,
    time::UnixMs,
    v1::{self, job_event::Event},
};

use crate::{
    engine::records::{JobRecord, StoredAttempt},
    queue::{Effect, Lease},
};

/// The event that an effect on a task is. `host` is that of the worker that claimed it.
pub(crate) fn event(effect: Effect, task: &TaskId, host: &str, now: UnixMs) -> Event {
    match effect {
        Effect::AttemptStarted(lease) => Event::AttemptStarted(started(&lease, task, host)),
        Effect::AttemptEnded { lease, outcome, failure } => Event::AttemptEnded(v1::Attempt {
            finished_unix_ms: now.to_wire(),
            outcome: outcome.into(),
            failure,
            ..started(&lease, task, host)
        }),
    }
}

fn started(lease: &Lease, task: &TaskId, host: &str) -> v1::Attempt {
    v1::Attempt {
        number: lease.attempt,
        worker_id: lease.token.worker.to_string(),
        host: host.to_owned(),
        epoch: lease.token.epoch,
        started_unix_ms: lease.started.to_wire(),
        task: task.index(),
        ..v1::Attempt::default()
    }
}

/// Enters an event in the attempts that the job shows: the newest ones.
pub(crate) fn enter(job: &mut JobRecord, event: &Event) {
    match event {
        Event::AttemptStarted(attempt) => {
            job.progress.started.get_or_insert(UnixMs(attempt.started_unix_ms.unsigned_abs()));
            job.progress.attempts.push(StoredAttempt(attempt.clone()));
            let surplus = job.progress.attempts.len().saturating_sub(MAX_SHOWN_ATTEMPTS);
            job.progress.attempts.drain(..surplus);
        }
        Event::AttemptEnded(attempt) => {
            let is_it = |shown: &&mut StoredAttempt| (shown.0.task, shown.0.epoch) == (attempt.task, attempt.epoch);
            if let Some(shown) = job.progress.attempts.iter_mut().rfind(is_it) {
                shown.0 = attempt.clone();
            }
        }
        Event::StateChanged(_) | Event::EpochFinished(_) | Event::Notice(_) | Event::Log(_) => {}
    }
}
