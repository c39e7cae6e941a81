//! What an ingest noticed and a person should know: of the folders, of the photos, of the split.

use std::collections::{BTreeMap, BTreeSet};

use sortinghat_photos::Note;
use sortinghat_proto::{
    layout::{Side, Unlabelled, likeness, nfc},
    manifest::{
        AbsentClass, ClassSize, LeftOut, LeftOutReason, Remark, SplitKind, SplitPair, UploadManifest, UploadedFile,
    },
    words::counted,
};

use super::{
    intake::{Intake, promises_photo},
    plan::Plan,
    schema::Place,
};

/// With fewer photos of a class, little can be learned of it.
pub(crate) const FEW_PHOTOS: u64 = 20;
/// From this many times the photos of another class on, a model prefers the larger one.
const IMBALANCE: u64 = 10;
/// Paths that a remark gives as examples.
const EXAMPLES: usize = 3;

/// What was noticed of the folders and of the photos in them.
pub fn of_upload<P>(upload: &UploadManifest, intake: &Intake<P>) -> Vec<Remark> {
    let absent = absent_classes(upload, intake);
    let mut remarks = Vec::new();
    remarks.extend(similar_names(intake, &absent));
    remarks.extend((!absent.is_empty()).then_some(Remark::ClassesWithoutPhotos { classes: absent }));
    remarks.extend(one_name_in_several_forms(&upload.files, intake));
    remarks.extend(test_folder(&upload.files, intake));
    remarks.extend(beside_split(&upload.files, intake));
    remarks.extend(left_out(&upload.left_out));
    let of_photos = [Note::ColorProfile, Note::Mended, Note::WrongExtension];
    remarks.extend(of_photos.into_iter().filter_map(|note| noted(intake, note)));
    remarks
}

/// What was noticed of the classes' sizes and of the split.
pub fn of_plan<P>(intake: &Intake<P>, plan: &Plan) -> Vec<Remark> {
    let divided: Vec<String> = plan.divided_classes.iter().map(|class| plan.classes[*class].clone()).collect();
    let sizes: Vec<ClassSize> = (plan.classes.iter().zip(plan.class_counts()))
        .map(|(class, number)| ClassSize { class: class.clone(), photos: number.train + number.valid })
        .collect();
    let mut remarks = Vec::new();
    remarks.extend((!divided.is_empty()).then_some(Remark::OnlyNearDuplicates { classes: divided }));
    remarks.extend((plan.split == SplitKind::Given).then(|| across_split(intake, plan)).flatten());
    remarks.extend(imbalance(&sizes));
    let few: Vec<ClassSize> = sizes.into_iter().filter(|class| class.photos < FEW_PHOTOS).collect();
    remarks.extend((!few.is_empty()).then_some(Remark::FewPhotos { classes: few, fewer_than: FEW_PHOTOS }));
    remarks
}

/// The folders that would be classes and have no usable photo, with what became of their files.
fn absent_classes<P>(upload: &UploadManifest, intake: &Intake<P>) -> Vec<AbsentClass> {
    let mut reasons: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut note = |path: &str, reason: &'static str| {
        if let Ok(label) = intake.layout.label(path)
            && !intake.class_photos.contains_key(&label.class)
        {
            *reasons.entry(label.class).or_default().entry(reason).or_default() += 1;
        }
    };
    intake.rejections.iter().for_each(|rejection| note(&rejection.path, rejection.reason.as_str()));
    // Nobody misses what is hidden or litter, and a folder that has nothing else is told as an empty one.
    let missed = upload
        .left_out
        .iter()
        .filter(|group| group.reason.may_be_missed() || group.reason == LeftOutReason::EmptyFolder);
    missed.clone().for_each(|group| group.paths.iter().for_each(|path| note(path, group.reason.as_str())));
    // The client lists only the first paths of a reason. The others may lie in the same folders.
    let unlisted: BTreeSet<&str> =
        missed.filter(|group| group.entries > group.paths.len() as u64).map(|group| group.reason.as_str()).collect();
    let why = |reasons: BTreeMap<&str, u64>| {
        let one = |(reason, number): (&str, u64)| {
            let more = if unlisted.contains(reason) { " and perhaps more" } else { "" };
            format!("{}{more}: {reason}", counted(number, "entry", "entries"))
        };
        reasons.into_iter().map(one).collect::<Vec<_>>().join(", ")
    };
    reasons.into_iter().map(|(class, reasons)| AbsentClass { class, why: why(reasons) }).collect()
}

/// Classes whose folders are written in several Unicode forms.
fn one_name_in_several_forms<P>(files: &[UploadedFile], intake: &Intake<P>) -> Option<Remark> {
    let folders: BTreeSet<&str> =
        files.iter().filter_map(|file| intake.layout.class_folder(&file.path).ok()).map(|(folder, _)| folder).collect();
    let mut spellings: BTreeMap<String, u64> = BTreeMap::new();
    folders.into_iter().for_each(|folder| *spellings.entry(nfc(folder)).or_default() += 1);
    let classes: Vec<String> =
        spellings.into_iter().filter(|(_, spellings)| *spellings > 1).map(|(class, _)| class).collect();
    (!classes.is_empty()).then_some(Remark::OneNameInSeveralForms { classes })
}

/// Classes whose names look alike.
fn similar_names<P>(intake: &Intake<P>, absent: &[AbsentClass]) -> Option<Remark> {
    let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let names = intake.class_photos.keys().chain(absent.iter().map(|absent| &absent.class));
    names.for_each(|class| alike.entry(likeness(class)).or_default().push(class.clone()));
    let groups: Vec<Vec<String>> = alike.into_values().filter(|names| names.len() > 1).collect();
    (!groups.is_empty()).then_some(Remark::SimilarNames { groups })
}

fn test_folder<P>(files: &[UploadedFile], intake: &Intake<P>) -> Option<Remark> {
    let is_test = |file: &&UploadedFile| intake.layout.class_folder(&file.path) == Err(Unlabelled::Test);
    let folders: BTreeSet<&str> = files.iter().filter(is_test).map(|file| first_folder(&file.path)).collect();
    if folders.is_empty() {
        return None;
    }
    let is_held_out = |file: &&UploadedFile| {
        intake.layout.class_folder(&file.path).is_ok_and(|(_, given)| given == Some(Side::Valid))
    };
    let held_out: BTreeSet<&str> = files.iter().filter(is_held_out).map(|file| first_folder(&file.path)).collect();
    Some(Remark::TestFolderLeftOut {
        folders: owned(folders),
        files: files.iter().filter(is_test).count() as u64,
        held_out: owned(held_out),
    })
}

fn beside_split<P>(files: &[UploadedFile], intake: &Intake<P>) -> Option<Remark> {
    let is_beside = |file: &&UploadedFile| intake.layout.class_folder(&file.path) == Err(Unlabelled::BesideSplit);
    let beside: Vec<&UploadedFile> = files.iter().filter(is_beside).collect();
    let folders: BTreeSet<&str> = beside.iter().map(|file| first_folder(&file.path)).collect();
    (!beside.is_empty()).then(|| Remark::FoldersBesideSplit {
        folders: owned(folders),
        files: beside.len() as u64,
        photos: beside.iter().filter(|file| promises_photo(&file.path)).count() as u64,
    })
}

/// What the client left out, with some examples. Empty folders are told as absent classes.
pub(crate) fn left_out(all: &[LeftOut]) -> Option<Remark> {
    let told = all.iter().filter(|group| group.reason != LeftOutReason::EmptyFolder);
    let groups: Vec<LeftOut> =
        told.map(|group| LeftOut { paths: group.paths.iter().take(EXAMPLES).cloned().collect(), ..*group }).collect();
    (!groups.is_empty()).then_some(Remark::LeftOut { groups })
}

/// The photos that have this note.
fn noted<P>(intake: &Intake<P>, note: Note) -> Option<Remark> {
    let noted = || intake.accepted.iter().filter(|accepted| accepted.photo.notes.contains(&note));
    let photos = noted().count() as u64;
    if photos == 0 {
        return None;
    }
    let examples = noted().take(EXAMPLES).map(|accepted| accepted.path.clone()).collect();
    match note {
        Note::ColorProfile => Some(Remark::ColorProfiles { photos, examples }),
        Note::Mended => Some(Remark::Mended { photos, examples }),
        Note::WrongExtension => Some(Remark::WrongExtension { photos, examples }),
        Note::TurnedUpright | Note::AlphaOverWhite | Note::DepthReduced | Note::Cmyk => None,
    }
}

/// Near-duplicates on both sides of a given split.
fn across_split<P>(intake: &Intake<P>, plan: &Plan) -> Option<Remark> {
    let learned: BTreeMap<usize, usize> = (0..plan.places.len())
        .rev()
        .filter(|photo| plan.places[*photo] == Place::Side(Side::Train))
        .map(|photo| (plan.groups[photo], photo))
        .collect();
    let path = |photo: usize| intake.accepted[photo].path.clone();
    let pairs: Vec<(usize, usize)> = (0..plan.places.len())
        .filter(|photo| plan.places[*photo] == Place::Side(Side::Valid))
        .filter_map(|photo| Some((photo, *learned.get(&plan.groups[photo])?)))
        .collect();
    let groups: BTreeSet<usize> = pairs.iter().map(|(photo, _)| plan.groups[*photo]).collect();
    let pair = |(held_out, learned): &(usize, usize)| SplitPair { held_out: path(*held_out), learned: path(*learned) };
    (!pairs.is_empty()).then(|| Remark::NearDuplicatesAcrossSplit {
        groups: groups.len() as u64,
        held_out: pairs.len() as u64,
        examples: pairs.iter().take(EXAMPLES).map(pair).collect(),
    })
}

fn imbalance(sizes: &[ClassSize]) -> Option<Remark> {
    let largest = sizes.iter().max_by_key(|class| class.photos)?;
    let smallest = sizes.iter().min_by_key(|class| class.photos)?;
    (largest.photos >= smallest.photos * IMBALANCE)
        .then(|| Remark::Imbalance { largest: largest.clone(), smallest: smallest.clone() })
}

fn first_folder(path: &str) -> &str {
    path.split_once('/').map_or("", |(first, _)| first)
}

fn owned(names: BTreeSet<&str>) -> Vec<String> {
    names.into_iter().map(ToOwned::to_owned).collect()
}
