//! Confident learning: which labels are probably wrong (Northcutt, Jiang, Chuang 2021), number for number as cleanlab 2.9.
//!
//! It needs out-of-sample probabilities, which are those of photos that the model has not learned from.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::prediction::metrics::argmax;
use crate::prediction::probabilities::Probabilities;

/// Least threshold of a class.
const LEAST_THRESHOLD: f64 = 2e-6;
/// How much below its threshold a probability still passes.
const SLACK: f64 = 1e-6;

/// How many photos of each label (first index) are counted for each class (second); what is not there is 0.
pub type Counts = Vec<BTreeMap<usize, u64>>;

/// What is known about the labels of some photos.
#[derive(Debug)]
pub struct Evidence<'a> {
    labels: &'a [usize],
    rows: &'a Probabilities,
    classes: usize,
}

/// A photo whose label is probably wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Doubt {
    /// Its index.
    pub photo: usize,
    /// The most probable class.
    pub suggested: usize,
    /// Probability of its label.
    pub self_confidence: f64,
    /// `(P_label - the largest other P + 1) / 2`, 0 to 1; below a half, another class is more probable.
    pub normalized_margin: f64,
    /// Whether the photo is doubted by both methods: it is among the least self-confident photos of its label ("prune by class"), not
    /// only among those that "prune by noise rate" finds.
    pub by_class: bool,
}

impl<'a> Evidence<'a> {
    /// `labels` of photos and their out-of-sample probabilities of `classes` classes, row by row.
    ///
    /// # Panics
    /// When there is not one row for each label.
    #[must_use]
    pub fn new(labels: &'a [usize], rows: &'a Probabilities, classes: usize) -> Self {
        assert_eq!(labels.len(), rows.len(), "one row for each photo");
        Self { labels, rows, classes }
    }

    fn probability(&self, photo: usize, class: usize) -> f64 {
        f64::from(self.rows.row(photo)[class])
    }

    /// Photos of each label.
    fn by_label(&self) -> Vec<Vec<usize>> {
        let mut photos = vec![Vec::new(); self.classes];
        for (photo, &label) in self.labels.iter().enumerate() {
            photos[label].push(photo);
        }
        photos
    }

    /// The mean probability of each class over the photos with its label; `None` if there are none, and then no photo passes it.
    #[must_use]
    pub fn thresholds(&self) -> Vec<Option<f64>> {
        let mean = |(class, photos): (usize, &Vec<usize>)| {
            let sum = photos.iter().map(|&photo| self.probability(photo, class)).sum::<f64>();
            (!photos.is_empty()).then(|| (sum / photos.len() as f64).max(LEAST_THRESHOLD))
        };
        self.by_label().iter().enumerate().map(mean).collect()
    }

    /// The confident joint as counted. A photo counts for the class whose threshold it passes; if it passes several, for
    /// its most probable class, even if it does not pass the threshold of that class; if it passes none, for no class. The diagonal is
    /// at least 1.
    #[must_use]
    pub fn counted(&self) -> Counts {
        let thresholds = self.thresholds();
        let mut counts: Counts = vec![BTreeMap::new(); self.classes];
        for (&label, row) in self.labels.iter().zip(self.rows.iter()) {
            let passes = |&class: &usize| thresholds[class].is_some_and(|least| f64::from(row[class]) >= least - SLACK);
            let mut passed = (0..self.classes).filter(passes);
            if let Some(first) = passed.next() {
                let class = if passed.next().is_some() { argmax(row) } else { first };
                *counts[label].entry(class).or_default() += 1;
            }
        }
        for (label, row) in counts.iter_mut().enumerate() {
            row.entry(label).or_insert(1);
        }
        counts
    }

    /// The confident joint, scaled so that each label has as many photos as there are and all add up to all photos.
    #[must_use]
    pub fn calibrated(&self) -> Counts {
        let photos = self.by_label();
        let scaled = |(row, photos): (&BTreeMap<usize, u64>, &Vec<usize>)| {
            let total = row.values().sum::<u64>() as f64;
            let scale = |(&class, &count): (&usize, &u64)| (class, count as f64 / total * photos.len() as f64);
            round_to_total(&row.iter().map(scale).collect::<Vec<_>>())
        };
        self.counted().iter().zip(&photos).map(scaled).collect()
    }

    /// The photos whose labels are doubted, the least self-confident first: for each label and each other class as many as
    /// the joint holds, those with the largest margin; none whose most probable class is its label.
    #[must_use]
    pub fn doubts(&self) -> Vec<Doubt> {
        let counts = self.calibrated();
        let mut doubts = Vec::new();
        for (label, photos) in self.by_label().into_iter().enumerate() {
            // A single photo of a label says nothing.
            if photos.len() < 2 {
                continue;
            }
            let counts = keep_one(&counts[label], label);
            let by_class = self.least_confident(label, &photos, &counts);
            let by_rate = self.largest_margins(label, &photos, &counts);
            let suspects = by_rate.into_iter().map(|photo| self.doubt(photo, by_class.contains(&photo)));
            doubts.extend(
                suspects.filter(|doubt| doubt.suggested != label && doubt.normalized_margin < 0.5 - SLACK / 2.0),
            );
        }
        doubts.sort_by(|a: &Doubt, b| ascending(a.self_confidence, b.self_confidence).then(a.photo.cmp(&b.photo)));
        doubts
    }

    fn doubt(&self, photo: usize, by_class: bool) -> Doubt {
        let (row, label) = (self.rows.row(photo), self.labels[photo]);
        let self_confidence = f64::from(row[label]);
        let others = row.iter().enumerate().filter(|(class, _)| *class != label);
        let other = others.map(|(_, &probability)| f64::from(probability)).fold(0.0, f64::max);
        let normalized_margin = (self_confidence - other + 1.0) / 2.0;
        Doubt { photo, suggested: argmax(row), self_confidence, normalized_margin, by_class }
    }

    /// "Prune by noise rate".
    fn largest_margins(&self, label: usize, photos: &[usize], counts: &BTreeMap<usize, u64>) -> BTreeSet<usize> {
        let mut flagged = BTreeSet::new();
        for (&class, &count) in counts.iter().filter(|&(&class, _)| class != label) {
            let margin = |photo: usize| self.probability(photo, class) - self.probability(photo, label);
            let mut order = photos.to_vec();
            order.sort_by(|&a, &b| ascending(margin(b), margin(a)));
            flagged.extend(order.into_iter().take(count as usize));
        }
        flagged
    }

    /// "Prune by class".
    fn least_confident(&self, label: usize, photos: &[usize], counts: &BTreeMap<usize, u64>) -> BTreeSet<usize> {
        let right = counts.get(&label).copied().unwrap_or_default() as usize;
        let mut order = photos.to_vec();
        order.sort_by(|&a, &b| ascending(self.probability(a, label), self.probability(b, label)));
        order.into_iter().take(photos.len().saturating_sub(right)).collect()
    }
}

fn ascending(a: f64, b: f64) -> Ordering {
    a.total_cmp(&b)
}

/// Rounds a row so that it keeps its total: the largest remainders go up, or the smallest down. Zeros stay zero.
fn round_to_total(row: &[(usize, f64)]) -> BTreeMap<usize, u64> {
    let mut rounded: Vec<(usize, f64)> = row.iter().map(|&(class, value)| (class, value.round_ties_even())).collect();
    let total = row.iter().map(|(_, value)| value).sum::<f64>().round_ties_even();
    let missing = total - rounded.iter().map(|(_, value)| value).sum::<f64>();
    let mut order: Vec<usize> = (0..row.len()).collect();
    // Among equals the first goes down and the last up, as numpy's stable sort has it.
    order.sort_by(|&a, &b| ascending(row[a].1 - rounded[a].1, row[b].1 - rounded[b].1));
    if missing > 0.0 {
        order.reverse();
    }
    for &index in order.iter().take(missing.abs() as usize) {
        rounded[index].1 += missing.signum();
    }
    rounded.into_iter().filter(|(_, value)| *value > 0.0).map(|(class, value)| (class, value as u64)).collect()
}

/// The counts of one label, with at least one photo counted as right; the other counts are reduced evenly.
fn keep_one(counts: &BTreeMap<usize, u64>, label: usize) -> BTreeMap<usize, u64> {
    if counts.contains_key(&label) {
        return counts.clone();
    }
    let less = 1.0 / (counts.len() as f64 - 1.0).max(1.0);
    let others = counts.iter().map(|(&class, &count)| (class, (count as f64 - less).max(0.0) as u64));
    others.chain([(label, 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_photos_is_never_suggested_by_its_threshold() {
        let rows = Probabilities::new(vec![0.1, 0.1, 0.8, 0.6, 0.3, 0.1, 0.2, 0.7, 0.1], 3);
        let evidence = Evidence::new(&[0, 0, 1], &rows, 3);
        assert_eq!(evidence.thresholds()[2], None);
        assert!(evidence.counted().iter().take(2).all(|row| !row.contains_key(&2)));
    }

    #[test]
    fn a_row_keeps_its_total_when_it_is_rounded() {
        let row = round_to_total(&[(0, 2.4), (1, 3.4), (2, 1.2)]);
        assert_eq!(row.values().sum::<u64>(), 7);
        let row = round_to_total(&[(0, 2.6), (1, 3.7), (2, 1.7)]);
        assert_eq!(row.values().sum::<u64>(), 8);
    }

    #[test]
    fn labels_that_agree_with_sure_predictions_are_not_doubted() {
        let rows = Probabilities::new([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]].concat(), 2);
        assert_eq!(Evidence::new(&[0, 0, 1, 1], &rows, 2).doubts(), []);
    }

    #[test]
    fn a_photo_that_looks_like_another_class_is_doubted_and_that_class_suggested() {
        let rows = Probabilities::new(
            [[0.9, 0.1], [0.95, 0.05], [0.02, 0.98], [0.1, 0.9], [0.03, 0.97], [0.05, 0.95]].concat(),
            2,
        );
        let doubts = Evidence::new(&[0, 0, 0, 1, 1, 1], &rows, 2).doubts();
        let [doubt] = doubts.as_slice() else { panic!("one of them: {doubts:?}") };
        assert_eq!((doubt.photo, doubt.suggested, doubt.by_class), (2, 1, true));
        assert!(doubt.normalized_margin < 0.1);
    }
}
