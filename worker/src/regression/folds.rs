//! Inner folds of the photos to learn from: what a choice is made on, so that the photos that are held out stay untouched.

use std::collections::BTreeSet;

use super::features::Examples;
use crate::dataset::split::{Item, deal_folds};

/// With fewer groups of near-duplicates in the median class (the lower one of two), nothing is chosen.
const FEW_GROUPS: usize = 3;
const MAX_FOLDS: usize = 5;

/// Which photos each inner fold holds out, and which it learns from.
#[derive(Debug)]
pub struct InnerFolds {
    pub(super) held_out: Vec<Vec<usize>>,
    pub(super) train: Vec<Vec<usize>>,
    /// The classes that are scored nowhere, because all of their photos are near-duplicates.
    pub unscored_classes: Vec<usize>,
}

impl InnerFolds {
    /// Deals `train` into stratified folds that keep near-duplicates together. Classes of a single group are in every fit and are held
    /// out nowhere. `None` if there are too few groups to choose anything by. Features are not looked at.
    #[must_use]
    pub fn deal(examples: &Examples, train: &[usize], seed: u64) -> Option<Self> {
        let mut groups = vec![BTreeSet::new(); examples.classes];
        for &photo in train {
            groups[examples.labels[photo]].insert(examples.groups[photo]);
        }
        let mut sizes: Vec<usize> = groups.iter().map(BTreeSet::len).collect();
        let scored: Vec<usize> = (0..examples.classes).filter(|class| sizes[*class] >= 2).collect();
        let folds = scored.iter().map(|class| sizes[*class]).min()?.min(MAX_FOLDS);
        sizes.sort_unstable();
        // On photos of a single class, the surest model would seem the best.
        if scored.len() < 2 || sizes[(sizes.len() - 1) / 2] < FEW_GROUPS {
            return None;
        }
        let item = |&photo: &usize| {
            let class = scored.binary_search(&examples.labels[photo]).ok()?;
            let item = Item { digest: examples.digests[photo].clone(), class, group: examples.groups[photo] };
            Some((photo, item))
        };
        let (photos, items): (Vec<usize>, Vec<Item>) = train.iter().filter_map(item).unzip();
        let places = deal_folds(&items, scored.len(), folds, seed).expect("each class has two photos").places;
        let mut held_out: Vec<Vec<usize>> = (0..folds)
            .map(|fold| photos.iter().zip(&places).filter(|(_, place)| **place == fold).map(|(p, _)| *p).collect())
            .collect();
        let rest = |held_out: &Vec<usize>| {
            let held_out: BTreeSet<usize> = held_out.iter().copied().collect();
            train.iter().copied().filter(|photo| !held_out.contains(photo)).collect()
        };
        let unscored_classes = (0..examples.classes).filter(|class| groups[*class].len() == 1).collect();
        let train: Vec<Vec<usize>> = held_out.iter().map(rest).collect();
        // Near-duplicates of other classes may have drawn a whole class into one fold. A regression that has learned nothing of a class says
        // nothing of a penalty by how it predicts that class.
        for (held_out, train) in held_out.iter_mut().zip(&train) {
            let learned: BTreeSet<usize> = train.iter().map(|&photo| examples.labels[photo]).collect();
            held_out.retain(|&photo| learned.contains(&examples.labels[photo]));
        }
        Some(Self { held_out, train, unscored_classes })
    }

    /// How many folds there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.held_out.len()
    }

    /// All photos that are held out in some fold, fold by fold: the order of everything that is measured on these folds.
    #[must_use]
    pub fn photos(&self) -> Vec<usize> {
        self.held_out.concat()
    }

    /// The same folds, in which nothing is learned from `photos`. They are predicted all the same.
    #[must_use]
    pub fn without(&self, photos: &BTreeSet<usize>) -> Self {
        let rest = |train: &Vec<usize>| train.iter().copied().filter(|photo| !photos.contains(photo)).collect();
        Self {
            held_out: self.held_out.clone(),
            train: self.train.iter().map(rest).collect(),
            unscored_classes: self.unscored_classes.clone(),
        }
    }
}
