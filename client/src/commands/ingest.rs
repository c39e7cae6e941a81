use sortinghat_client::Client;
use sortinghat_proto::{IngestSpec, JobSpec, Lane, Name, ObjectRef, Split, manifest::DatasetManifest, v1::Job};

use super::{datasets, result, sources};
use crate::{
    args::Ingest,
    exit::Exit,
    failure::Failure,
    follow,
    session::{Session, print_line},
};

const DEFAULT_VALID_PERCENT: u32 = 20;
const DEFAULT_SHORT_SIDE_PX: u32 = 512;

pub(super) async fn run(session: &Session, args: Ingest) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    // Before anything is uploaded: a name that cannot be, a folder that is not there.
    let dataset_name: Name = args.name.parse()?;
    let files = sources::list_folder(session, &args.dir)?;
    let client = session.connect().await?;
    let split = match args.folds {
        Some(folds) => Split::Folds(folds),
        None => Split::ValidPercent(args.valid_percent.unwrap_or(DEFAULT_VALID_PERCENT)),
    };
    let spec = IngestSpec {
        dataset_name,
        source: sources::upload(session, &client, files).await?,
        split,
        seed: args.seed,
        allow_failures: args.allow_failures,
        derivative_short_side_px: args.short_side.unwrap_or(DEFAULT_SHORT_SIDE_PX),
    };
    let followed = follow::submit(session, &client, submission(JobSpec::Ingest(spec), Lane::Bulk)).await?;
    result::finish(session, &client, followed, None).await
}

/// Classes, counts, what was not used and why.
pub(super) async fn tell(session: &Session, client: &Client, job: &Job, manifest: &ObjectRef) -> Result<(), Failure> {
    if session.json() {
        return Ok(());
    }
    let name = job.output.as_ref().map(|output| output.name.as_str()).unwrap_or_default();
    let dataset: DatasetManifest = client.read_document(manifest).await?;
    datasets::describe(client, name, &dataset).await?.iter().for_each(|line| print_line(line));
    session.hint(&format!("next: hat finetune {name}"));
    Ok(())
}
