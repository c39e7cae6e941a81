mod cancel;
mod predictions;
mod remove;

use std::path::PathBuf;

use sortinghat_client::{Client, ClientError, Update, idempotency_key};
use sortinghat_proto::{
    JobKind, Refusal, limits,
    v1::{ErrorCode, Job},
};

use crate::{
    args::{Jobs, JobsCommand, JobsList},
    exit::Exit,
    failure::Failure,
    follow,
    output::{Aim, Output},
    session::Session,
    show::{
        job, json,
        line::{print_json, print_table, print_whole},
        numbers::now,
    },
    tell,
    unsubmitted::Unsubmitted,
};

pub(super) async fn run(session: &Session, args: Jobs) -> Result<Exit, Failure> {
    match args.command.unwrap_or(JobsCommand::List(args.list)) {
        JobsCommand::List(args) => list(session, &args).await,
        JobsCommand::Show { id } => show(session, id.as_deref()).await,
        JobsCommand::Why { id } => why(session, id.as_deref()).await,
        JobsCommand::Watch { id, out, class_columns, force } => {
            let save = |kind, path| Output::of_job(kind, "--out", path, force)?.with_class_columns(class_columns);
            watch(session, id.as_deref(), out, save).await
        }
        JobsCommand::Predictions(args) => predictions::run(session, &args).await,
        JobsCommand::Logs { id, follow } => logs(session, id.as_deref(), follow).await,
        JobsCommand::Cancel(args) if args.all => cancel::matching(session, &args).await,
        JobsCommand::Cancel(args) => cancel::named(session, &args.ids).await,
        JobsCommand::Rm { ids, erase } => remove::run(session, &ids, erase).await,
        JobsCommand::Retry { id } => retry(session, &id).await,
    }
}

async fn list(session: &Session, args: &JobsList) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let filter = args.filter()?;
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
        jobs.iter().map(json::job).for_each(|job| print_json(&job));
        unreadable.iter().map(|id| json::unreadable_job(id)).for_each(|job| print_json(&job));
        return Ok(Exit::Ok);
    }
    if jobs.is_empty() && unreadable.is_empty() {
        let submit = session.command("ingest NAME FOLDER");
        session.hint(&format!("there are no such jobs: `{submit}` submits one"));
        return Ok(Exit::Ok);
    }
    print_table(&job::table(&jobs, &unreadable, now(), session.paper()));
    if !token.is_empty() {
        session.hint(&format!("there are more jobs: repeat the command with `-n {}`", limit * 2));
    }
    Ok(Exit::Ok)
}

/// The job with this id, or the newest job if none is named.
async fn named_or_newest(session: &Session, client: &Client, id: Option<&str>) -> Result<Job, Failure> {
    let Some(id) = id else {
        return client.newest_job().await.map_err(|error| match error {
            ClientError::Refused(refusal) if refusal.code == ErrorCode::NotFound => {
                let submit = session.command("ingest NAME FOLDER");
                Refusal::not_found(format!("{}: `{submit}` submits one", refusal.message)).into()
            }
            error => error.into(),
        });
    };
    Ok(client.find_job(id).await?)
}

/// Says which job is the newest, if no id was named.
fn say_newest(session: &Session, id: Option<&str>, job: &Job) {
    if id.is_none() {
        session.hint(&format!("the newest job is {}: {}", job.id, job::title(job)));
    }
}

async fn show(session: &Session, id: Option<&str>) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let found = named_or_newest(session, &client, id).await?;
    say_newest(session, id, &found);
    match session.json() {
        true => print_json(&json::job(&found)),
        false => print_table(&job::lines(&found, session.paper())),
    }
    Ok(Exit::Ok)
}

async fn why(session: &Session, id: Option<&str>) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let found = named_or_newest(session, &client, id).await?;
    say_newest(session, id, &found);
    let id = found.id;
    let explained = client.explain_job(&id).await?;
    session.answer(|| json::explanation(&id, &explained), || vec![format!("job {id}: {}", session.why(&explained))]);
    Ok(Exit::Ok)
}

async fn watch(
    session: &Session,
    id: Option<&str>,
    out: Option<PathBuf>,
    save: impl FnOnce(JobKind, PathBuf) -> Result<Output, Failure>,
) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    // The job is named when it is followed.
    let found = named_or_newest(session, &client, id).await?;
    let unknown = || Failure::usage("--out: this version of hat does not know the kind of this job");
    let out = out.map(|path| save(job::kind(&found).ok_or_else(unknown)?, path)).transpose()?;
    let followed = follow::follow(session, &client, found, out.as_ref().into()).await?;
    tell::finish(session, &client, followed, out.as_ref()).await
}

/// Prints the lines of a job so far and, with `follow`, those that come until it ends.
async fn logs(session: &Session, id: Option<&str>, follow: bool) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let found = named_or_newest(session, &client, id).await?;
    say_newest(session, id, &found);
    let mut watch = client.watch(&found.id, 0);
    while let Some(update) = watch.next().await? {
        match update {
            Update::Event(event) => {
                let Some(line) = job::event_line(&event) else { continue };
                match session.json() {
                    true => print_json(&json::event(&event)),
                    false => print_whole(&line),
                }
            }
            Update::UpToDate if !follow => break,
            Update::UpToDate | Update::Progress(_) | Update::Interrupted { .. } => {}
        }
    }
    Ok(Exit::Ok)
}

async fn retry(session: &Session, id: &str) -> Result<Exit, Failure> {
    let unsubmitted = Unsubmitted::begin(session);
    let client = session.connect().await?;
    let old = client.find_job(id).await?;
    unsubmitted.submitting().await;
    let new = client.retry_job(&old.id, &idempotency_key()).await?;
    drop(unsubmitted);
    let followed = follow::submitted(session, &client, new, Aim::Tell).await?;
    tell::finish(session, &client, followed, None).await
}
