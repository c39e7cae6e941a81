//! Jobs in lines.

use sortinghat_client::is_final;
use sortinghat_proto::{
    JobKind,
    v1::{self, Attempt, AttemptOutcome, CancelJobsResponse, Job, JobEvent, JobState, job_event::Event},
};

use super::{
    json,
    numbers::{ago, counted, duration, time},
    table,
};

/// The header of the table of jobs.
pub(crate) const HEADER: [&str; 7] = ["job", "kind", "state", "on", "submitted", "took", "result"];

/// The kind of a job; `None` if this version does not know it.
pub(crate) fn kind(job: &Job) -> Option<JobKind> {
    job.spec.as_ref()?.job_kind()
}

/// The kind of a job as a word.
pub(crate) fn kind_word(job: &Job) -> &'static str {
    kind(job).map_or("unknown", JobKind::as_str)
}

/// A job's state as a word.
pub(crate) fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Blocked => "blocked",
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// How an attempt ended, as a word.
pub(crate) fn outcome_word(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Unspecified => "running",
        AttemptOutcome::Succeeded => "succeeded",
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::Crashed => "crashed",
        AttemptOutcome::Lost => "lost",
        AttemptOutcome::Returned => "returned",
        AttemptOutcome::Cancelled => "cancelled",
    }
}

/// The number of the task that an attempt belongs to, if its job is divided; written in front of the attempt's own number.
pub(crate) fn task_word(attempt: &Attempt) -> String {
    match attempt.task {
        0 => String::new(),
        task => format!("task {task}, "),
    }
}

/// A job as a row of the table of jobs.
pub(crate) fn row(job: &Job, now_unix_ms: i64) -> [String; 7] {
    let state = match (job.cancel_requested, is_final(job.state())) {
        (true, false) => "stopping",
        _ => state_word(job.state()),
    };
    [
        job.id.clone(),
        kind_word(job).to_owned(),
        state.to_owned(),
        job.spec.as_ref().map_or("", v1::JobSpec::subject).to_owned(),
        ago(job.created_unix_ms, now_unix_ms),
        took(job),
        result(job),
    ]
}

/// The row of a job whose record the coordinator cannot read.
pub(crate) fn unreadable_row(id: &str) -> [String; 7] {
    [id, "", "unreadable", "", "", "", ""].map(str::to_owned)
}

fn took(job: &Job) -> String {
    match (job.started_unix_ms, job.finished_unix_ms) {
        (0, _) | (_, 0) => "-".to_owned(),
        (started, finished) => duration(u64::try_from(finished - started).unwrap_or_default()),
    }
}

/// What the job made, why it failed, or how far it is, in one line.
fn result(job: &Job) -> String {
    if let Some(failure) = &job.failure {
        return failure.message.lines().next().unwrap_or_default().to_owned();
    }
    if let Some(output) = &job.output {
        let name = if output.name.is_empty() { String::new() } else { format!("{}: ", output.name) };
        return name + &output.summary;
    }
    let progress = match &job.progress {
        Some(progress) if progress.total > 0 => {
            Some(format!("{} {} of {} {}", progress.phase, progress.done, progress.total, progress.unit))
        }
        Some(progress) => Some(progress.phase.clone()),
        None => None,
    };
    let parts = job.tasks.map(|tasks| format!("{}/{} parts", tasks.succeeded, tasks.total));
    progress.into_iter().chain(parts).collect::<Vec<_>>().join(", ")
}

/// Everything about a job.
pub(crate) fn lines(job: &Job, now_unix_ms: i64) -> Vec<String> {
    let [id, kind, state, subject, _, took, result] = row(job, now_unix_ms);
    let mut lines = vec![
        format!("job        {id}"),
        format!("kind       {kind} of {subject}"),
        format!("state      {state}"),
        format!("result     {}", if result.is_empty() { "-" } else { &result }),
        format!("submitted  {}", time(job.created_unix_ms)),
    ];
    if !job.retry_of.is_empty() {
        lines.push(format!("retry of   {}", job.retry_of));
    }
    for (label, at) in [("not before", job.not_before_unix_ms), ("deadline", job.deadline_unix_ms)] {
        if at != 0 {
            lines.push(format!("{label:<10} {}", time(at)));
        }
    }
    lines.push(format!("took       {took}"));
    lines.extend(job.attempts.iter().map(attempt_line));
    if let serde_json::Value::Object(spec) = &json::job(job)["spec"] {
        let text = spec.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        lines.push(format!("spec       {text}"));
    }
    lines
}

fn attempt_line(attempt: &Attempt) -> String {
    let outcome = outcome_word(attempt.outcome());
    let why = attempt.failure.as_ref().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
    let task = task_word(attempt);
    let (number, host, started) = (attempt.number, &attempt.host, time(attempt.started_unix_ms));
    format!("{task}attempt {number}  {outcome} on {host}, started {started}{why}")
}

/// An event as a line of a job's history; `None` for an event that this version does not know.
pub(crate) fn event_line(event: &JobEvent) -> Option<String> {
    let text = match event.event.as_ref()? {
        Event::Log(line) => line.text.clone(),
        Event::Notice(notice) => notice.message.clone(),
        Event::AttemptStarted(attempt) => {
            format!("{}attempt {} on {}", task_word(attempt), attempt.number, attempt.host)
        }
        Event::AttemptEnded(attempt) => attempt_line(attempt),
        Event::StateChanged(change) => format!("state: {}", state_word(change.state())),
        Event::EpochFinished(metrics) => table::epoch_row(metrics),
    };
    Some(format!("{} {text}", time(event.time_unix_ms)))
}

/// What became of a job that was asked to be cancelled.
pub(crate) fn cancelled_line(job: &Job) -> String {
    match job.state() {
        JobState::Cancelled => format!("job {} is cancelled", job.id),
        JobState::Succeeded | JobState::Failed => {
            format!("job {} had already ended: it has {}", job.id, state_word(job.state()))
        }
        JobState::Unspecified | JobState::Blocked | JobState::Queued | JobState::Running => {
            format!("job {} stops as soon as its worker hears of it; `hat jobs watch {0}` waits until then", job.id)
        }
    }
}

/// "1,234 jobs", "more than 10 jobs".
pub(crate) fn number_of(found: &CancelJobsResponse) -> String {
    let more = if found.more { "more than " } else { "" };
    format!("{more}{}", counted(found.matching, "job", "jobs"))
}
