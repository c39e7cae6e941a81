//! Which labels of photos are probably wrong, by models that have not learned from the photos, asked several times.

use super::confident::Evidence;
use crate::prediction::{metrics::argmax, probabilities::Probabilities};

/// What the models say of one label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Audited {
    /// The index of the photo.
    pub photo: usize,
    /// The most probable class. Of a label that is doubted, the most probable other class.
    pub suggested: usize,
    /// Probability of the label: the mean over the repeats.
    pub label_probability: f64,
    /// Probability of the suggested class.
    pub suggested_probability: f64,
    /// How many repeats doubt the label.
    pub repeats: u32,
}

/// Asks every repeat, each of which has one row for each label, which labels it doubts ("prune by noise rate"), and returns what they say
/// of every label, in the order of the labels.
///
/// # Panics
/// When there is no repeat, or a repeat has not one row for each label.
#[must_use]
pub fn audit(labels: &[usize], repeats: &[Probabilities], classes: usize) -> Vec<Audited> {
    let mut doubted = vec![0; labels.len()];
    for rows in repeats {
        for doubt in Evidence::new(labels, rows, classes).doubts() {
            doubted[doubt.photo] += 1;
        }
    }
    let mean = Probabilities::mean(repeats);
    let told = |(photo, &label): (usize, &usize)| {
        let row = mean.row(photo);
        let suggested = if doubted[photo] > 0 { best_other(row, label) } else { argmax(row) };
        let (label_probability, suggested_probability) = (f64::from(row[label]), f64::from(row[suggested]));
        Audited { photo, suggested, label_probability, suggested_probability, repeats: doubted[photo] }
    };
    labels.iter().enumerate().map(told).collect()
}

/// The labels that at least one repeat doubts. Those that most repeats doubt come first, and of these the least probable labels.
#[must_use]
pub fn queue(audited: &[Audited]) -> Vec<Audited> {
    let mut queue: Vec<Audited> = audited.iter().copied().filter(|audited| audited.repeats > 0).collect();
    queue.sort_by(|a, b| {
        let agreement = b.repeats.cmp(&a.repeats);
        agreement.then(a.label_probability.total_cmp(&b.label_probability)).then(a.photo.cmp(&b.photo))
    });
    queue
}

fn best_other(row: &[f32], label: usize) -> usize {
    let others = row.iter().enumerate().filter(|(class, _)| *class != label);
    others.fold((label, f32::NEG_INFINITY), |best, (class, &p)| if p > best.1 { (class, p) } else { best }).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_most_repeats_doubt_come_first_and_of_these_the_least_probable() {
        let sure = vec![0.9, 0.1, 0.95, 0.05, 0.02, 0.98, 0.1, 0.9, 0.03, 0.97, 0.05, 0.95];
        let with = |photo: usize, row: [f32; 2]| {
            let mut rows = sure.clone();
            rows[2 * photo..][..2].copy_from_slice(&row);
            Probabilities::new(rows, 2)
        };
        // Every repeat doubts photo 2. The second one doubts photo 5 as well.
        let repeats = [Probabilities::new(sure.clone(), 2), with(5, [0.99, 0.01])];
        let audited = audit(&[0, 0, 0, 1, 1, 1], &repeats, 2);
        let queue = queue(&audited);
        assert_eq!(queue.iter().map(|one| (one.photo, one.repeats)).collect::<Vec<_>>(), [(2, 2), (5, 1)]);
        assert_eq!((queue[0].suggested, queue[1].suggested), (1, 0));
        assert!((queue[1].label_probability - 0.48).abs() < 1e-6, "the mean over the repeats");
        assert_eq!((audited[0].repeats, audited[0].suggested), (0, 0), "nobody doubts it");
    }

    #[test]
    fn a_doubted_label_is_never_suggested_even_where_it_is_the_most_probable_on_the_whole() {
        assert_eq!(best_other(&[0.6, 0.1, 0.3], 0), 2);
        assert_eq!(best_other(&[0.6, 0.1, 0.3], 2), 0);
    }
}
