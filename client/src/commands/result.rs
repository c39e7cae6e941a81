//! What a job made, told to the person or to a program.

use std::path::Path;

use sortinghat_client::{Client, predictions::Format};
use sortinghat_proto::{
    ObjectRef,
    v1::{EpochMetrics, Job, JobState},
};

use super::{classify, evaluate, finetune, ingest};
use crate::{
    exit::Exit,
    failure::Failure,
    follow::{Followed, tagged},
    session::Session,
    show::json,
};

/// Tells how a job ended and saves what it made to `out`, if that is named.
pub(super) async fn finish(
    session: &Session,
    client: &Client,
    followed: Followed,
    out: Option<&Path>,
) -> Result<Exit, Failure> {
    let (job, last_epoch) = match followed {
        Followed::Left(exit) => return Ok(exit),
        Followed::Ended { job, last_epoch } => (job, last_epoch),
    };
    if job.state() != JobState::Succeeded {
        if session.json() {
            session.print_json(&tagged("result", json::job(&job)));
        }
        return Err(Failure::of_job(&job));
    }
    tokio::select! {
        told = tell(session, client, &job, last_epoch, out) => told,
        _ = tokio::signal::ctrl_c() => {
            session.hint(&format!("the job has ended; hat jobs watch {} tells of it again", job.id));
            Ok(Exit::Detached)
        }
    }
}

async fn tell(
    session: &Session,
    client: &Client,
    job: &Job,
    last_epoch: Option<EpochMetrics>,
    out: Option<&Path>,
) -> Result<Exit, Failure> {
    let manifest = manifest_of(job)?;
    let told = match json::kind_word(job) {
        "ingest" => ingest::tell(session, client, job, &manifest).await,
        "finetune" => {
            finetune::tell(session, job, last_epoch);
            Ok(())
        }
        "evaluate" => evaluate::tell(session, client, &manifest, out).await,
        "classify" => classify::tell(session, client, &manifest, out).await,
        _ => Ok(()),
    };
    if session.json() {
        let mut result = tagged("result", json::job(job));
        result["manifest"] = document(client, &manifest).await?;
        session.print_json(&result);
    }
    told.map(|()| Exit::Ok)
}

/// A stored document as it is, for programs.
pub(super) async fn document(client: &Client, object: &ObjectRef) -> Result<serde_json::Value, Failure> {
    let bytes = client.read_object(object).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::local(format!("object {} is no JSON document: {error}", object.digest)))
}

/// The format that a file's name asks for, or a refusal that names the possible ones.
pub(super) fn format_of(path: &Path) -> Result<Format, Failure> {
    Format::of_path(path).ok_or_else(|| {
        Failure::usage(format!(
            "{} is no kind of file that is written: end its name in .csv, .jsonl or .parquet",
            path.display()
        ))
    })
}

fn manifest_of(job: &Job) -> Result<ObjectRef, Failure> {
    let manifest = job.output.clone().and_then(|output| output.manifest);
    let missing =
        || Failure::local(format!("job {} succeeded but says not what it made; is the server newer?", job.id));
    Ok(manifest.ok_or_else(missing)?.try_into()?)
}
