//! Plans where each photo that was taken in goes: its class, its group of near-duplicates, its side or fold.

use std::collections::BTreeMap;

use sortinghat_photos::{neighbours::Grouping, phash::Fingerprint};
use sortinghat_proto::{
    Split,
    layout::Layout,
    manifest::{ClassCount, SplitKind},
};

use super::{
    intake::Intake,
    schema::Place,
    split::{self, Item, Side, SplitError},
};

/// Where every accepted photo goes. `labels`, `groups` and `places` are in the order of the accepted photos.
#[derive(Debug)]
pub struct Plan {
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// Index of each photo's class.
    pub labels: Vec<usize>,
    /// Index of the first photo of the same group of near-duplicates.
    pub groups: Vec<usize>,
    /// Side or fold of each photo.
    pub places: Vec<Place>,
    /// How photos are held out.
    pub split: SplitKind,
    /// Classes whose near-duplicates lie on both sides, because they have nothing else.
    pub divided_classes: Vec<usize>,
}

impl Plan {
    /// Groups near-duplicates and places them as `split` asks; splits of the upload decide for themselves. `grouped` is
    /// called with the progress of the grouping, as in [`Grouping::of`].
    ///
    /// # Errors
    /// [`SplitError`], where a class is too small or the split makes no sense.
    pub fn new<P>(intake: &Intake<P>, split: Split, seed: u64, grouped: &dyn Fn(u64, u64)) -> Result<Self, SplitError> {
        let classes: Vec<String> = intake.class_photos.keys().cloned().collect();
        let label = |class: &String| classes.binary_search(class).expect("every accepted photo's class was counted");
        let labels: Vec<usize> = intake.accepted.iter().map(|accepted| label(&accepted.label.class)).collect();
        let fingerprints: Vec<Fingerprint> =
            intake.accepted.iter().map(|accepted| accepted.photo.fingerprint.clone()).collect();
        let groups = Grouping::of(&fingerprints, grouped).groups;
        let items: Vec<Item> = intake
            .accepted
            .iter()
            .zip(labels.iter().zip(&groups))
            .map(|(accepted, (class, group))| Item { digest: accepted.digest.clone(), class: *class, group: *group })
            .collect();
        let (places, split, divided_classes) = match (intake.layout, split) {
            (Layout::Splits { .. }, _) => (given_places(intake), SplitKind::Given, Vec::new()),
            (Layout::Classes, Split::ValidPercent(percent)) => {
                let placement = split::hold_out(&items, classes.len(), f64::from(percent) / 100.0, seed)?;
                let places = placement.places.into_iter().map(Place::Side).collect();
                (places, SplitKind::ValidPercent(percent), placement.divided_classes)
            }
            (Layout::Classes, Split::Folds(folds)) => {
                let placement = split::deal_folds(&items, classes.len(), folds as usize, seed)?;
                let places = placement.places.into_iter().map(|fold| Place::Fold(fold as u32)).collect();
                (places, SplitKind::Folds(folds), placement.divided_classes)
            }
        };
        Ok(Self { classes, labels, groups, places, split, divided_classes })
    }

    /// Photos of each class, in the order of the classes.
    pub fn class_counts(&self) -> Vec<ClassCount> {
        let mut counts = vec![ClassCount { train: 0, valid: 0 }; self.classes.len()];
        for (label, place) in self.labels.iter().zip(&self.places) {
            match place {
                Place::Side(Side::Valid) => counts[*label].valid += 1,
                Place::Side(Side::Train) | Place::Fold(_) => counts[*label].train += 1,
            }
        }
        counts
    }

    /// Groups of more than one photo.
    pub fn near_duplicate_groups(&self) -> u64 {
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        self.groups.iter().for_each(|group| *sizes.entry(*group).or_default() += 1);
        sizes.values().filter(|size| **size > 1).count() as u64
    }
}

fn given_places<P>(intake: &Intake<P>) -> Vec<Place> {
    intake.accepted.iter().map(|accepted| Place::Side(accepted.label.given.unwrap_or(Side::Train))).collect()
}
