//! Chooses the penalty and the temperature on inner folds of the photos to learn from, and fits the regression on all of them.

use super::{
    calibration::Logits,
    features::Examples,
    fit::{FitError, Problem, Regression},
    folds::InnerFolds,
    penalties::{Penalty, logits, search},
    unlike::Unlike,
};

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
    let Some(folds) = InnerFolds::deal(examples, train, policy.seed) else {
        return Ok(fit_without_choice(examples, train, policy.threads)?);
    };
    // One more fit, on all photos, follows.
    let found = search(examples, &folds, policy.threads, &mut |done, all| progress(done, all + 1))?;
    Ok(Choice { tried: found.tried, ..fit(examples, train, &folds, (found.penalty, &found.held_out), policy.threads)? })
}

/// Fits the regression on the photos `train` with a penalty that was chosen on `folds`. The temperature, and what tells photos that
/// resemble none of the classes, come from what the folds hold out.
///
/// # Errors
/// A [`FitError`].
pub fn fit(
    examples: &Examples,
    train: &[usize],
    folds: &InnerFolds,
    (penalty, held_out): (Penalty, &Logits),
    threads: usize,
) -> Result<Choice, FitError> {
    Ok(Choice {
        temperature: held_out.temperature(),
        folds: folds.count(),
        unlike: Some(Unlike::fit(examples, train, folds, held_out, threads)?),
        unscored_classes: folds.unscored_classes.clone(),
        ..fit_with(examples, train, penalty, threads)?
    })
}

/// Fits the regression on the photos `train`, which are too few to choose anything by.
///
/// # Errors
/// A [`FitError`].
pub fn fit_without_choice(examples: &Examples, train: &[usize], threads: usize) -> Result<Choice, FitError> {
    fit_with(examples, train, Penalty::OF_FEW, threads)
}

fn fit_with(examples: &Examples, train: &[usize], penalty: Penalty, threads: usize) -> Result<Choice, FitError> {
    let lambda = penalty.lambda();
    let regression = on_one_thread(threads, || {
        let problem = Problem::new(examples, train)?;
        problem.regression(&problem.solve(lambda, None)?)
    })?;
    Ok(Choice {
        regression,
        lambda,
        temperature: 1.0,
        folds: 0,
        tried: Vec::new(),
        unlike: None,
        unscored_classes: Vec::new(),
    })
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
    use crate::regression::{
        features::Features,
        penalties::{FARTHEST, best_of},
    };

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
        let groups = (0..labels.len()).collect();
        Examples { features, classes: per_class.len(), groups, digests, labels, weights: None }
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
            let (least, most) = (Penalty(*FARTHEST.start()).lambda(), Penalty(*FARTHEST.end()).lambda());
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
            assert_eq!((choice.folds, choice.lambda, choice.temperature), (0, 1e-3, 1.0), "{per_class:?}");
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
