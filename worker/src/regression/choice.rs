//! Chooses the penalty and the temperature on inner folds of the photos to learn from, and fits the regression on all of them.

use std::{
    collections::BTreeSet,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use super::{
    calibration::Logits,
    features::Examples,
    fit::{FitError, Problem, Regression},
    unlike::Unlike,
};
use crate::dataset::split::{Item, deal_folds};

/// The penalties that are tried first, in half-decades: from 10^-6 to 10^-1.
const HALF_DECADES: std::ops::RangeInclusive<i32> = -12..=-2;
/// How far beyond these the search goes on while the best penalty is the last one.
const FARTHEST: std::ops::RangeInclusive<i32> = -18..=4;
/// Penalties whose mean negative log likelihoods differ by less, in nats, are equally good, and the largest of them is taken. Where classes
/// are far apart, every smaller penalty is a little better, without end.
const AS_GOOD: f64 = 1e-4;
/// By how many half-decades the search is extended.
const STEP: i32 = 2;
/// The penalty where there are too few photos to choose one.
const PENALTY_OF_FEW: f64 = 1e-3;
/// With fewer groups of near-duplicates in the median class (the lower one of two), nothing is chosen.
const FEW_GROUPS: usize = 3;
const MAX_FOLDS: usize = 5;

/// How the choice is made.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How many fits run at the same time, each on one thread.
    pub threads: usize,
    /// Seed of the inner folds.
    pub seed: u64,
}

/// A fitted regression, and how it was chosen.
#[derive(Debug)]
pub struct Choice {
    /// The regression, fitted on all photos to learn from.
    pub regression: Regression,
    /// The factor of the penalty.
    pub lambda: f64,
    /// What logits are to be divided by.
    pub temperature: f64,
    /// How many inner folds there were; 0 if there were too few photos to choose anything.
    pub folds: usize,
    /// Every penalty that was tried with the mean negative log likelihood in nats that it gave, in rising order.
    pub tried: Vec<(f64, f64)>,
    /// Tells which photos resemble none of the classes; `None` if there were too few photos to learn that.
    pub unlike: Option<Unlike>,
    /// The classes that were left out of the choice, because all of their photos are near-duplicates.
    pub unscored_classes: Vec<usize>,
}

impl Choice {
    /// How well the regression predicts these photos.
    ///
    /// # Errors
    /// A [`FitError`].
    pub fn measure(&self, examples: &Examples, photos: &[usize]) -> Result<Measure, FitError> {
        let logits = logits(examples, &self.regression, photos)?;
        Ok(Measure { photos: photos.len(), right: logits.right(self.temperature), nll: logits.nll(self.temperature) })
    }

    /// How many of these photos resemble none of the classes; `None` if the model cannot tell.
    ///
    /// # Errors
    /// A [`FitError`].
    pub fn count_unlike(&self, examples: &Examples, photos: &[usize]) -> Result<Option<usize>, FitError> {
        let count = |unlike: &Unlike| {
            let scores = unlike.scores(examples, &self.regression, photos)?;
            Ok(scores.into_iter().filter(|score| *score > 0.0).count())
        };
        self.unlike.as_ref().map(count).transpose()
    }
}

/// How well photos are predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// How many photos there are.
    pub photos: usize,
    /// Photos whose most probable class is their own.
    pub right: usize,
    /// Mean negative log likelihood of the true classes, in nats.
    pub nll: f64,
}

/// Chooses a penalty and a temperature for the photos `train`, and fits the regression on them. `progress` is called with the number
/// of fits that are done and of all fits, which may become more, and may end the choice.
///
/// # Errors
/// A [`FitError`], and those of `progress`.
pub fn choose<E: From<FitError>>(
    examples: &Examples,
    train: &[usize],
    policy: Policy,
    mut progress: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Choice, E> {
    let folds = InnerFolds::deal(examples, train, policy.seed);
    let (lambda, temperature, tried, unlike) = match &folds {
        None => (PENALTY_OF_FEW, 1.0, Vec::new(), None),
        Some(folds) => {
            let Chosen { path, best } = search(examples, folds, policy.threads, &mut progress)?;
            let tried = path.iter().map(|(half_decades, logits)| (penalty(*half_decades), logits.nll(1.0))).collect();
            let (half_decades, logits) = &path[best];
            let unlike = Unlike::fit(examples, train, folds, logits, policy.threads)?;
            (penalty(*half_decades), logits.temperature(), tried, Some(unlike))
        }
    };
    let regression = on_one_thread(policy.threads, || {
        let problem = Problem::new(examples, train)?;
        problem.regression(&problem.solve(lambda, None)?)
    })?;
    Ok(Choice {
        regression,
        lambda,
        temperature,
        folds: folds.as_ref().map_or(0, |folds| folds.held_out.len()),
        tried,
        unlike,
        unscored_classes: folds.map(|folds| folds.unscored_classes).unwrap_or_default(),
    })
}

fn penalty(half_decades: i32) -> f64 {
    10_f64.powf(f64::from(half_decades) / 2.0)
}

/// The out-of-fold logits of every penalty, in rising order.
struct Chosen {
    path: Vec<(i32, Logits)>,
    /// The place of the best.
    best: usize,
}

/// Tries all penalties, and more of them while the best one is the last at its end.
fn search<E: From<FitError>>(
    examples: &Examples,
    folds: &InnerFolds,
    threads: usize,
    progress: &mut impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Chosen, E> {
    let mut path: Vec<(i32, Logits)> = Vec::new();
    let mut wanted: Vec<i32> = HALF_DECADES.collect();
    loop {
        // One more fit, on all photos, follows.
        let before = (path.len() * folds.held_out.len()) as u64;
        let all = before + (wanted.len() * folds.held_out.len()) as u64 + 1;
        path.extend(out_of_fold(examples, folds, &wanted, threads, &mut |done| progress(before + done, all))?);
        path.sort_by_key(|(half_decades, _)| *half_decades);
        let nll: Vec<f64> = path.iter().map(|(_, logits)| logits.nll(1.0)).collect();
        let best = best_of(&nll);
        let (first, last) = (path[0].0, path[path.len() - 1].0);
        wanted = if best == 0 && first > *FARTHEST.start() {
            (first - STEP..first).collect()
        } else if best + 1 == path.len() && last < *FARTHEST.end() {
            (last + 1..=last + STEP).collect()
        } else {
            return Ok(Chosen { path, best });
        };
    }
}

/// The place of the largest penalty that is as good as the best.
fn best_of(nll: &[f64]) -> usize {
    let lowest = nll.iter().copied().fold(f64::INFINITY, f64::min);
    nll.iter().rposition(|nll| *nll <= lowest + AS_GOOD).expect("penalties were tried")
}

/// Which photos each inner fold holds out, and which it learns from.
pub(super) struct InnerFolds {
    pub(super) held_out: Vec<Vec<usize>>,
    pub(super) train: Vec<Vec<usize>>,
    pub(super) unscored_classes: Vec<usize>,
}

impl InnerFolds {
    /// Deals `train` into stratified folds that keep near-duplicates together. Classes of a single group are in every fit and are held
    /// out nowhere. `None` if there are too few groups to choose anything by.
    fn deal(examples: &Examples, train: &[usize], seed: u64) -> Option<Self> {
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
}

/// What a thread tells while it fits.
enum Told {
    /// One more penalty of some fold.
    Fit,
    /// The logits of all penalties on one fold.
    Fold(usize, Result<Vec<Logits>, FitError>),
}

/// The logits of all photos that are held out in some fold, for each of these penalties. `progress` is called with the number of fits that
/// are done.
fn out_of_fold<E: From<FitError>>(
    examples: &Examples,
    folds: &InnerFolds,
    wanted: &[i32],
    threads: usize,
    progress: &mut impl FnMut(u64) -> Result<(), E>,
) -> Result<Vec<(i32, Logits)>, E> {
    let (count, next, stop) = (folds.held_out.len(), AtomicUsize::new(0), AtomicBool::new(false));
    let (tell, told) = channel();
    let mut of_folds: Vec<Option<Vec<Logits>>> = vec![None; count];
    let result = thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            let (tell, next, stop) = (tell.clone(), &next, &stop);
            scope.spawn(move || {
                tch::set_num_threads(1);
                loop {
                    let fold = next.fetch_add(1, Ordering::Relaxed);
                    if fold >= count || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let logits = path(examples, folds, fold, wanted, stop, &tell);
                    let _ = tell.send(Told::Fold(fold, logits));
                }
            });
        }
        drop(tell);
        let mut done = 0;
        let mut result = Ok(());
        for told in told {
            if result.is_err() {
                // The other threads are ending.
                continue;
            }
            result = match told {
                Told::Fit => {
                    done += 1;
                    progress(done)
                }
                Told::Fold(fold, Ok(logits)) => {
                    of_folds[fold] = Some(logits);
                    Ok(())
                }
                Told::Fold(_, Err(error)) => Err(error.into()),
            };
            if result.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        result
    });
    // The threads have set the number for themselves and, in part, for the process.
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    result?;
    let mut joined = vec![Logits::new(examples.features.views(), examples.classes); wanted.len()];
    for logits in of_folds.into_iter().flatten() {
        joined.iter_mut().zip(&logits).for_each(|(all, more)| all.append(more));
    }
    Ok(wanted.iter().copied().zip(joined).collect())
}

/// The logits of the photos that `fold` holds out, for each of the penalties `wanted`. The strongest penalty is solved first, and each
/// solution is where the next one starts.
fn path(
    examples: &Examples,
    folds: &InnerFolds,
    fold: usize,
    wanted: &[i32],
    stop: &AtomicBool,
    tell: &Sender<Told>,
) -> Result<Vec<Logits>, FitError> {
    let problem = Problem::new(examples, &folds.train[fold])?;
    let held_out = &folds.held_out[fold];
    let (mut all, mut solution) = (Vec::with_capacity(wanted.len()), None);
    for &half_decades in wanted.iter().rev() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let solved = problem.solve(penalty(half_decades), solution.as_ref())?;
        all.push(logits(examples, &problem.regression(&solved)?, held_out)?);
        solution = Some(solved);
        let _ = tell.send(Told::Fit);
    }
    all.reverse();
    Ok(all)
}

/// What a regression says of these photos.
pub(super) fn logits(examples: &Examples, regression: &Regression, photos: &[usize]) -> Result<Logits, FitError> {
    let labels: Vec<usize> = photos.iter().map(|&photo| examples.labels[photo]).collect();
    let views = (0..examples.features.views())
        .map(|view| {
            let logits = regression.logits(&examples.features.view(view, photos)?)?;
            Vec::<f64>::try_from(logits.f_flatten(0, -1)?)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut logits = Logits::new(views.len(), examples.classes);
    logits.extend(&labels, &views);
    Ok(logits)
}

/// Calls `fit` while libtorch computes on one thread.
fn on_one_thread<T>(threads: usize, fit: impl FnOnce() -> T) -> T {
    tch::set_num_threads(1);
    let result = fit();
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    result
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::Digest;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::regression::features::Features;

    /// `per_class` photos of each of three classes, around a point of their own, with `noise`.
    fn examples(per_class: &[usize], noise: f64, views: usize) -> Examples {
        const WIDTH: i64 = 24;
        tch::manual_seed(11);
        let labels: Vec<usize> = per_class.iter().enumerate().flat_map(|(class, count)| vec![class; *count]).collect();
        let centres = Tensor::rand([per_class.len() as i64, WIDTH], (Kind::Float, Device::Cpu));
        let numbers = Tensor::from_slice(&labels.iter().map(|&label| label as i64).collect::<Vec<_>>());
        let view = || {
            let random = Tensor::rand([labels.len() as i64, WIDTH], (Kind::Float, Device::Cpu)) * noise;
            Vec::<f32>::try_from((centres.index_select(0, &numbers) + random).flatten(0, -1)).unwrap()
        };
        let features = Features::new((0..views).map(|_| view()).collect(), WIDTH as usize);
        let digests = (0..labels.len()).map(|photo| Digest::of(&photo.to_le_bytes())).collect();
        Examples { features, classes: per_class.len(), groups: (0..labels.len()).collect(), digests, labels }
    }

    fn chosen(examples: &Examples, threads: usize) -> Choice {
        let train: Vec<usize> = (0..examples.labels.len()).collect();
        choose(examples, &train, Policy { threads, seed: 1 }, |_, _| Ok::<_, FitError>(())).unwrap()
    }

    #[test]
    fn of_penalties_that_are_as_good_as_the_best_the_largest_is_taken() {
        assert_eq!(best_of(&[0.3, 0.1, 0.2]), 1);
        assert_eq!(best_of(&[0.100_00, 0.100_04, 0.100_2]), 1);
        assert_eq!(best_of(&[0.0, 0.0]), 1);
    }

    #[test]
    fn noisy_photos_get_a_stronger_penalty_than_clear_ones_and_the_best_is_never_at_an_end() {
        let lambdas = [0.2, 3.0].map(|noise| {
            let choice = chosen(&examples(&[30, 30, 30], noise, 2), 2);
            let place = best_of(&choice.tried.iter().map(|(_, nll)| *nll).collect::<Vec<_>>());
            assert_eq!(choice.tried[place].0, choice.lambda);
            assert!(choice.tried.is_sorted_by(|a, b| a.0 < b.0) && choice.folds == 5);
            let (least, most) = (penalty(*FARTHEST.start()), penalty(*FARTHEST.end()));
            assert!((0 < place && place + 1 < choice.tried.len()) || [least, most].contains(&choice.lambda));
            choice.lambda
        });
        assert!(lambdas[0] < lambdas[1], "{lambdas:?}");
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let examples = examples(&[20, 25, 30], 1.0, 2);
        let (one, other) = (chosen(&examples, 1), chosen(&examples, 3));
        assert_eq!((one.lambda, one.temperature, &one.tried), (other.lambda, other.temperature, &other.tried));
        assert_eq!(one.regression.weight, other.regression.weight);
        assert_eq!(one.regression.bias, other.regression.bias);
    }

    #[test]
    fn with_too_few_photos_or_a_single_class_to_score_nothing_is_chosen() {
        for per_class in [[2, 2, 9].as_slice(), &[1, 48], &[2, 48]] {
            let choice = chosen(&examples(per_class, 0.5, 1), 1);
            assert_eq!((choice.folds, choice.lambda, choice.temperature), (0, PENALTY_OF_FEW, 1.0), "{per_class:?}");
            assert!(choice.tried.is_empty() && choice.unlike.is_none());
        }
    }

    #[test]
    fn a_class_of_one_group_is_in_every_fit_and_is_named() {
        let mut examples = examples(&[20, 20, 6], 0.5, 1);
        examples.groups[40..].fill(40);
        let train: Vec<usize> = (0..46).collect();
        let folds = InnerFolds::deal(&examples, &train, 3).unwrap();
        assert_eq!((folds.held_out.len(), &folds.unscored_classes), (5, &vec![2]));
        assert!(folds.train.iter().all(|train| (40..46).all(|photo| train.contains(&photo))));
        assert_eq!(folds.held_out.iter().map(Vec::len).sum::<usize>(), 40);
        assert_eq!(chosen(&examples, 2).unscored_classes, [2]);
    }

    #[test]
    fn near_duplicates_are_on_one_side_of_every_inner_fold() {
        let mut examples = examples(&[20, 20, 20], 0.5, 1);
        (0..60).for_each(|photo| examples.groups[photo] = photo / 2);
        let folds = InnerFolds::deal(&examples, &(0..60).collect::<Vec<_>>(), 3).unwrap();
        for (held_out, train) in folds.held_out.iter().zip(&folds.train) {
            assert!(held_out.iter().all(|photo| !train.contains(&(photo ^ 1))));
        }
    }

    #[test]
    fn a_choice_can_be_ended_between_two_fits() {
        let examples = examples(&[20, 20, 20], 0.5, 1);
        let mut told = 0;
        let ended = choose(&examples, &(0..60).collect::<Vec<_>>(), Policy { threads: 2, seed: 1 }, |done, all| {
            told = done;
            assert_eq!(all, 5 * 11 + 1);
            if done == 3 { Err(Ended::Asked) } else { Ok(()) }
        });
        assert!(matches!(ended, Err(Ended::Asked)));
        assert_eq!(told, 3);
    }

    #[derive(Debug)]
    enum Ended {
        Asked,
        Failed,
    }

    impl From<FitError> for Ended {
        fn from(_: FitError) -> Self {
            Self::Failed
        }
    }
}
