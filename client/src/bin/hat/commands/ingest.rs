use sortinghat_client::folder::Listing;
use sortinghat_proto::{
    IngestSpec, JobSpec, Lane, Name, Split,
    layout::{Layout, LayoutChoice},
};

use super::sources::{self, Labelled};
use crate::{
    args::Ingest, exit::Exit, failure::Failure, follow, output::Aim, session::Session, tell, unsubmitted::Unsubmitted,
};

const DEFAULT_VALID_PERCENT: u32 = 20;
const DEFAULT_SHORT_SIDE_PX: u32 = 512;

pub(super) async fn run(session: &Session, args: Ingest) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    // An impossible name and a missing folder are refused before anything is uploaded.
    let dataset_name: Name = args.name.parse()?;
    let unsubmitted = Unsubmitted::begin(session);
    let Labelled { listing, layout } = sources::list_labelled(session, &args.dir, args.links.links())?;
    if layout.is_some() && args.layout.is_some() {
        return Err(Failure::usage("--layout has no effect on a table, whose columns say what is what: leave it out"));
    }
    let layout = layout.unwrap_or(args.layout());
    check_layout(&args, &listing, layout)?;
    let client = session.connect().await?;
    let split = match args.folds {
        Some(folds) => Split::Folds(folds),
        None => Split::ValidPercent(args.valid_percent.unwrap_or(DEFAULT_VALID_PERCENT)),
    };
    let spec = IngestSpec {
        dataset_name,
        source: sources::upload(session, &client, &listing).await?,
        split,
        seed: args.seed,
        allow_failures: args.allow_failures,
        derivative_short_side_px: args.short_side.unwrap_or(DEFAULT_SHORT_SIDE_PX),
        layout,
    };
    let job = submission(JobSpec::Ingest(spec), Lane::Bulk);
    let followed = follow::submit(session, &client, job, unsubmitted, Aim::Tell).await?;
    tell::finish(session, &client, followed, None).await
}

/// Refuses a folder that can be read in two ways, and options that splits would ignore, before anything is uploaded.
fn check_layout(args: &Ingest, listing: &Listing, layout: LayoutChoice) -> Result<(), Failure> {
    let paths = listing.files.iter().map(|file| file.path.as_str());
    let layout = Layout::of(paths, layout).map_err(|error| {
        Failure::usage(format!("{error}; say which is meant with --layout classes or --layout splits"))
    })?;
    let ignored = args.folds.map(|_| "--folds").or(args.valid_percent.map(|_| "--valid-percent"));
    match (layout, ignored) {
        (Layout::Splits { .. }, Some(option)) => Err(Failure::usage(format!(
            "{option} would be ignored, because the folder has splits of its own: leave it out, or read the folders as \
             classes with --layout classes"
        ))),
        (Layout::Splits { .. } | Layout::Classes, _) => Ok(()),
    }
}
