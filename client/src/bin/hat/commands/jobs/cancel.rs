use std::io::{IsTerminal as _, Write as _, stderr, stdin};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use sortinghat_proto::v1::{CancelJobsResponse, Job};

use crate::{
    args::JobsCancel,
    exit::Exit,
    failure::Failure,
    local::server::Server,
    output::Aim,
    session::Session,
    show::{
        job::{cancelled_line, number_of},
        json as to_json,
    },
};

/// Calls that are made at the same time.
pub(super) const CALLS_AT_A_TIME: usize = 16;

/// Cancels jobs by their ids.
pub(super) async fn named(session: &Session, ids: &[String]) -> Result<Exit, Failure> {
    let (client, _) = session.connect_to_change().await?;
    // All jobs are looked up before the first is cancelled, so that a mistyped id cancels nothing.
    let found: Vec<_> = ids.iter().map(|id| client.find_job(id)).collect();
    let jobs: Vec<Job> = stream::iter(found).buffered(CALLS_AT_A_TIME).try_collect().await?;
    let cancelled: Vec<_> = jobs.iter().map(|job| client.cancel_job(&job.id)).collect();
    let mut cancelled = stream::iter(cancelled).buffered(CALLS_AT_A_TIME);
    while let Some(job) = cancelled.try_next().await? {
        let watch = session.way_back(&job.id, Aim::Tell);
        session.answer(|| to_json::job(&job), || vec![cancelled_line(&job, &watch)]);
    }
    Ok(Exit::Ok)
}

/// Cancels every job that matches, after asking.
pub(super) async fn matching(session: &Session, args: &JobsCancel) -> Result<Exit, Failure> {
    let (client, server) = session.connect_to_change().await?;
    let (filter, before) = (args.filter(), args.before.map(|past| past.0));
    if !args.yes {
        let found = client.count_cancellable_jobs(&filter, before).await?;
        if found.matching == 0 && !found.more {
            session.hint("no job matches");
            return Ok(Exit::Ok);
        }
        confirm(&found, &server)?;
    }
    let cancelled = client.cancel_jobs(&filter, before).await?;
    session.answer(
        || json!({ "matching": cancelled.matching, "more": cancelled.more, "server": server.url }),
        || {
            let look = session.command("queue");
            vec![format!("{} will be cancelled; `{look}` shows how many are left", number_of(&cancelled))]
        },
    );
    Ok(Exit::Ok)
}

/// Asks on the terminal. If there is none, nobody could answer, so `--yes` is required.
fn confirm(found: &CancelJobsResponse, server: &Server) -> Result<(), Failure> {
    let jobs = number_of(found);
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::usage(format!("{jobs} would be cancelled on {server}: add --yes if you want that")));
    }
    eprint!("cancel {jobs} on {server}? [y/N] ");
    // If the question cannot be written, reading the answer fails as well.
    let _ = stderr().flush();
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(|error| Failure::local(format!("the answer cannot be read: {error}")))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was cancelled")),
    }
}
