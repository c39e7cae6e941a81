//! Ingest: from an upload to an immutable dataset.

use std::{collections::BTreeMap, io, ops::Range};

use sortinghat_proto::{
    Digest, IngestSpec, ObjectRef, Refusal, Split, limits,
    manifest::{ClassCount, DatasetManifest, Rejection, RejectionReason, Shard, SplitKind, UploadManifest},
    v1::ErrorCode,
};

use super::{JobContext, JobError, JobOutput};
use crate::{
    dataset::{
        PhotoRecord, Place, ShardError, ShardWriter, Spill,
        intake::{Accepted, Intake, IntakeOptions, take_in},
        layout::Layout,
        split::{self, Item, Side, SplitError},
        usable,
    },
    photos::{DecodeLimits, Note, neighbours, phash::Fingerprint},
};

/// Pictures in one shard, in bytes; also what an ingest holds of them in memory.
const SHARD_BYTES: usize = 128 << 20;
/// Photos of a class below which training is a gamble.
const FEW_PHOTOS: usize = 20;

type StoredIntake = Intake<Range<u64>>;

/// Decodes every photo, splits them and writes the dataset.
pub(crate) fn run(spec: &IngestSpec, context: &JobContext) -> Result<JobOutput, JobError> {
    let upload: UploadManifest = context.objects().document(&spec.source)?;
    let mut spill = Spill::new().map_err(|source| machine("make a temporary file", source))?;
    let options = IntakeOptions {
        limits: DecodeLimits {
            max_bytes: limits::MAX_PHOTO_BYTES,
            max_pixels: limits::MAX_PHOTO_PIXELS,
            max_side: limits::MAX_PHOTO_SIDE_PX,
        },
        short_side_px: spec.derivative_short_side_px,
    };
    let intake = take_in(
        &upload.files,
        options,
        |file| {
            context.check_cancelled()?;
            Ok(context.objects().read(&file.object)?)
        },
        |picture| spill.append(&picture).map_err(|source| machine("keep a picture in a temporary file", source)),
        |done, total| context.progress("decode", done as u64, total as u64, "photos"),
    )?;
    tell(&intake, context);
    usable::check(&intake, spec.allow_failures)?;

    let plan = Plan::new(&intake, spec)?;
    plan.tell(context);
    let shards = write_shards(&intake, &plan, &spill, context)?;
    let manifest = DatasetManifest {
        class_counts: plan.class_counts(),
        classes: plan.classes,
        split: plan.split,
        seed: spec.seed,
        shards,
        derivative_short_side_px: spec.derivative_short_side_px,
        source: spec.source.clone(),
        counts: intake.counts,
        near_duplicate_groups: near_duplicate_groups(&plan.groups),
        rejections: put_rejections(&intake.rejections, context)?,
    };
    let summary = summary(&manifest);
    Ok(JobOutput { manifest: context.objects().put_document(&manifest)?, summary })
}

/// Where every accepted photo goes. All vectors are in the order of the accepted photos.
struct Plan {
    /// Class names, sorted.
    classes: Vec<String>,
    labels: Vec<usize>,
    /// Index of the first photo of the same group.
    groups: Vec<usize>,
    places: Vec<Place>,
    split: SplitKind,
    /// Classes whose near-duplicates lie on both sides, because they have nothing else.
    divided_classes: Vec<usize>,
}

impl Plan {
    fn new(intake: &StoredIntake, spec: &IngestSpec) -> Result<Self, Refusal> {
        let classes: Vec<String> = intake.class_photos.keys().cloned().collect();
        let labels: Vec<usize> = intake.accepted.iter().map(|photo| label_of(photo, &classes)).collect();
        let fingerprints: Vec<Fingerprint> =
            intake.accepted.iter().map(|accepted| accepted.photo.fingerprint.clone()).collect();
        let groups = neighbours::group(&fingerprints);
        let items: Vec<Item> = intake
            .accepted
            .iter()
            .zip(labels.iter().zip(&groups))
            .map(|(accepted, (class, group))| Item { digest: accepted.digest.clone(), class: *class, group: *group })
            .collect();
        let (places, split, divided_classes) = match (intake.layout, spec.split) {
            (Layout::TrainAndValid, _) => (given_places(intake), SplitKind::Given, Vec::new()),
            (Layout::ClassFolders, Split::ValidPercent(percent)) => {
                let fraction = f64::from(percent) / 100.0;
                let placement = split::hold_out(&items, classes.len(), fraction, spec.seed).map_err(unusable_split)?;
                let places = placement.places.into_iter().map(Place::Side).collect();
                (places, SplitKind::ValidPercent(percent), placement.divided_classes)
            }
            (Layout::ClassFolders, Split::Folds(folds)) => {
                let placement =
                    split::deal_folds(&items, classes.len(), folds as usize, spec.seed).map_err(unusable_split)?;
                let places = placement.places.into_iter().map(|fold| Place::Fold(fold as u32)).collect();
                (places, SplitKind::Folds(folds), placement.divided_classes)
            }
        };
        Ok(Self { classes, labels, groups, places, split, divided_classes })
    }

    fn class_counts(&self) -> Vec<ClassCount> {
        let mut counts = vec![ClassCount { train: 0, valid: 0 }; self.classes.len()];
        for (label, place) in self.labels.iter().zip(&self.places) {
            match place {
                Place::Side(Side::Valid) => counts[*label].valid += 1,
                Place::Side(Side::Train) | Place::Fold(_) => counts[*label].train += 1,
            }
        }
        counts
    }

    /// Says what of the plan is probably not what was wanted.
    fn tell(&self, context: &JobContext) {
        for class in &self.divided_classes {
            context.warn(format!(
                "all photos of {} are near-duplicates of each other; validating on them says little",
                self.classes[*class]
            ));
        }
        let across =
            self.groups.iter().zip(&self.places).filter(|(group, place)| self.places[**group] != **place).count();
        if across > 0 && self.split == SplitKind::Given {
            context.warn(format!("{across} photos have near-duplicates on the other side of the given split"));
        }
        let few: Vec<&str> = (0..self.classes.len())
            .filter(|class| self.labels.iter().filter(|label| *label == class).count() < FEW_PHOTOS)
            .map(|class| self.classes[class].as_str())
            .collect();
        if !few.is_empty() {
            context.warn(format!("fewer than {FEW_PHOTOS} photos of {}: expect little of them", few.join(", ")));
        }
    }
}

fn label_of(photo: &Accepted<Range<u64>>, classes: &[String]) -> usize {
    classes.binary_search(&photo.label.class).expect("every accepted photo's class was counted")
}

fn given_places(intake: &StoredIntake) -> Vec<Place> {
    intake.accepted.iter().map(|accepted| Place::Side(accepted.label.given.unwrap_or(Side::Train))).collect()
}

fn near_duplicate_groups(groups: &[usize]) -> u64 {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    groups.iter().for_each(|group| *sizes.entry(*group).or_default() += 1);
    sizes.values().filter(|size| **size > 1).count() as u64
}

fn write_shards(
    intake: &StoredIntake,
    plan: &Plan,
    spill: &Spill,
    context: &JobContext,
) -> Result<Vec<Shard>, JobError> {
    let mut shards = Vec::new();
    let mut writer = ShardWriter::new(&plan.classes, SHARD_BYTES).map_err(shard_failed)?;
    let total = intake.accepted.len() as u64;
    for (index, accepted) in intake.accepted.iter().enumerate() {
        context.check_cancelled()?;
        let picture = spill.read(&accepted.photo.picture).map_err(|source| machine("read a picture back", source))?;
        let record = PhotoRecord {
            path: accepted.path.clone(),
            label: plan.labels[index],
            digest: accepted.digest.clone(),
            place: plan.places[index],
            group: plan.groups[index] as u64,
            width: accepted.photo.width,
            height: accepted.photo.height,
            original_format: accepted.photo.format.name().to_owned(),
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

/// Says what was found on the way in.
fn tell(intake: &StoredIntake, context: &JobContext) {
    let counts = &intake.counts;
    let mut unsupported: BTreeMap<&str, (u64, &Digest)> = BTreeMap::new();
    for rejection in intake.rejections.iter().filter(|rejection| rejection.reason == RejectionReason::Unsupported) {
        unsupported.entry(&rejection.message).or_insert((0, &rejection.digest)).0 += 1;
    }
    for (message, (files, _)) in unsupported {
        context.warn(format!("{files} files skipped: {message}"));
    }
    if counts.quarantined > 0 {
        context.warn(format!("{} photos cannot be decoded and were set aside", counts.quarantined));
    }
    if counts.conflicting > 0 {
        context.warn(format!(
            "{} files lie in more than one class with the same content; none of them is used until one is removed",
            counts.conflicting
        ));
    }
    if counts.duplicates > 0 {
        context.inform(format!("{} files are copies of others and were kept once", counts.duplicates));
    }
    let misnamed =
        intake.accepted.iter().filter(|accepted| accepted.photo.notes.contains(&Note::WrongExtension)).count();
    if misnamed > 0 {
        context.inform(format!("{misnamed} photos have the extension of another format; they were read by content"));
    }
}

/// "713 photos in 8 classes, 571 to learn from and 142 held out; 3 set aside".
fn summary(manifest: &DatasetManifest) -> String {
    let counts = &manifest.counts;
    let valid: u64 = manifest.class_counts.iter().map(|class| class.valid).sum();
    let split = match manifest.split {
        SplitKind::Folds(folds) => format!("{folds} folds"),
        SplitKind::Given | SplitKind::ValidPercent(_) => {
            format!("{} to learn from and {valid} held out", counts.accepted - valid)
        }
    };
    let unused = counts.inputs - counts.accepted;
    let rest = if unused == 0 { String::new() } else { format!("; {unused} files not used") };
    format!("{} photos in {} classes, {split}{rest}", counts.accepted, manifest.classes.len())
}

fn machine(action: &str, source: io::Error) -> JobError {
    JobError::Machine { action: action.to_owned(), source }
}

fn shard_failed(error: ShardError) -> JobError {
    JobError::Internal(error.to_string())
}

fn unusable_split(error: SplitError) -> Refusal {
    Refusal::new(ErrorCode::UnusableData, error.to_string())
}
