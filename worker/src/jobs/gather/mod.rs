//! Gather: finds photos on the web, has the worker fetch them, and makes a dataset of them as an ingest does.
//!
//! The task has two halves. In the first one it reads text only: what providers and lists say. The worker fetches what the task names, and
//! looks at the first bytes. Then the task gives up the web for good, and only in the second half it decodes photos, any of which may take
//! its process over. So what decodes cannot send anything anywhere, and what can has decoded nothing.

mod fetching;
mod judging;
mod progress;

use sortinghat_proto::{
    GatherSpec, IngestSpec, Refusal,
    layout::LayoutChoice,
    manifest::{DatasetManifest, Gathered, SplitKind, UploadManifest},
    v1::ErrorCode,
    words::{count, counted},
};

use super::ingest;
use crate::task::{JobContext, JobError, JobOutput};
use progress::Gathering;

/// Gathers photos and makes a dataset of them.
pub(crate) fn run(spec: &GatherSpec, context: &JobContext) -> Result<JobOutput, JobError> {
    let before = Before::open(spec, context)?;
    let mut gathering = Gathering::resume(context, &before)?;
    let fetched = fetching::fetch(spec, context, &mut gathering);
    match fetched {
        Err(JobError::HandedBack) => {
            gathering.save_before_the_end(context);
            return Err(JobError::HandedBack);
        }
        fetched => fetched?,
    }
    context.objects().end_fetching()?;
    publish(spec, context, &before, gathering)
}

/// The dataset that is added to.
#[derive(Debug, Default)]
struct Before {
    name: Option<String>,
    manifest: Option<DatasetManifest>,
    upload: UploadManifest,
}

impl Before {
    fn open(spec: &GatherSpec, context: &JobContext) -> Result<Self, JobError> {
        if spec.dataset.is_none() {
            return Ok(Self::default());
        }
        let dataset = context.dataset()?;
        let manifest: DatasetManifest = context.objects().document(&dataset.manifest)?;
        if manifest.split == SplitKind::Given {
            let message =
                format!("{} has a split of its own, so nothing can be added to it: use another name", dataset.name);
            return Err(Refusal::invalid("gather.dataset", message).into());
        }
        let upload = context.objects().document(&manifest.source)?;
        Ok(Self { name: Some(dataset.name.clone()), manifest: Some(manifest), upload })
    }

    fn files(&self) -> usize {
        self.upload.files.len()
    }
}

fn publish(
    spec: &GatherSpec,
    context: &JobContext,
    before: &Before,
    mut gathering: Gathering,
) -> Result<JobOutput, JobError> {
    let (old, files) = (before.files(), gathering.files(&before.upload));
    let new = files.len() - old;
    tell_failures(context, &gathering);
    if new == 0 {
        let message = match &before.name {
            Some(name) => format!("nothing new was found, so {name} stays the newest version"),
            None => format!("no photo could be fetched: {}", gathering.first_failure()),
        };
        return Err(Refusal::new(ErrorCode::UnusableData, message).into());
    }
    let upload = UploadManifest::of(files);
    let ingest = IngestSpec {
        dataset_name: spec.dataset_name.clone(),
        source: context.objects().put_document(&upload)?,
        split: spec.split,
        seed: spec.seed,
        allow_failures: spec.allow_failures,
        derivative_short_side_px: spec.derivative_short_side_px,
        layout: LayoutChoice::Classes,
    };
    let made = ingest::make(&ingest, context, &upload, &gathering.by_path()).map_err(in_own_words)?;
    judging::judge(&mut gathering.rows, &made);
    let remarks = judging::remarks(&gathering, &made);
    ingest::tell_remarks(&remarks, context);
    let gathered = Gathered {
        sources: context.objects().put(judging::lines(&gathering.rows))?,
        classes: gathering.classes(spec, &made.manifest),
        added_to: before.name.clone(),
        added_to_manifest: context.task().dataset.as_ref().map(|dataset| dataset.manifest.clone()),
    };
    let added = match &before.name {
        Some(name) => format!(", {} new beside those of {name}", count(new as u64)),
        None => String::new(),
    };
    let summary = format!("{}{added}", ingest::summary(&made.manifest));
    let remarks = made.manifest.remarks.iter().cloned().chain(remarks).collect();
    let manifest = DatasetManifest { remarks, gathered: Some(gathered), ..made.manifest };
    Ok(JobOutput { manifest: context.objects().put_document(&manifest)?, summary })
}

/// Says how many photos could not be fetched, and why the first of them.
fn tell_failures(context: &JobContext, gathering: &Gathering) {
    let failed = gathering.failures().count() as u64;
    if failed > 0 {
        let photos = counted(failed, "photo", "photos");
        context.warn(format!("{photos} could not be fetched; the first: {}", gathering.first_failure()));
    }
}

/// A refusal of an ingest as one of a gathering.
fn in_own_words(error: JobError) -> JobError {
    match error {
        JobError::Refused(refusal) => {
            let field = refusal.field.replace("ingest.", "gather.");
            JobError::Refused(Refusal { field, ..refusal })
        }
        error => error,
    }
}
