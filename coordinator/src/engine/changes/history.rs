//! The history of a job: which event an effect of the rules is, and how events change the attempts that the job shows.

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

/// Turns an effect on a task into an event. `host` is the host of the worker that claimed the task.
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

/// Updates the attempts that the job shows, which are the newest ones, with an event.
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
