//! What a job has made, told to a person or to a program.

mod audit;
mod classify;
pub(crate) mod dataset;
mod document;
mod evaluate;
mod finetune;
pub(crate) mod gather;
mod ingest;

use sortinghat_client::Client;
use sortinghat_proto::{
    JobKind, ObjectRef,
    v1::{EpochMetrics, Job, JobState},
};

use crate::{
    exit::Exit,
    failure::Failure,
    follow::Followed,
    output::Output,
    session::Session,
    show::{
        job,
        json::{self, tagged},
        line::{print_json, print_line},
    },
};
pub(crate) use document::document;

/// Tells how a job ended, and saves what the job made to `out`, if that is named.
pub(crate) async fn finish(
    session: &Session,
    client: &Client,
    followed: Followed,
    out: Option<&Output>,
) -> Result<Exit, Failure> {
    let (job, last_epoch) = match followed {
        Followed::Left(exit) => return Ok(exit),
        Followed::Ended { job, last_epoch } => (job, last_epoch),
    };
    let job = succeeded(session, job)?;
    tokio::select! {
        told = tell(session, client, &job, last_epoch, out) => {
            let file = if out.is_some() { " --out FILE" } else { "" };
            let next = session.command(&format!("jobs watch {}{file}", job.id));
            told.map_err(|failure| failure.of_result(format!("`{next}` fetches its result")))
        }
        _ = tokio::signal::ctrl_c() => {
            session.hint(&format!("the job has ended; `{}` tells its result again", session.way_back(&job.id, out.into())));
            Ok(Exit::Detached)
        }
    }
}

/// The job, if it has succeeded.
///
/// # Errors
/// How it has failed or was cancelled.
pub(crate) fn succeeded(session: &Session, job: Box<Job>) -> Result<Box<Job>, Failure> {
    if job.state() == JobState::Succeeded {
        return Ok(job);
    }
    if session.json() {
        print_json(&tagged("result", json::job(&job)));
    }
    Err(Failure::of_job(&job))
}

async fn tell(
    session: &Session,
    client: &Client,
    job: &Job,
    last_epoch: Option<EpochMetrics>,
    out: Option<&Output>,
) -> Result<Exit, Failure> {
    let manifest = manifest_of(job)?;
    let told = match job::kind(job) {
        Some(JobKind::Gather) => gather::tell(session, client, job, &manifest).await.map(|()| None),
        Some(JobKind::Ingest) => ingest::tell(session, client, job, &manifest).await.map(|()| None),
        Some(JobKind::Finetune) => {
            finetune::tell(session, job, last_epoch);
            Ok(None)
        }
        Some(JobKind::Evaluate) => evaluate::tell(session, client, &manifest, out).await,
        Some(JobKind::Classify) => classify::tell(session, client, job, &manifest, out).await,
        Some(JobKind::Audit) => audit::tell(session, client, &manifest, out).await,
        None => {
            tell_unknown(session, job);
            Ok(None)
        }
    };
    if session.json() {
        let mut result = tagged("result", json::job(job));
        result["manifest"] = document(client, &manifest).await?;
        if let Ok(Some(saved)) = &told {
            result["saved"] = saved.display().to_string().into();
        }
        print_json(&result);
    }
    told.map(|_| Exit::Ok)
}

/// Tells of a job whose kind only a newer version knows.
fn tell_unknown(session: &Session, job: &Job) {
    if !session.json() {
        print_line(&format!("job {} has succeeded, but this version of hat does not know its kind", job.id));
    }
}

/// What a job that has succeeded has made.
pub(crate) fn manifest_of(job: &Job) -> Result<ObjectRef, Failure> {
    let manifest = job.output.clone().and_then(|output| output.manifest);
    let missing = || {
        let id = &job.id;
        Failure::local(format!(
            "job {id} has succeeded but does not say what it made: the server may be newer than hat"
        ))
    };
    Ok(manifest.ok_or_else(missing)?.try_into()?)
}
