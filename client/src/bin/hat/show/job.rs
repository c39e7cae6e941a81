//! Jobs in lines.

use std::time::Duration;

use sortinghat_client::{is_final, short_id, short_id_characters};
use sortinghat_proto::{
    JobKind,
    v1::{self, Attempt, AttemptOutcome, CancelJobsResponse, Job, JobEvent, JobState, job_event::Event},
    words::job_state,
};

use super::{
    json,
    numbers::{ago, counted, duration, time},
    paper::{Paper, Tint},
    progress,
    table::{self, Cell, Fit},
};

/// A table with a row for each job, and for each job whose record the coordinator cannot read. A row names its job by the end of the id,
/// which tells the jobs of the table apart; the beginnings of ids say when a job was submitted and are nearly the same.
pub(crate) fn table(jobs: &[Job], unreadable: &[String], now_unix_ms: i64, paper: Paper) -> Vec<String> {
    let characters =
        short_id_characters(jobs.iter().map(|job| job.id.as_str()).chain(unreadable.iter().map(String::as_str)));
    let short = |id: &str| short_id(id, characters).to_owned();
    let rows = jobs.iter().map(|job| row(short(&job.id), job, now_unix_ms));
    let rows: Vec<_> = rows.chain(unreadable.iter().map(|id| unreadable_row(short(id)))).collect();
    let header = [
        ("job", Fit::Whole),
        ("kind", Fit::Whole),
        ("state", Fit::Whole),
        ("on", Fit::Middle),
        ("submitted", Fit::Whole),
        ("took", Fit::Whole),
        ("result", Fit::Prose),
    ];
    table::fitted(header, &rows, paper)
}

/// The kind of a job; `None` if this version does not know it.
pub(crate) fn kind(job: &Job) -> Option<JobKind> {
    job.spec.as_ref()?.job_kind()
}

/// The kind of a job as a word.
pub(crate) fn kind_word(job: &Job) -> &'static str {
    kind(job).map_or("unknown", JobKind::as_str)
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

fn row(id: String, job: &Job, now_unix_ms: i64) -> [Cell; 7] {
    [
        id.into(),
        kind_word(job).into(),
        state(job),
        subject(job).into(),
        ago(job.created_unix_ms, now_unix_ms).into(),
        took(job).into(),
        result(job).into(),
    ]
}

fn unreadable_row(id: String) -> [Cell; 7] {
    let mut row: [Cell; 7] = Default::default();
    row[0] = id.into();
    row[2] = Cell::tinted("unreadable", Tint::Bad);
    row
}

fn state(job: &Job) -> Cell {
    let state = job.state();
    if job.cancel_requested && !is_final(state) {
        return Cell::tinted("stopping", Tint::Waiting);
    }
    let tint = match state {
        JobState::Succeeded => Tint::Good,
        JobState::Failed => Tint::Bad,
        JobState::Running => Tint::Busy,
        JobState::Blocked | JobState::Queued => Tint::Waiting,
        JobState::Cancelled | JobState::Unspecified => Tint::None,
    };
    Cell::tinted(job_state(state), tint)
}

fn subject(job: &Job) -> &str {
    job.spec.as_ref().map_or("", v1::JobSpec::subject)
}

/// "finetune of stamps@1".
pub(crate) fn title(job: &Job) -> String {
    format!("{} of {}", kind_word(job), subject(job))
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
    let progress = job.progress.as_ref().map(progress::words);
    let parts = job.tasks.map(|tasks| format!("{}/{} parts", tasks.succeeded, tasks.total));
    let trouble = job.last_failed_attempt.as_ref().map(trouble);
    progress.into_iter().chain(parts).chain(trouble).collect::<Vec<_>>().join(", ")
}

/// "attempt 2 on attic failed: the object store does not answer".
fn trouble(attempt: &Attempt) -> String {
    let failure = attempt.failure.as_ref().map(|failure| failure.message.as_str()).unwrap_or_default();
    let why = failure.lines().next().map(|line| format!(": {line}")).unwrap_or_default();
    let (task, outcome) = (task_word(attempt), outcome_word(attempt.outcome()));
    format!("{task}attempt {} on {} {outcome}{why}", attempt.number, attempt.host)
}

/// Everything about a job.
pub(crate) fn lines(job: &Job, paper: Paper) -> Vec<String> {
    let result = result(job);
    let mut fields: Vec<(&str, Cell)> = vec![
        ("job", job.id.as_str().into()),
        ("kind", title(job).into()),
        ("state", state(job)),
        ("result", if result.is_empty() { "-".into() } else { result.into() }),
        ("submitted", time(job.created_unix_ms).into()),
    ];
    if !job.retry_of.is_empty() {
        fields.push(("retry of", job.retry_of.as_str().into()));
    }
    for (label, at) in [("not before", job.not_before_unix_ms), ("deadline", job.deadline_unix_ms)] {
        if at != 0 {
            fields.push((label, time(at).into()));
        }
    }
    if !job.labels.is_empty() {
        let labels: Vec<String> = job.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        fields.push(("labels", labels.join(" ").into()));
    }
    if job.keep {
        fields.push(("kept", "until it is removed".into()));
    } else if job.keep_for_ms > 0 {
        let kept = humantime::format_duration(Duration::from_millis(job.keep_for_ms));
        fields.push(("kept", format!("for {kept} after its end").into()));
    }
    fields.push(("took", took(job).into()));
    fields.extend(job.attempts.iter().map(|attempt| ("attempt", attempt_line(attempt).into())));
    if let serde_json::Value::Object(spec) = &json::job(job)["spec"] {
        let text = spec.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        fields.push(("spec", text.into()));
    }
    table::fields(&fields, paper)
}

fn attempt_line(attempt: &Attempt) -> String {
    let outcome = outcome_word(attempt.outcome());
    let why = attempt.failure.as_ref().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
    let task = task_word(attempt);
    let (number, host, started) = (attempt.number, &attempt.host, time(attempt.started_unix_ms));
    format!("{task}{number} {outcome} on {host}, started {started}{why}")
}

/// An event as a line of a job's history; `None` for an event that this version does not know.
pub(crate) fn event_line(event: &JobEvent) -> Option<String> {
    let text = match event.event.as_ref()? {
        Event::Log(line) => line.text.clone(),
        Event::Notice(notice) => notice.message.clone(),
        Event::AttemptStarted(attempt) => {
            format!("{}attempt {} on {}", task_word(attempt), attempt.number, attempt.host)
        }
        Event::AttemptEnded(attempt) => format!("attempt {}", attempt_line(attempt)),
        Event::StateChanged(change) => format!("state: {}", job_state(change.state())),
        Event::EpochFinished(metrics) => table::epoch_row(metrics),
    };
    Some(format!("{} {text}", time(event.time_unix_ms)))
}

/// What became of a job that was asked to be cancelled. `watch` is the command that follows it.
pub(crate) fn cancelled_line(job: &Job, watch: &str) -> String {
    match job.state() {
        JobState::Cancelled => format!("job {} is cancelled", job.id),
        JobState::Succeeded | JobState::Failed => {
            format!("job {} had already ended: it has {}", job.id, job_state(job.state()))
        }
        JobState::Unspecified | JobState::Blocked | JobState::Queued | JobState::Running => {
            format!("job {} stops as soon as its worker hears of it; `{watch}` waits until then", job.id)
        }
    }
}

/// "1,234 jobs", "more than 10 jobs".
pub(crate) fn number_of(found: &CancelJobsResponse) -> String {
    let more = if found.more { "more than " } else { "" };
    format!("{more}{}", counted(found.matching, "job", "jobs"))
}
