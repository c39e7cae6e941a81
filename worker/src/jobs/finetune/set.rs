//! The photos of a dataset as training divides them.

use std::sync::Arc;

use sortinghat_proto::{
    Digest, FinetuneSpec, Recipe, Refusal,
    manifest::{DatasetManifest, SplitKind},
};

use crate::{
    batches::{DatasetPhotos, Gallery},
    jobs::dataset::open_dataset,
    regression::{Examples, Features},
    task::{JobContext, JobError},
    training::source::Example,
};

/// The most bytes of decoded photos that are kept for the next epoch.
const KEEP_BYTES: usize = 1 << 30;

/// The photos of a dataset, divided into those to learn from and those that are held out.
pub(super) struct TrainingSet {
    pub(super) classes: Vec<String>,
    pub(super) fold: Option<u32>,
    pub(super) gallery: Arc<Gallery>,
    /// The path of every photo of the gallery in the upload.
    pub(super) paths: Vec<String>,
    /// The digest of every photo of the gallery.
    pub(super) digests: Vec<Digest>,
    /// The class of every photo of the gallery.
    pub(super) labels: Vec<usize>,
    /// Photos with the same number are near-duplicates.
    pub(super) groups: Vec<usize>,
    /// The numbers, in the gallery, of the photos to learn from; `valid` has those that are held out.
    pub(super) train: Vec<usize>,
    pub(super) valid: Vec<usize>,
}

impl TrainingSet {
    pub(super) fn open(spec: &FinetuneSpec, context: &JobContext) -> Result<Self, JobError> {
        let artifact = context.dataset()?;
        let manifest: DatasetManifest = context.objects().document(&artifact.manifest)?;
        check_fold(spec.fold, manifest.split, &artifact.name)?;
        let dataset = open_dataset(context, &manifest)?;
        let records = dataset.records();
        let keep_bytes = match spec.recipe {
            Recipe::Fastai2(_) => KEEP_BYTES,
            // Each photo is seen once.
            Recipe::Auto | Recipe::Fast | Recipe::Best => 0,
        };
        let (valid, train) = (0..records.len()).partition(|&index| records[index].place.is_held_out(spec.fold));
        Ok(Self {
            fold: spec.fold,
            paths: records.iter().map(|record| record.path.clone()).collect(),
            digests: records.iter().map(|record| record.digest.clone()).collect(),
            labels: records.iter().map(|record| record.label).collect(),
            groups: records.iter().map(|record| record.group as usize).collect(),
            train,
            valid,
            gallery: Gallery::new(Box::new(DatasetPhotos(dataset)), keep_bytes),
            classes: manifest.classes,
        })
    }

    /// The trainer's view of some of the photos.
    pub(super) fn examples(&self, numbers: &[usize]) -> Vec<Example> {
        let example = |&number: &usize| Example { digest: self.digests[number].clone(), label: self.labels[number] };
        numbers.iter().map(example).collect()
    }

    /// The photos for a regression, without features as yet.
    pub(super) fn bare_examples(&self) -> Examples {
        Examples {
            features: Features::none(),
            labels: self.labels.clone(),
            classes: self.classes.len(),
            groups: self.groups.clone(),
            digests: self.digests.clone(),
            weights: None,
        }
    }

    /// Photos to learn from of each class.
    pub(super) fn train_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for &number in &self.train {
            counts[self.labels[number]] += 1;
        }
        counts
    }
}

/// Refuses a dataset with folds if none is held out, and a fold of a dataset that has no folds.
fn check_fold(fold: Option<u32>, split: SplitKind, dataset: &str) -> Result<(), Refusal> {
    let refuse = |message| Err(Refusal::invalid("finetune.fold", message));
    match (split, fold) {
        (SplitKind::Folds(folds), None) => {
            refuse(format!("{dataset} has {folds} folds: say which one is held out, 0 to {}", folds - 1))
        }
        (SplitKind::Folds(folds), Some(fold)) if fold >= folds => {
            refuse(format!("{dataset} has no fold {fold}: its folds are 0 to {}", folds - 1))
        }
        (SplitKind::Given | SplitKind::ValidPercent(_), Some(_)) => refuse(format!(
            "{dataset} has no folds but a split of its own: leave the fold out, or ingest the photos with folds"
        )),
        (SplitKind::Folds(_), Some(_)) | (SplitKind::Given | SplitKind::ValidPercent(_), None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_is_asked_for_exactly_where_there_are_folds() {
        let message = |fold, split| check_fold(fold, split, "stamps@1").expect_err("refused").message;
        assert!(message(None, SplitKind::Folds(5)).contains("0 to 4"));
        assert!(message(Some(5), SplitKind::Folds(5)).contains("no fold 5"));
        assert!(message(Some(0), SplitKind::ValidPercent(20)).contains("no folds"));
        assert_eq!(check_fold(Some(4), SplitKind::Folds(5), "stamps@1"), Ok(()));
        assert_eq!(check_fold(None, SplitKind::Given, "stamps@1"), Ok(()));
    }
}
