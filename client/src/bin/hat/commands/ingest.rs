use sortinghat_proto::{IngestSpec, JobSpec, Lane, Name, Split};

use super::sources;
use crate::{args::Ingest, exit::Exit, failure::Failure, follow, session::Session, tell};

const DEFAULT_VALID_PERCENT: u32 = 20;
const DEFAULT_SHORT_SIDE_PX: u32 = 512;

pub(super) async fn run(session: &Session, args: Ingest) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    // An impossible name and a missing folder are refused before anything is uploaded.
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
    tell::finish(session, &client, followed, None).await
}
