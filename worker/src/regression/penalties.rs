//! Chooses the penalty on inner folds, by the predictions of photos that the fits have not learned from.

use std::{
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
    folds::InnerFolds,
};

/// The penalties that are tried first, in half-decades: from 10^-6 to 10^-1.
const HALF_DECADES: std::ops::RangeInclusive<i32> = -12..=-2;
/// How far beyond these the search goes on while the best penalty is the last one.
pub(super) const FARTHEST: std::ops::RangeInclusive<i32> = -18..=4;
/// Penalties whose mean negative log likelihoods differ by less, in nats, are equally good, and the largest of them is taken. Where classes
/// are far apart, every smaller penalty is a little better, without end.
const AS_GOOD: f64 = 1e-4;
/// By how many half-decades the search is extended.
const STEP: i32 = 2;

/// The factor of a penalty, in half-decades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty(pub(super) i32);

impl Penalty {
    /// The penalty where there are too few photos to choose one: 1e-3.
    pub const OF_FEW: Self = Self(-6);

    /// The factor.
    #[must_use]
    pub fn lambda(self) -> f64 {
        10_f64.powf(f64::from(self.0) / 2.0)
    }
}

/// A penalty that was chosen on inner folds.
#[derive(Debug)]
pub struct Searched {
    /// The largest penalty that is as good as the best.
    pub penalty: Penalty,
    /// What the fits with this penalty say of the photos that they have not learned from.
    pub held_out: Logits,
    /// Every penalty that was tried with the mean negative log likelihood in nats that it gave, in rising order.
    pub tried: Vec<(f64, f64)>,
}

/// How many fits a search takes if it is not extended.
#[must_use]
pub fn fits(folds: &InnerFolds) -> u64 {
    (HALF_DECADES.count() * folds.count()) as u64
}

/// Tries all penalties, and more of them while the best one is the last at its end. `progress` is called with the number of fits that are
/// done and of all fits, which may become more, and may end the search.
///
/// # Errors
/// A [`FitError`], and those of `progress`.
pub fn search<E: From<FitError>>(
    examples: &Examples,
    folds: &InnerFolds,
    threads: usize,
    progress: &mut impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Searched, E> {
    let mut path: Vec<(Penalty, Logits)> = Vec::new();
    let mut wanted: Vec<i32> = HALF_DECADES.collect();
    loop {
        let penalties: Vec<Penalty> = wanted.iter().copied().map(Penalty).collect();
        let before = (path.len() * folds.count()) as u64;
        let all = before + (wanted.len() * folds.count()) as u64;
        path.extend(out_of_fold(examples, folds, &penalties, threads, &mut |done| progress(before + done, all))?);
        path.sort_by_key(|(penalty, _)| penalty.0);
        let nll: Vec<f64> = path.iter().map(|(_, logits)| logits.nll(1.0)).collect();
        let best = best_of(&nll);
        let (first, last) = (path[0].0.0, path[path.len() - 1].0.0);
        wanted = if best == 0 && first > *FARTHEST.start() {
            (first - STEP..first).collect()
        } else if best + 1 == path.len() && last < *FARTHEST.end() {
            (last + 1..=last + STEP).collect()
        } else {
            let tried = path.iter().zip(nll).map(|((penalty, _), nll)| (penalty.lambda(), nll)).collect();
            let (penalty, held_out) = path.swap_remove(best);
            return Ok(Searched { penalty, held_out, tried });
        };
    }
}

/// What fits with one penalty say of the photos that they have not learned from, in the order of [`InnerFolds::photos`].
///
/// # Errors
/// A [`FitError`], and those of `progress`, which is called with the number of fits that are done.
pub fn predict_held_out<E: From<FitError>>(
    examples: &Examples,
    folds: &InnerFolds,
    penalty: Penalty,
    threads: usize,
    progress: &mut impl FnMut(u64) -> Result<(), E>,
) -> Result<Logits, E> {
    let mut one = out_of_fold(examples, folds, &[penalty], threads, progress)?;
    Ok(one.pop().expect("there is one for each penalty").1)
}

/// The place of the largest penalty that is as good as the best.
pub(super) fn best_of(nll: &[f64]) -> usize {
    let lowest = nll.iter().copied().fold(f64::INFINITY, f64::min);
    nll.iter().rposition(|nll| *nll <= lowest + AS_GOOD).expect("penalties were tried")
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
    wanted: &[Penalty],
    threads: usize,
    progress: &mut impl FnMut(u64) -> Result<(), E>,
) -> Result<Vec<(Penalty, Logits)>, E> {
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
    wanted: &[Penalty],
    stop: &AtomicBool,
    tell: &Sender<Told>,
) -> Result<Vec<Logits>, FitError> {
    let problem = Problem::new(examples, &folds.train[fold])?;
    let held_out = &folds.held_out[fold];
    let (mut all, mut solution) = (Vec::with_capacity(wanted.len()), None);
    for penalty in wanted.iter().rev() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let solved = problem.solve(penalty.lambda(), solution.as_ref())?;
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
