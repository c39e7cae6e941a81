//! Which photos a model is measured on.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use sortinghat_proto::{
    Digest, EvaluateOn, ObjectRef, Refusal,
    layout::{self, Layout, LayoutChoice},
    manifest::{DatasetManifest, EvaluationTarget, ModelManifest, Remark, SplitKind, UploadManifest, UploadedFile},
    v1::ErrorCode,
    words::{count, counted},
};

use crate::{
    batches::{DatasetPhotos, Gallery, Selection, UploadedPhotos},
    dataset::remarks,
    evaluation::{Subject, known_photos_sentence},
    jobs::{
        dataset::open_dataset,
        network::{derivative_short_side, is_lost},
    },
    report::Noticed,
    task::{JobContext, JobError},
};

/// Files that are not measured, by the reason.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Skipped {
    /// Files in no class folder.
    no_class_folder: u64,
    /// Files that cannot be read or decoded.
    undecoded: u64,
}

impl Skipped {
    pub(super) fn files(self) -> u64 {
        self.no_class_folder + self.undecoded
    }
}

/// Labelled photos.
pub(super) struct Subjects {
    pub(super) target: EvaluationTarget,
    pub(super) photos: Vec<Subject>,
    /// The number of each in the gallery.
    pub(super) numbers: Vec<usize>,
    pub(super) gallery: Arc<Gallery>,
    pub(super) skipped: Skipped,
    /// Whose photos these are, whichever version: "stamps". A report remembers decisions by it.
    pub(super) collection: String,
    /// What was noticed about these photos, and about those that the model has learned from.
    pub(super) noticed: Vec<Noticed>,
    /// What the photos are of: "held-out photos of stamps@1".
    what: String,
    /// The photos that the model has learned from. `None` if they were not looked up, or if the model's dataset is gone.
    learned: Option<HashSet<Digest>>,
}

/// What a model is measured on.
struct Target {
    /// "held-out photos of stamps@1".
    what: String,
    /// "stamps".
    collection: String,
    manifest: ObjectRef,
    fold: Option<u32>,
    noticed: Noticed,
}

impl Subjects {
    pub(super) fn open(on: &EvaluateOn, context: &JobContext, model: &ModelManifest) -> Result<Self, JobError> {
        let trained_on = &model.dataset;
        match on {
            EvaluateOn::HeldOut => {
                let manifest: DatasetManifest = context.objects().document(&trained_on.manifest)?;
                let same: Vec<usize> = (0..manifest.classes.len()).collect();
                Self::held_out(context, &trained_on.name, &trained_on.manifest, &manifest, trained_on.fold, &same)
            }
            EvaluateOn::Dataset(_) => {
                let artifact = context.dataset()?;
                let manifest: DatasetManifest = context.objects().document(&artifact.manifest)?;
                let labels = match_classes(&model.classes, &manifest.classes, &artifact.name)?;
                let is_own = artifact.manifest == trained_on.manifest;
                let fold = if is_own { trained_on.fold } else { None };
                check_held_out(&manifest, fold, &artifact.name)?;
                Self::held_out(context, &artifact.name, &artifact.manifest, &manifest, fold, &labels)
            }
            EvaluateOn::Source(source) => Self::uploaded(context, source, model),
        }
    }

    /// The held-out photos of a dataset. `labels` has the model's class for each class of the dataset.
    fn held_out(
        context: &JobContext,
        name: &str,
        object: &ObjectRef,
        manifest: &DatasetManifest,
        fold: Option<u32>,
        labels: &[usize],
    ) -> Result<Self, JobError> {
        let dataset = open_dataset(context, manifest)?;
        let records = dataset.records();
        let held_out: Vec<usize> = (0..records.len()).filter(|&index| records[index].place.is_held_out(fold)).collect();
        let collection = name.split('@').next().unwrap_or(name);
        let subject = |&index: &usize| {
            let record = &records[index];
            let &label = labels.get(record.label).ok_or_else(|| {
                JobError::Internal(format!("{} of {name} has the label {} of no class", record.path, record.label))
            })?;
            Ok(Subject { digest: record.digest.clone(), path: record.path.clone(), label })
        };
        let photos: Vec<Subject> = held_out.iter().map(subject).collect::<Result<_, JobError>>()?;
        let what = match fold {
            Some(fold) => format!("held-out photos (fold {fold}) of {name}"),
            None => format!("held-out photos of {name}"),
        };
        let selection = Selection { photos: Box::new(DatasetPhotos(dataset)), numbers: held_out };
        let noticed = Noticed { photos: name.to_owned(), remarks: manifest.remarks.clone() };
        let target = Target { what, collection: collection.to_owned(), manifest: object.clone(), fold, noticed };
        Self::new(photos, target, Gallery::new(Box::new(selection), 0), Skipped::default())
    }

    /// All photos of an upload with a folder for each class. The same file twice in a class counts once.
    fn uploaded(context: &JobContext, source: &ObjectRef, model: &ModelManifest) -> Result<Self, JobError> {
        let upload: UploadManifest = context.objects().document(source)?;
        let classes = class_numbers(&model.classes);
        let layout = read_layout(upload.files.iter().map(|file| file.path.as_str()), &classes)?;
        let (mut photos, mut files, mut skipped) = (Vec::new(), Vec::<UploadedFile>::new(), Skipped::default());
        let (mut seen, mut unknown) = (HashSet::new(), BTreeSet::new());
        for file in upload.files {
            let Ok(label) = layout.label(&file.path) else {
                skipped.no_class_folder += 1;
                continue;
            };
            let Some(&index) = classes.get(&label.class) else {
                unknown.insert(label.class);
                continue;
            };
            let digest = file.object.digest.clone();
            if file.unread.is_some() || seen.insert((digest.clone(), index)) {
                photos.push(Subject { digest, path: file.path.clone(), label: index });
                files.push(file);
            }
        }
        if !unknown.is_empty() {
            return Err(unknown_folders(&unknown, &model.classes).into());
        }
        let short_side_px = derivative_short_side(context, model)?;
        let stored = UploadedPhotos::new(context.objects(), context.pulse(), files, short_side_px);
        let gallery = Gallery::new(Box::new(stored), 0);
        let (what, collection) = ("photos of the uploaded folder".to_owned(), source.digest.to_string());
        let remarks: Vec<Remark> = remarks::left_out(&upload.left_out).into_iter().collect();
        let noticed = Noticed { photos: "the uploaded folder".to_owned(), remarks };
        let target = Target { what, collection, manifest: source.clone(), fold: None, noticed };
        Self::new(photos, target, gallery, skipped)
    }

    fn new(photos: Vec<Subject>, target: Target, gallery: Arc<Gallery>, skipped: Skipped) -> Result<Self, JobError> {
        let numbers = (0..photos.len()).collect();
        let Target { what, collection, manifest, fold, noticed } = target;
        let target = EvaluationTarget { description: describe(photos.len(), &what), manifest, fold };
        let subjects =
            Self { target, photos, numbers, gallery, skipped, collection, noticed: vec![noticed], what, learned: None };
        if subjects.photos.is_empty() { Err(subjects.nothing_left()) } else { Ok(subjects) }
    }

    /// Warns if the model has learned from some of the photos, or if nobody can tell. On photos that it has learned from, it is better than
    /// on any other.
    pub(super) fn warn_of_known_photos(&mut self, context: &JobContext, model: &ModelManifest) -> Result<(), JobError> {
        self.find_known_photos(context, model)?;
        if let Some(sentence) = known_photos_sentence(self.known_photos(), self.photos.len() as u64) {
            context.warn(sentence);
        }
        Ok(())
    }

    /// Finds out which photos the model has learned from. Photos that were held out when the model learned are known to be none of them.
    fn find_known_photos(&mut self, context: &JobContext, model: &ModelManifest) -> Result<(), JobError> {
        if self.target.manifest == model.dataset.manifest {
            self.learned = Some(HashSet::new());
            return Ok(());
        }
        let manifest: DatasetManifest = match context.objects().document(&model.dataset.manifest) {
            Ok(manifest) => manifest,
            // The dataset may be deleted while its models live on.
            Err(error) if is_lost(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.noticed.push(Noticed { photos: model.dataset.name.clone(), remarks: manifest.remarks.clone() });
        let dataset = open_dataset(context, &manifest)?;
        let learned = dataset.records().iter().filter(|record| !record.place.is_held_out(model.dataset.fold));
        self.learned = Some(learned.map(|record| record.digest.clone()).collect());
        Ok(())
    }

    /// How many of the photos the model has learned from; `None` if nobody can tell.
    pub(super) fn known_photos(&self) -> Option<u64> {
        let learned = self.learned.as_ref()?;
        Some(self.photos.iter().filter(|photo| learned.contains(&photo.digest)).count() as u64)
    }

    /// Takes out the photos that could not be decoded.
    ///
    /// # Errors
    /// [`JobError::Internal`] unless there is one flag for each photo.
    pub(super) fn keep(&mut self, decoded: &[bool]) -> Result<(), JobError> {
        if decoded.len() != self.photos.len() {
            let (told, photos) = (decoded.len(), self.photos.len());
            return Err(JobError::Internal(format!("{told} outcomes do not account for {photos} photos")));
        }
        let mut flags = decoded.iter();
        self.photos.retain(|_| *flags.next().expect("one flag for each photo"));
        self.numbers.retain(|&number| decoded[number]);
        self.skipped.undecoded += decoded.iter().filter(|&&decoded| !decoded).count() as u64;
        self.target.description = describe(self.photos.len(), &self.what);
        Ok(())
    }

    /// The error that no photo is left to measure on.
    pub(super) fn nothing_left(&self) -> JobError {
        Refusal::new(ErrorCode::UnusableData, why_nothing_left(&self.what, self.skipped)).at("evaluate.on").into()
    }
}

/// Why no photo is left, and what to do next.
fn why_nothing_left(what: &str, skipped: Skipped) -> String {
    let homeless = counted(skipped.no_class_folder, "file lies in no class folder", "files lie in no class folder");
    let undecoded = format!("{} cannot be read or decoded", counted(skipped.undecoded, "file", "files"));
    match skipped {
        Skipped { no_class_folder: 0, undecoded: 0 } => format!("there are no {what} to measure on"),
        Skipped { undecoded: 0, .. } => {
            format!("there is no photo to measure on, because {homeless}: put the photos into a folder per class")
        }
        Skipped { no_class_folder: 0, .. } => {
            format!("there is no photo to measure on, because {undecoded}: convert the photos to JPEG or PNG")
        }
        Skipped { .. } => format!(
            "there is no photo to measure on, because {homeless} and {undecoded}: put the photos, as JPEG or PNG, into a folder per class"
        ),
    }
}

/// How the folders of labelled photos are read. If all first folders are classes of the model, they are the classes, even if they are
/// called like the sides of a split. All classes are measured on, on whichever side of a split their photos lie.
fn read_layout<'a>(
    paths: impl Iterator<Item = &'a str> + Clone,
    classes: &HashMap<String, usize>,
) -> Result<Layout, Refusal> {
    let folders: BTreeSet<&str> = paths.clone().filter_map(|path| Some(path.split_once('/')?.0)).collect();
    let choice = match folders.into_iter().all(|folder| classes.contains_key(&layout::nfc(folder))) {
        true => LayoutChoice::Classes,
        false => LayoutChoice::Auto,
    };
    let layout = Layout::of(paths, choice).map_err(|ambiguous| {
        Refusal::invalid(
            "evaluate.source",
            format!("{ambiguous}; name the folder that holds the folders of the classes"),
        )
    })?;
    Ok(layout.including_test())
}

/// "the 142 held-out photos of stamps@1".
fn describe(photos: usize, what: &str) -> String {
    match photos {
        1 => format!("the one {}", what.replacen("photos", "photo", 1)),
        photos => format!("the {} {what}", count(photos as u64)),
    }
}

/// The number of each class, by its name in the form NFC.
fn class_numbers(classes: &[String]) -> HashMap<String, usize> {
    classes.iter().map(|class| layout::nfc(class)).zip(0..).collect()
}

/// The model's class for each class of the dataset, by name.
///
/// # Errors
/// A refusal with the names that only one of them has.
fn match_classes(model: &[String], dataset: &[String], name: &str) -> Result<Vec<usize>, Refusal> {
    let (known, found) = (class_numbers(model), class_numbers(dataset));
    let only = |of: &[String], other: &HashMap<String, usize>| {
        let names: BTreeSet<String> = of.iter().map(|class| layout::nfc(class)).collect();
        names.into_iter().filter(|class| !other.contains_key(class)).collect::<Vec<String>>()
    };
    let (only_model, only_dataset) = (only(model, &found), only(dataset, &known));
    if only_model.is_empty() && only_dataset.is_empty() {
        return Ok(dataset.iter().map(|class| known[&layout::nfc(class)]).collect());
    }
    let told = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!(
        "{name} has other classes than the model: only the model knows {}; only the dataset has {}",
        told(&only_model),
        told(&only_dataset)
    );
    Err(Refusal::invalid("evaluate.dataset", message))
}

/// Refuses a dataset with folds that the model was not trained on: it holds no photos out by itself.
fn check_held_out(manifest: &DatasetManifest, fold: Option<u32>, name: &str) -> Result<(), Refusal> {
    match (manifest.split, fold) {
        (SplitKind::Folds(folds), None) => Err(Refusal::invalid(
            "evaluate.dataset",
            format!("{name} has {folds} folds and the model was trained on none of them: use a dataset with a split"),
        )),
        (SplitKind::Folds(_), Some(_)) | (SplitKind::Given | SplitKind::ValidPercent(_), _) => Ok(()),
    }
}

fn unknown_folders(unknown: &BTreeSet<String>, classes: &[String]) -> Refusal {
    let unknown = unknown.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
    let message = format!("the model has no class for the folders {unknown}; its classes are {}", classes.join(", "));
    Refusal::invalid("evaluate.source", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_dataset_with_other_classes_is_refused_with_the_difference() {
        let refusal = match_classes(&names(&["cat", "dog"]), &names(&["cat", "owl"]), "pets@2").expect_err("differ");
        assert_eq!(refusal.field, "evaluate.dataset");
        assert!(refusal.message.contains("knows dog; only the dataset has owl"), "{}", refusal.message);
    }

    #[test]
    fn a_dataset_with_the_models_classes_has_them_by_name_in_any_order_and_unicode_form() {
        let model = names(&["caf\u{e9}", "cat", "cord"]);
        assert_eq!(match_classes(&model, &model, "pets@1"), Ok(vec![0, 1, 2]));
        assert_eq!(match_classes(&model, &names(&["cat", "cord", "cafe\u{301}"]), "pets@1"), Ok(vec![1, 2, 0]));
        let refusal = match_classes(&model, &names(&["cafe\u{301}", "cat"]), "pets@1").expect_err("differ");
        assert!(
            refusal.message.ends_with("only the model knows cord; only the dataset has none"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn folders_that_are_all_classes_of_the_model_are_classes_even_if_they_are_called_like_sides() {
        let read =
            |classes: &[&str], paths: &[&str]| read_layout(paths.iter().copied(), &class_numbers(&names(classes)));
        let paths = ["train/cafe/1.png", "val/cafe/2.png", "readme.txt"];
        assert_eq!(read(&["train", "val", "plane"], &paths), Ok(Layout::Classes));
        assert_eq!(read(&["cafe"], &paths), Ok(Layout::Splits { with_test: true }));
        assert_eq!(read(&["caf\u{e9}"], &["cafe\u{301}/1.png"]), Ok(Layout::Classes));
        assert!(read(&["train", "plane"], &["train/1.png", "test/2.png"]).is_err(), "the model does not know test");
    }

    #[test]
    fn a_refusal_to_measure_on_nothing_names_the_cause_and_what_to_do() {
        let told = |no_class_folder, undecoded| {
            why_nothing_left("held-out photos of stamps@1", Skipped { no_class_folder, undecoded })
        };
        assert_eq!(told(0, 0), "there are no held-out photos of stamps@1 to measure on");
        assert!(told(1, 0).ends_with("1 file lies in no class folder: put the photos into a folder per class"));
        assert!(told(0, 2).ends_with("2 files cannot be read or decoded: convert the photos to JPEG or PNG"));
        assert!(told(1, 2).contains("1 file lies in no class folder and 2 files cannot be read or decoded: "));
    }

    #[test]
    fn one_photo_is_described_in_the_singular() {
        assert_eq!(describe(1, "held-out photos of stamps@1"), "the one held-out photo of stamps@1");
        assert_eq!(describe(1, "photos of the uploaded folder"), "the one photo of the uploaded folder");
        assert_eq!(describe(1142, "held-out photos of stamps@1"), "the 1,142 held-out photos of stamps@1");
    }
}
