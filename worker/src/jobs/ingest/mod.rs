//! Ingest: makes an immutable dataset from an upload.

mod part;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    ops::Range,
};

use sortinghat_proto::{
    Digest, IngestSpec, ObjectRef, Refusal,
    layout::LayoutError,
    manifest::{
        DatasetManifest, PhotoSource, Rejection, RejectionReason, Remark, Shard, SplitKind, UploadManifest,
        UploadedFile,
    },
    v1::ErrorCode,
    words::counted,
};

use crate::{
    dataset::{
        Origin, PhotoRecord, ShardError, ShardWriter, Spill,
        intake::{Contents, Finding, Intake, IntakeOptions, PHOTO_LIMITS},
        plan::Plan,
        remarks,
        split::SplitError,
        usable,
    },
    task::{Done, JobContext, JobError, JobOutput, Scope},
};
use part::StoredPictures;

/// Pictures in one Parquet file, in bytes; also what an ingest holds of them in memory.
const SHARD_BYTES: usize = 128 << 20;

/// Decodes photos, splits them and writes the dataset; or does the part of this that is the task's.
pub(crate) fn run(spec: &IngestSpec, context: &JobContext) -> Result<Done, JobError> {
    let upload: UploadManifest = context.objects().document(&spec.source)?;
    let contents = Contents::of(&upload.files, spec.layout).map_err(unreadable_layout)?;
    match context.scope(contents.len())? {
        Scope::TooLarge(too_large) => Ok(too_large.counted(context)),
        Scope::Range(range) => {
            let mut pictures = StoredPictures::new(context);
            let findings = inspect(spec, context, &contents, range, |picture| pictures.keep(&picture))?;
            part::store(context, pictures, findings).map(Done::Made)
        }
        Scope::Whole => {
            let made = make(spec, context, &upload, &Sources::new())?;
            store(&made.manifest, context).map(Done::Made)
        }
        Scope::Join(shards) => {
            let (findings, mut pictures) = part::join(context, shards, contents.len())?;
            let intake = contents.judge(findings);
            let made = finish(spec, context, &upload, intake, &Sources::new(), |place| pictures.read(place))?;
            store(&made.manifest, context).map(Done::Made)
        }
    }
}

/// Where photos come from that somebody has gathered, by their path in the upload.
pub(super) type Sources<'a> = HashMap<&'a str, &'a PhotoSource>;

/// A dataset whose shards are stored, and how it came about.
pub(super) struct Made<P> {
    pub(super) manifest: DatasetManifest,
    pub(super) intake: Intake<P>,
    pub(super) plan: Plan,
}

/// Makes a dataset of an upload, in one task. Its manifest is not stored yet.
pub(super) fn make(
    spec: &IngestSpec,
    context: &JobContext,
    upload: &UploadManifest,
    sources: &Sources<'_>,
) -> Result<Made<Range<u64>>, JobError> {
    let contents = Contents::of(&upload.files, spec.layout).map_err(unreadable_layout)?;
    let folder = &context.machine().temporary_dir;
    // The words of this error name the folder, which is not for tenants.
    let no_file = |error: io::Error| machine("make a temporary file", error.kind().into());
    let mut spill = Spill::new(folder).map_err(no_file)?;
    let full = |source| machine("keep a picture in a temporary file", source);
    let all = 0..contents.len();
    let findings = inspect(spec, context, &contents, all, |picture| spill.append(&picture).map_err(full))?;
    let intake = contents.judge(findings);
    let read = |place: &_| spill.read(place).map_err(|source| machine("read a picture back", source));
    finish(spec, context, upload, intake, sources, read)
}

fn store(manifest: &DatasetManifest, context: &JobContext) -> Result<JobOutput, JobError> {
    Ok(JobOutput { manifest: context.objects().put_document(manifest)?, summary: summary(manifest) })
}

/// Reads and decodes some contents of the upload.
fn inspect<P>(
    spec: &IngestSpec,
    context: &JobContext,
    contents: &Contents<'_>,
    range: Range<usize>,
    keep: impl FnMut(Vec<u8>) -> Result<P, JobError>,
) -> Result<Vec<Finding<P>>, JobError> {
    let options = IntakeOptions { limits: PHOTO_LIMITS, short_side_px: spec.derivative_short_side_px };
    let objects = context.objects().ahead(contents.objects(range.clone()));
    let read = |file: &UploadedFile| {
        context.check_cancelled()?;
        Ok(objects.read(&file.object)?)
    };
    let progress = |done, total| context.progress("decode", done as u64, total as u64, "photos");
    contents.inspect(range, options, read, keep, progress)
}

/// Splits the photos that were taken in and writes the shards of the dataset. `read` gives a stored picture; the pictures are asked for in the order
/// of the photos.
fn finish<P>(
    spec: &IngestSpec,
    context: &JobContext,
    upload: &UploadManifest,
    intake: Intake<P>,
    sources: &Sources<'_>,
    read: impl FnMut(&P) -> Result<Vec<u8>, JobError>,
) -> Result<Made<P>, JobError> {
    tell(&intake, context);
    let mut remarks = remarks::of_upload(upload, &intake);
    tell_remarks(&remarks, context);
    usable::check(&intake, spec.allow_failures)?;
    let grouped = |done, total| context.progress("group", done, total, "looks");
    let plan = Plan::new(&intake, spec.split, spec.seed, &grouped).map_err(unusable_split)?;
    let of_plan = remarks::of_plan(&intake, &plan);
    tell_remarks(&of_plan, context);
    remarks.extend(of_plan);
    let shards = write_shards(&intake, &plan, sources, context, read)?;
    let manifest = DatasetManifest {
        class_counts: plan.class_counts(),
        near_duplicate_groups: plan.near_duplicate_groups(),
        classes: plan.classes.clone(),
        split: plan.split,
        seed: spec.seed,
        shards,
        derivative_short_side_px: spec.derivative_short_side_px,
        source: spec.source.clone(),
        counts: intake.counts,
        rejections: put_rejections(&intake.rejections, context)?,
        remarks,
        gathered: None,
    };
    Ok(Made { manifest, intake, plan })
}

/// Tells what was noticed. What the client has left out it has said itself.
pub(super) fn tell_remarks(remarks: &[Remark], context: &JobContext) {
    for remark in remarks.iter().filter(|remark| !matches!(remark, Remark::LeftOut { .. })) {
        match remark.is_warning() {
            true => context.warn(remark.to_string()),
            false => context.inform(remark.to_string()),
        }
    }
}

fn write_shards<P>(
    intake: &Intake<P>,
    plan: &Plan,
    sources: &Sources<'_>,
    context: &JobContext,
    mut read: impl FnMut(&P) -> Result<Vec<u8>, JobError>,
) -> Result<Vec<Shard>, JobError> {
    let mut shards = Vec::new();
    let mut writer = ShardWriter::new(&plan.classes, SHARD_BYTES, !sources.is_empty()).map_err(shard_failed)?;
    let total = intake.accepted.len() as u64;
    for (index, accepted) in intake.accepted.iter().enumerate() {
        context.check_cancelled()?;
        let picture = read(&accepted.photo.picture)?;
        let record = PhotoRecord {
            path: accepted.path.clone(),
            label: plan.labels[index],
            digest: accepted.digest.clone(),
            place: plan.places[index],
            group: plan.groups[index] as u64,
            width: accepted.photo.width,
            height: accepted.photo.height,
            original_format: accepted.photo.format.name().to_owned(),
            origin: sources.get(accepted.path.as_str()).map(|source| Box::new(Origin::from(*source))),
        };
        if let Some(full) = writer.push(record, picture).map_err(shard_failed)? {
            shards.push(Shard { object: context.objects().put(full.bytes)?, rows: full.rows });
        }
        context.progress("write", index as u64 + 1, total, "photos");
    }
    if let Some(last) = writer.finish().map_err(shard_failed)? {
        shards.push(Shard { object: context.objects().put(last.bytes)?, rows: last.rows });
    }
    Ok(shards)
}

fn put_rejections(rejections: &[Rejection], context: &JobContext) -> Result<Option<ObjectRef>, JobError> {
    if rejections.is_empty() {
        return Ok(None);
    }
    let mut lines = Vec::new();
    for rejection in rejections {
        serde_json::to_writer(&mut lines, rejection).expect("a rejection is text, and memory takes every write");
        lines.push(b'\n');
    }
    Ok(Some(context.objects().put(lines)?))
}

/// Reports what was found in the upload.
fn tell<P>(intake: &Intake<P>, context: &JobContext) {
    let counts = &intake.counts;
    let mut unsupported: BTreeMap<&str, (u64, &Digest)> = BTreeMap::new();
    for rejection in intake.rejections.iter().filter(|rejection| rejection.reason == RejectionReason::Unsupported) {
        unsupported.entry(&rejection.message).or_insert((0, &rejection.digest)).0 += 1;
    }
    for (message, (files, _)) in unsupported {
        context.warn(format!("{} skipped: {message}", counted(files, "file", "files")));
    }
    if counts.quarantined > 0 {
        let (photos, were) =
            (counted(counts.quarantined, "photo", "photos"), if counts.quarantined == 1 { "was" } else { "were" });
        context.warn(format!("{photos} cannot be read or decoded and {were} set aside"));
    }
    if counts.conflicting > 0 {
        context.warn(format!(
            "{} in more than one class with the same content; none of them is used until one is removed",
            counted(counts.conflicting, "file lies", "files lie")
        ));
    }
    if counts.duplicates > 0 {
        let copies = counted(counts.duplicates, "file is a copy of another", "files are copies of others");
        context.inform(format!("{copies}; each photo is kept once"));
    }
}

/// "713 photos in 8 classes, 571 to learn from and 142 held out; 3 set aside".
pub(super) fn summary(manifest: &DatasetManifest) -> String {
    let counts = &manifest.counts;
    let valid: u64 = manifest.class_counts.iter().map(|class| class.valid).sum();
    let split = match manifest.split {
        SplitKind::Folds(folds) => format!("{folds} folds"),
        SplitKind::Given | SplitKind::ValidPercent(_) => {
            format!("{} to learn from and {valid} held out", counts.accepted - valid)
        }
    };
    let unused = counts.inputs - counts.accepted;
    let rest = match unused {
        0 => String::new(),
        files => format!("; {} not used", counted(files, "file", "files")),
    };
    format!("{} photos in {} classes, {split}{rest}", counts.accepted, manifest.classes.len())
}

fn machine(action: &str, source: io::Error) -> JobError {
    JobError::Machine { action: action.to_owned(), source }
}

fn shard_failed(error: ShardError) -> JobError {
    JobError::Internal(error.to_string())
}

fn unreadable_layout(error: LayoutError) -> Refusal {
    Refusal::invalid("ingest.layout", format!("{error}; say which is meant: classes or splits"))
}

fn unusable_split(error: SplitError) -> Refusal {
    Refusal::new(ErrorCode::UnusableData, error.to_string())
}
