//! Lets labels that are probably wrong count less where a regression learns from them. Nothing is removed, and what counts less is listed.
//!
//! Models that have not learned from a photo say how probable its label is. Photos that three repeats of them all doubt are left out of the
//! models whose word then counts: by these, each label counts as much as it is probably right.

use std::collections::BTreeSet;

use sortinghat_proto::{
    limits::MAX_REVIEWED_PHOTOS,
    manifest::{LabelWeights, WeightedLabel},
    words::{self, count},
};

use super::set::TrainingSet;
use crate::{
    dataset::remarks::FEW_PHOTOS,
    evaluation::posterior::{always_doubted, weights, wrong_share},
    jobs::repeats::{Repeats, by_photo, rows},
    prediction::{metrics::argmax, probabilities::Probabilities},
    regression::{Examples, InnerFolds, Logits, Policy, Searched, fits, predict_held_out, search},
    task::{JobContext, JobError},
};

/// How often the photos are dealt into folds.
const REPEATS: u64 = 3;
/// With a smaller share of labels that every repeat doubts, all labels count the same: it would cost accuracy where labels are right.
const LEAST_DOUBTED: f64 = 0.08;
/// With a smaller share of photos that are predicted as they are labelled, doubts say more of the models than of the labels.
const LEAST_RIGHT: f64 = 0.7;

/// Photos with weights for their labels, and what was chosen for them.
pub(super) struct Weighed {
    pub(super) examples: Examples,
    pub(super) found: Searched,
    pub(super) record: LabelWeights,
}

/// What was chosen for the photos while all labels counted the same.
pub(super) struct Unweighed<'a> {
    pub(super) set: &'a TrainingSet,
    pub(super) examples: &'a Examples,
    pub(super) folds: &'a InnerFolds,
    pub(super) found: &'a Searched,
    pub(super) policy: Policy,
}

/// How many fits [`weigh`] takes at most.
pub(super) fn most_fits(folds: &InnerFolds) -> u64 {
    (REPEATS + 1) * folds.count() as u64 + fits(folds)
}

/// Weighs the labels of the photos to learn from; `None` if all labels count the same. `fitted` is called with the number of fits that are done.
pub(super) fn weigh(
    context: &JobContext,
    before: &Unweighed<'_>,
    mut fitted: impl FnMut(u64) -> Result<(), JobError>,
) -> Result<Option<Weighed>, JobError> {
    let Unweighed { set, examples, folds, found, policy } = *before;
    // The job has already warned of such classes.
    if set.train_counts().iter().any(|&photos| (photos as u64) < FEW_PHOTOS) {
        return Ok(None);
    }
    let (scored, right) = (folds.photos().len(), found.held_out.right(1.0));
    if (right as f64) < LEAST_RIGHT * scored as f64 {
        context.inform(format!(
            "all labels count the same: models that have not learned from a photo find its label in only {} of {} cases, so their \
             doubts say little about labels",
            count(right as u64),
            count(scored as u64)
        ));
        return Ok(None);
    }
    let first = (folds, &found.held_out, found.penalty);
    let repeats = Repeats::make(examples, &set.train, first, (REPEATS, policy), &mut fitted)?;
    let doubted = always_doubted(&repeats.labels, &repeats.rows, examples.classes);
    let doubted: BTreeSet<usize> = doubted.into_iter().map(|place| repeats.photos[place]).collect();
    if (doubted.len() as f64) < LEAST_DOUBTED * repeats.photos.len() as f64 {
        return Ok(None);
    }
    reweigh(context, before, (&repeats, &doubted), |done| fitted((REPEATS - 1) * folds.count() as u64 + done))
}

/// Weighs the labels by models that have not learned from the photos that are `doubted`.
fn reweigh(
    context: &JobContext,
    before: &Unweighed<'_>,
    (repeats, doubted): (&Repeats, &BTreeSet<usize>),
    mut fitted: impl FnMut(u64) -> Result<(), JobError>,
) -> Result<Option<Weighed>, JobError> {
    let Unweighed { set, examples, folds, policy, .. } = *before;
    let kept: Vec<usize> = set.train.iter().copied().filter(|photo| !doubted.contains(photo)).collect();
    let dealt = InnerFolds::deal(examples, &kept, policy.seed);
    let again = InnerFolds::deal(examples, &set.train, policy.seed.wrapping_add(REPEATS));
    let Some((dealt, again)) = dealt.zip(again) else { return Ok(None) };
    let mut found = search(examples, &dealt, policy.threads, &mut |done, _| fitted(done))?;
    let searched = found.tried.len() as u64 * dealt.count() as u64;
    let again = again.without(doubted);
    let told = &mut |done| fitted(searched + done);
    let clean = predict_held_out(examples, &again, found.penalty, policy.threads, told)?;
    let (examples, record) = weighted(before, repeats, (&again, &clean));
    context.inform(words::label_weights(&record));
    let told = &mut |done| fitted(searched + again.count() as u64 + done);
    found.held_out = predict_held_out(&examples, folds, found.penalty, policy.threads, told)?;
    Ok(Some(Weighed { examples, found, record }))
}

/// The photos with their weights, from what models of trusted labels say of them.
fn weighted(
    before: &Unweighed<'_>,
    repeats: &Repeats,
    (folds, clean): (&InnerFolds, &Logits),
) -> (Examples, LabelWeights) {
    let Unweighed { set, examples, .. } = *before;
    let classes = examples.classes;
    let of = by_photo(folds, clean, classes);
    // A photo that was predicted in no fold keeps its whole weight.
    let photos: Vec<usize> = set.train.iter().copied().filter(|photo| of.contains_key(photo)).collect();
    let labels: Vec<usize> = photos.iter().map(|&photo| examples.labels[photo]).collect();
    let rows = rows(&of, &photos, classes);
    let wrong_share = wrong_share(&repeats.labels, &repeats.mean(), classes);
    let of_photos = weights(&labels, &rows, wrong_share, classes);
    let mut all = vec![1.0; examples.labels.len()];
    photos.iter().zip(&of_photos).for_each(|(&photo, &weight)| all[photo] = weight);
    let record = record(set, (&photos, &rows, &of_photos), wrong_share);
    (Examples { weights: Some(all), ..examples.clone() }, record)
}

fn record(
    set: &TrainingSet,
    (photos, rows, weights): (&[usize], &Probabilities, &[f64]),
    wrong_share: f64,
) -> LabelWeights {
    let mut lowest: Vec<usize> = (0..photos.len()).filter(|&place| weights[place] < 0.5).collect();
    lowest.sort_by(|&a, &b| weights[a].total_cmp(&weights[b]).then(a.cmp(&b)));
    let listed = |&place: &usize| WeightedLabel {
        digest: set.digests[photos[place]].clone(),
        path: set.paths[photos[place]].clone(),
        label: set.classes[set.labels[photos[place]]].clone(),
        suggested: set.classes[argmax(rows.row(place))].clone(),
        weight: weights[place],
    };
    let below_half = lowest.len() as u64;
    LabelWeights { wrong_share, below_half, listed: lowest.iter().take(MAX_REVIEWED_PHOTOS).map(listed).collect() }
}
