//! How much each label counts where a model learns from it: the probability that the label is right, given what models that have not
//! learned from the photo say of it.

use std::collections::BTreeSet;

use super::confident::Evidence;
use crate::prediction::probabilities::Probabilities;

/// The estimated share of wrong labels is kept within these bounds, so that no weight is 0 or 1 for want of photos.
const WRONG_SHARE: std::ops::RangeInclusive<f64> = 1e-3..=0.8;
/// The share of its weight that each class keeps. A class that is hard to learn looks like one that is labelled wrong.
const KEPT: f64 = 0.5;

/// The photos whose labels are doubted by every one of several repeats, each of which has one row for each label.
///
/// # Panics
/// When a repeat has not one row for each label.
#[must_use]
pub fn always_doubted(labels: &[usize], repeats: &[Probabilities], classes: usize) -> BTreeSet<usize> {
    let doubted = |rows: &Probabilities| -> BTreeSet<usize> {
        Evidence::new(labels, rows, classes).doubts().iter().map(|doubt| doubt.photo).collect()
    };
    repeats.iter().map(doubted).reduce(|all, doubted| &all & &doubted).unwrap_or_default()
}

/// The share of labels that are wrong, by the joint of confident learning, within the bounds of what is believed.
///
/// # Panics
/// When there is not one row for each label.
#[must_use]
pub fn wrong_share(labels: &[usize], rows: &Probabilities, classes: usize) -> f64 {
    let joint = Evidence::new(labels, rows, classes).calibrated();
    let all: u64 = joint.iter().flat_map(|row| row.values()).sum();
    let right: u64 = joint.iter().enumerate().filter_map(|(class, row)| row.get(&class)).sum();
    (1.0 - right as f64 / all.max(1) as f64).clamp(*WRONG_SHARE.start(), *WRONG_SHARE.end())
}

/// The probability that each label is right, if a share `wrong` of labels has been replaced by any other class, and if `rows` has the
/// probabilities of the true classes. A class whose labels would keep less than half of their weight gets all of them moved towards 1,
/// until they keep half.
///
/// # Panics
/// When there is not one row for each label, or a label is no class.
#[must_use]
pub fn weights(labels: &[usize], rows: &Probabilities, wrong: f64, classes: usize) -> Vec<f64> {
    assert_eq!(labels.len(), rows.len(), "one row for each photo");
    let others = (classes - 1).max(1) as f64;
    let weight = |(&label, row): (&usize, &[f32])| {
        let own = f64::from(row[label]);
        let right = (1.0 - wrong) * own;
        right / (right + wrong * (1.0 - own) / others).max(f64::MIN_POSITIVE)
    };
    let mut weights: Vec<f64> = labels.iter().zip(rows.iter()).map(weight).collect();
    for class in 0..classes {
        let of_class: Vec<usize> = (0..labels.len()).filter(|&photo| labels[photo] == class).collect();
        let mean = of_class.iter().map(|&photo| weights[photo]).sum::<f64>() / of_class.len().max(1) as f64;
        if mean < KEPT {
            let towards_one = (KEPT - mean) / (1.0 - mean);
            of_class.into_iter().for_each(|photo| weights[photo] += (1.0 - weights[photo]) * towards_one);
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_keeps_half_of_its_weight_however_hard_it_is() {
        // Clean labels of two classes, of which the second is hardly ever recognised.
        let labels: Vec<usize> = (0..80).map(|photo| photo % 2).collect();
        let row = |photo: usize| if photo.is_multiple_of(2) { [0.9, 0.1] } else { [0.97, 0.03 + 0.001 * photo as f32] };
        let rows = Probabilities::new((0..80).flat_map(row).collect(), 2);
        for wrong in [1e-3, 0.1, 0.5, 0.8] {
            let weights = weights(&labels, &rows, wrong, 2);
            for class in 0..2 {
                let mean =
                    weights.iter().zip(&labels).filter(|(_, label)| **label == class).map(|(w, _)| w).sum::<f64>();
                assert!(mean / 40.0 >= KEPT - 1e-12, "wrong {wrong}: class {class} keeps {mean} of 40");
            }
            assert!(weights.iter().all(|weight| (0.0..=1.0).contains(weight)));
            assert!(weights[79] > weights[1], "the order of labels within a class stays");
        }
    }

    #[test]
    fn a_label_is_as_probable_as_bayes_rule_says() {
        let rows = Probabilities::new(vec![0.5, 0.25, 0.25, 0.9, 0.1, 0.0], 3);
        let found = weights(&[0, 0], &rows, 0.2, 3);
        assert!((found[0] - 0.4 / (0.4 + 0.2 * 0.5 / 2.0)).abs() < 1e-9);
        assert!((found[1] - 0.72 / (0.72 + 0.2 * 0.1 / 2.0)).abs() < 1e-7);
    }

    #[test]
    fn a_label_is_always_doubted_only_if_every_repeat_doubts_it() {
        let sure = [[0.9, 0.1], [0.95, 0.05], [0.02, 0.98], [0.1, 0.9], [0.03, 0.97], [0.05, 0.95]].concat();
        let (labels, first) = ([0, 0, 0, 1, 1, 1], Probabilities::new(sure.clone(), 2));
        let mut other = sure;
        (other[4], other[5]) = (0.9, 0.1);
        let other = Probabilities::new(other, 2);
        assert_eq!(always_doubted(&labels, &[first.clone(), first.clone()], 2), BTreeSet::from([2]));
        assert_eq!(always_doubted(&labels, &[first, other], 2), BTreeSet::new());
    }
}
