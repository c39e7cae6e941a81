mod cancel;

use std::path::Path;

use sortinghat_client::{JobFilter, Update, idempotency_key, is_final};
use sortinghat_proto::{
    limits,
    v1::{Attempt, Job, JobState, job_event::Event, job_spec::Kind},
};

use super::result;
use crate::{
    args::{Jobs, JobsCommand, JobsList, StateArg},
    exit::Exit,
    failure::Failure,
    follow,
    session::{Session, print_line},
    show::{
        json,
        numbers::{ago, duration, time},
        table,
    },
};

pub(super) async fn run(session: &Session, args: Jobs) -> Result<Exit, Failure> {
    match args.command.unwrap_or(JobsCommand::List(args.list)) {
        JobsCommand::List(args) => list(session, args).await,
        JobsCommand::Show { id } => show(session, &id).await,
        JobsCommand::Why { id } => why(session, &id).await,
        JobsCommand::Watch { id, out } => watch(session, &id, out.as_deref()).await,
        JobsCommand::Logs { id, follow } => logs(session, &id, follow).await,
        JobsCommand::Cancel(args) if args.all => cancel::matching(session, args).await,
        JobsCommand::Cancel(args) => cancel::named(session, &args.ids).await,
        JobsCommand::Retry { id } => retry(session, &id).await,
    }
}

async fn list(session: &Session, args: JobsList) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let filter = JobFilter { states: args.state.into_iter().map(state).collect(), kind: args.kind };
    let (mut jobs, mut unreadable, mut token) = (Vec::new(), Vec::new(), String::new());
    let limit = args.limit as usize;
    while jobs.len() < limit {
        let wanted = u32::try_from(limit - jobs.len()).unwrap_or(u32::MAX).min(limits::MAX_PAGE_SIZE);
        let page = client.list_jobs(&filter, wanted, &token).await?;
        jobs.extend(page.jobs);
        unreadable.extend(page.unreadable_job_ids);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    if session.json() {
        jobs.iter().for_each(|job| session.print_json(&json::job(job)));
        unreadable.iter().for_each(|id| session.print_json(&json::unreadable_job(id)));
        return Ok(Exit::Ok);
    }
    if jobs.is_empty() && unreadable.is_empty() {
        session.hint("no jobs: `hat ingest NAME FOLDER` submits one");
        return Ok(Exit::Ok);
    }
    table::columns(
        ["job", "kind", "state", "on", "submitted", "took", "result"],
        &jobs.iter().map(row).chain(unreadable.iter().map(|id| unreadable_row(id))).collect::<Vec<_>>(),
    )
    .iter()
    .for_each(|line| print_line(line));
    if !token.is_empty() {
        session.hint(&format!("there are more: hat jobs -n {}", limit * 2));
    }
    Ok(Exit::Ok)
}

pub(super) fn state(state: StateArg) -> JobState {
    match state {
        StateArg::Blocked => JobState::Blocked,
        StateArg::Queued => JobState::Queued,
        StateArg::Running => JobState::Running,
        StateArg::Succeeded => JobState::Succeeded,
        StateArg::Failed => JobState::Failed,
        StateArg::Cancelled => JobState::Cancelled,
    }
}

fn row(job: &Job) -> [String; 7] {
    let state = match (job.cancel_requested, is_final(job.state())) {
        (true, false) => "stopping",
        _ => json::state_word(job.state()),
    };
    [
        job.id.clone(),
        json::kind_word(job).to_owned(),
        state.to_owned(),
        subject(job).to_owned(),
        ago(job.created_unix_ms),
        took(job),
        outcome(job),
    ]
}

fn unreadable_row(id: &str) -> [String; 7] {
    [id, "", "unreadable", "", "", "", ""].map(str::to_owned)
}

/// What the job is about: the name that its user typed.
fn subject(job: &Job) -> &str {
    match job.spec.as_ref().and_then(|spec| spec.kind.as_ref()) {
        Some(Kind::Ingest(spec)) => &spec.dataset_name,
        Some(Kind::Finetune(spec)) => &spec.dataset,
        Some(Kind::Evaluate(spec)) => &spec.model,
        Some(Kind::Classify(spec)) => &spec.model,
        None => "",
    }
}

fn took(job: &Job) -> String {
    match (job.started_unix_ms, job.finished_unix_ms) {
        (0, _) | (_, 0) => "-".to_owned(),
        (started, finished) => duration(u64::try_from(finished - started).unwrap_or_default()),
    }
}

/// One line: what it made, why it failed, how far it is.
fn outcome(job: &Job) -> String {
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

async fn show(session: &Session, id: &str) -> Result<Exit, Failure> {
    let job = session.connect().await?.find_job(id).await?;
    if session.json() {
        session.print_json(&json::job(&job));
        return Ok(Exit::Ok);
    }
    let [id, kind, state, subject, _, took, outcome] = row(&job);
    print_line(&format!("job        {id}"));
    print_line(&format!("kind       {kind} of {subject}"));
    print_line(&format!("state      {state}"));
    print_line(&format!("result     {}", if outcome.is_empty() { "-" } else { &outcome }));
    print_line(&format!("submitted  {}", time(job.created_unix_ms)));
    if !job.retry_of.is_empty() {
        print_line(&format!("retry of   {}", job.retry_of));
    }
    for (label, at) in [("not before", job.not_before_unix_ms), ("deadline", job.deadline_unix_ms)] {
        if at != 0 {
            print_line(&format!("{label:<10} {}", time(at)));
        }
    }
    print_line(&format!("took       {took}"));
    job.attempts.iter().for_each(|attempt| print_line(&attempt_line(attempt)));
    if let serde_json::Value::Object(spec) = &json::job(&job)["spec"] {
        let text = spec.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        print_line(&format!("spec       {text}"));
    }
    Ok(Exit::Ok)
}

fn attempt_line(attempt: &Attempt) -> String {
    let outcome = match attempt.outcome() {
        sortinghat_proto::v1::AttemptOutcome::Unspecified => "running".to_owned(),
        other => other.as_str_name().trim_start_matches("ATTEMPT_OUTCOME_").to_lowercase(),
    };
    let why = attempt.failure.as_ref().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
    let task = follow::task_word(attempt);
    let (number, host, started) = (attempt.number, &attempt.host, time(attempt.started_unix_ms));
    format!("{task}attempt {number}  {outcome} on {host}, started {started}{why}")
}

async fn why(session: &Session, id: &str) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let job = client.find_job(id).await?;
    let explained = client.explain_job(&job.id).await?;
    match session.json() {
        true => session.print_json(&json::explanation(&job.id, &explained)),
        false => print_line(&format!("job {}: {}", job.id, explained.sentence)),
    }
    Ok(Exit::Ok)
}

async fn watch(session: &Session, id: &str, out: Option<&Path>) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let job = client.find_job(id).await?;
    match (json::kind_word(&job), out) {
        ("classify", Some(path)) => drop(result::format_of(path)?),
        ("evaluate", _) | (_, None) => {}
        (kind, Some(_)) => return Err(Failure::usage(format!("--out: job {id}, a job of kind {kind}, makes no file"))),
    }
    let followed = follow::follow(session, &client, job).await?;
    result::finish(session, &client, followed, out).await
}

/// The lines of a job so far, and if it is followed, those that come until it ends.
async fn logs(session: &Session, id: &str, follow: bool) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let job = client.find_job(id).await?;
    let mut watch = client.watch(&job.id, 0);
    while let Some(update) = watch.next().await? {
        let event = match update {
            Update::Event(event) => event,
            Update::UpToDate if !follow => break,
            Update::UpToDate | Update::Progress(_) | Update::Interrupted { .. } => continue,
        };
        let text = match &event.event {
            Some(Event::Log(line)) => line.text.clone(),
            Some(Event::Notice(notice)) => notice.message.clone(),
            Some(Event::AttemptStarted(attempt)) => {
                format!("{}attempt {} on {}", follow::task_word(attempt), attempt.number, attempt.host)
            }
            Some(Event::AttemptEnded(attempt)) => attempt_line(attempt),
            Some(Event::StateChanged(change)) => format!("job is {}", json::state_word(change.state())),
            Some(Event::EpochFinished(metrics)) => table::epoch_row(metrics),
            None => continue,
        };
        match session.json() {
            true => session.print_json(&json::event(&event)),
            false => print_line(&format!("{} {text}", time(event.time_unix_ms))),
        }
    }
    Ok(Exit::Ok)
}

async fn retry(session: &Session, id: &str) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let old = client.find_job(id).await?;
    let job = client.retry_job(&old.id, &idempotency_key()).await?;
    let followed = follow::submitted(session, &client, job).await?;
    result::finish(session, &client, followed, None).await
}
