use std::io::{IsTerminal as _, Write as _, stderr, stdin};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use sortinghat_client::JobFilter;
use sortinghat_proto::v1::{CancelJobsResponse, Job, JobState};

use super::state;
use crate::{
    args::JobsCancel,
    exit::Exit,
    failure::Failure,
    session::{Session, print_line},
    show::{json as to_json, numbers::counted},
};

/// Calls that are made side by side.
const CALLS_AT_A_TIME: usize = 16;

/// Cancels jobs by their ids.
pub(super) async fn named(session: &Session, ids: &[String]) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    // All are looked up before the first is cancelled: a mistyped id cancels nothing.
    let found: Vec<_> = ids.iter().map(|id| client.find_job(id)).collect();
    let jobs: Vec<Job> = stream::iter(found).buffered(CALLS_AT_A_TIME).try_collect().await?;
    let cancelled: Vec<_> = jobs.iter().map(|job| client.cancel_job(&job.id)).collect();
    let mut cancelled = stream::iter(cancelled).buffered(CALLS_AT_A_TIME);
    while let Some(job) = cancelled.try_next().await? {
        match session.json() {
            true => session.print_json(&to_json::job(&job)),
            false => print_line(&told(&job)),
        }
    }
    Ok(Exit::Ok)
}

fn told(job: &Job) -> String {
    match job.state() {
        JobState::Cancelled => format!("job {} is cancelled", job.id),
        JobState::Succeeded | JobState::Failed => {
            format!("job {} had ended already: {}", job.id, to_json::state_word(job.state()))
        }
        JobState::Unspecified | JobState::Blocked | JobState::Queued | JobState::Running => {
            format!("job {} will stop as soon as its worker hears of it; hat jobs watch {0} waits for that", job.id)
        }
    }
}

/// Cancels every job that matches, after asking.
pub(super) async fn matching(session: &Session, args: JobsCancel) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let filter = JobFilter { states: args.state.into_iter().map(state).collect(), kind: args.kind };
    let before = args.before.map(|past| past.0);
    if !args.yes {
        let found = client.count_cancellable_jobs(&filter, before).await?;
        if found.matching == 0 && !found.more {
            session.hint("no job matches");
            return Ok(Exit::Ok);
        }
        confirm(&found)?;
    }
    let cancelled = client.cancel_jobs(&filter, before).await?;
    match session.json() {
        true => session.print_json(&json!({ "matching": cancelled.matching, "more": cancelled.more })),
        false => print_line(&format!("{} will be cancelled; `hat queue` shows how far that is", jobs(&cancelled))),
    }
    Ok(Exit::Ok)
}

/// "1,234 jobs", "more than 10 jobs".
fn jobs(found: &CancelJobsResponse) -> String {
    let more = if found.more { "more than " } else { "" };
    format!("{more}{}", counted(found.matching, "job", "jobs"))
}

/// Asks on the terminal. Without one nobody could answer, so that it has to be said in advance.
fn confirm(found: &CancelJobsResponse) -> Result<(), Failure> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::usage(format!("{} would be cancelled: say --yes if that is meant", jobs(found))));
    }
    eprint!("cancel {}? [y/N] ", jobs(found));
    // A terminal that cannot be written to cannot be answered on either.
    let _ = stderr().flush();
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(|error| Failure::local(format!("the answer cannot be read: {error}")))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was cancelled")),
    }
}
