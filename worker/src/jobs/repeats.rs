//! What models say of photos that they have not learned from, several times, each time with other folds.

use std::collections::HashMap;

use crate::{
    prediction::probabilities::Probabilities,
    regression::{Examples, InnerFolds, Logits, Penalty, Policy, predict_held_out},
    task::JobError,
};

/// Out-of-fold probabilities of the same photos, in several deals of the folds.
#[derive(Debug)]
pub(super) struct Repeats {
    /// The photos that every deal holds out, in rising order.
    pub(super) photos: Vec<usize>,
    /// Their labels.
    pub(super) labels: Vec<usize>,
    /// For each deal, a row for each of these photos.
    pub(super) rows: Vec<Probabilities>,
}

impl Repeats {
    /// Deals the photos `train` anew, `count` times in all, of which `first` is the first. `fitted` is called with the number of fits that
    /// are done.
    pub(super) fn make(
        examples: &Examples,
        train: &[usize],
        (first, held_out, penalty): (&InnerFolds, &Logits, Penalty),
        (count, policy): (u64, Policy),
        mut fitted: impl FnMut(u64) -> Result<(), JobError>,
    ) -> Result<Self, JobError> {
        let mut deals = vec![by_photo(first, held_out, examples.classes)];
        let mut before = 0;
        for repeat in 1..count {
            let Some(folds) = InnerFolds::deal(examples, train, policy.seed.wrapping_add(repeat)) else { break };
            let told = &mut |done| fitted(before + done);
            let held_out = predict_held_out(examples, &folds, penalty, policy.threads, told)?;
            before += folds.count() as u64;
            deals.push(by_photo(&folds, &held_out, examples.classes));
        }
        // Near-duplicates may keep a photo from being predicted in one of the deals.
        let mut photos = first.photos();
        photos.retain(|photo| deals.iter().all(|deal| deal.contains_key(photo)));
        photos.sort_unstable();
        let rows = deals.iter().map(|deal| rows(deal, &photos, examples.classes)).collect();
        let labels = photos.iter().map(|&photo| examples.labels[photo]).collect();
        Ok(Self { photos, labels, rows })
    }

    /// The mean of the probabilities over the deals.
    pub(super) fn mean(&self) -> Probabilities {
        Probabilities::mean(&self.rows)
    }
}

/// The probabilities of each photo that is held out, without a temperature.
pub(super) fn by_photo(folds: &InnerFolds, held_out: &Logits, classes: usize) -> HashMap<usize, Vec<f32>> {
    let rows = held_out.uncalibrated();
    folds.photos().into_iter().zip(rows.chunks(classes).map(<[f32]>::to_vec)).collect()
}

/// Rows of these photos, of which each has one.
pub(super) fn rows(of: &HashMap<usize, Vec<f32>>, photos: &[usize], classes: usize) -> Probabilities {
    Probabilities::new(photos.iter().flat_map(|photo| of[photo].iter().copied()).collect(), classes)
}
