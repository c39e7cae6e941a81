//! Learns to tell photos that resemble none of the classes, from the photos of the classes alone.
//!
//! Energy (Liu et al. 2020) falls where no class is sure of a photo, and the Mahalanobis distance (Lee et al. 2018) grows where a photo
//! is far from all that was learned from. Both are standardised by photos that an inner fold held out, and summed.

use std::{collections::BTreeSet, thread};

use sortinghat_proto::manifest::{Spread, UnlikeScale};
use tch::{Kind, TchError, Tensor};

use super::{
    calibration::Logits,
    features::Examples,
    fit::{FitError, Regression},
    folds::InnerFolds,
    penalties::logits,
};
use crate::models::{
    Distance,
    features::{centred, direction},
    unlike::{joined, score},
};

/// The share of the photos that were learned from which resemble a class by definition.
const KEPT: f64 = 0.95;
/// Added to each variance, so that features that never vary have a distance at all.
const LEAST_VARIANCE: f64 = 1e-8;

/// Tells which photos resemble none of the classes. Tensors are f64 on the host.
#[derive(Debug)]
pub struct Unlike {
    /// The photos that were learned from.
    pub distance: Distance,
    /// What energies and distances are compared with.
    pub scale: UnlikeScale,
}

impl Unlike {
    /// Fits on `train`. What is usual of photos that were not learned from is taken from those that the folds held out, of which
    /// `held_out` are the logits, fold by fold.
    pub(super) fn fit(
        examples: &Examples,
        train: &[usize],
        folds: &InnerFolds,
        held_out: &Logits,
        threads: usize,
    ) -> Result<Self, FitError> {
        let distances = out_of_fold(examples, folds, threads)?;
        let energies = held_out.energies();
        let spreads = (Spread::of(&energies), Spread::of(&distances));
        let mut scale = UnlikeScale { energy: spreads.0, distance: spreads.1, threshold: 0.0 };
        let unlike = score(&scale, &Tensor::f_from_slice(&energies)?, &Tensor::f_from_slice(&distances)?)?;
        scale.threshold = -quantile(Vec::try_from(unlike)?, KEPT);
        Ok(Self { distance: Seen::of(examples, train)?.distance, scale })
    }

    /// How unlike these photos are to `regression`, which was fitted on the same photos: above 0 if they resemble no class.
    pub(super) fn scores(
        &self,
        examples: &Examples,
        regression: &Regression,
        photos: &[usize],
    ) -> Result<Vec<f64>, FitError> {
        let energies = logits(examples, regression, photos)?.energies();
        let distances = self.distance.nearest(&vectors(examples, photos, &regression.mean)?)?;
        Ok(Vec::try_from(score(&self.scale, &Tensor::f_from_slice(&energies)?, &distances)?)?)
    }
}

/// The distances of the photos that the folds hold out, fold by fold. Each fold has a thread of its own, `threads` at the same time.
fn out_of_fold(examples: &Examples, folds: &InnerFolds, threads: usize) -> Result<Vec<f64>, FitError> {
    let of_fold = |train: &[usize], held_out: &[usize]| {
        tch::set_num_threads(1);
        let seen = Seen::of(examples, train)?;
        Ok::<_, FitError>(Vec::<f64>::try_from(seen.distance.nearest(&vectors(examples, held_out, &seen.mean)?)?)?)
    };
    let pairs: Vec<_> = folds.train.iter().zip(&folds.held_out).collect();
    let mut all = Vec::new();
    for some in pairs.chunks(threads.max(1)) {
        let made = thread::scope(|scope| {
            let started: Vec<_> =
                some.iter().map(|(train, held_out)| scope.spawn(|| of_fold(train, held_out))).collect();
            let ended = started.into_iter().map(|thread| thread.join().expect("a fit does not panic"));
            ended.collect::<Result<Vec<_>, _>>()
        });
        // The threads have set the number for the process in part, whether or not they have failed.
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        all.extend(made?.into_iter().flatten());
    }
    Ok(all)
}

/// Photos that were learned from.
struct Seen {
    /// `[features]`: the mean of their directions.
    mean: Tensor,
    distance: Distance,
}

impl Seen {
    fn of(examples: &Examples, photos: &[usize]) -> Result<Self, TchError> {
        let mean = direction(&examples.features.rows(photos)?)?.f_mean_dim(0_i64, false, Kind::Double)?;
        let vectors = vectors(examples, photos, &mean)?;
        // A class without photos is no class that a photo could resemble.
        let present: BTreeSet<usize> = photos.iter().map(|&photo| examples.labels[photo]).collect();
        let present: Vec<usize> = present.into_iter().collect();
        let place =
            |&photo: &usize| present.binary_search(&examples.labels[photo]).expect("its class is present") as i64;
        let labels = Tensor::f_from_slice(&photos.iter().map(place).collect::<Vec<_>>())?;
        let members = labels.f_one_hot(present.len() as i64)?.f_to_kind(Kind::Double)?;
        let counts = members.f_sum_dim_intlist(0_i64, false, Kind::Double)?.f_view([-1, 1])?;
        let means = members.f_tr()?.f_matmul(&vectors)?.f_div(&counts)?;
        let whitening = whitening(&vectors.f_sub(&means.f_index_select(0, &labels)?)?)?;
        Ok(Self { mean, distance: Distance { means: means.f_matmul(&whitening.f_tr()?)?, whitening } })
    }
}

/// What the views show of each photo together, `[photos, features]`.
fn vectors(examples: &Examples, photos: &[usize], mean: &Tensor) -> Result<Tensor, TchError> {
    let view = |view| centred(&direction(&examples.features.view(view, photos)?)?, mean);
    joined(&(0..examples.features.views()).map(view).collect::<Result<Vec<_>, _>>()?)
}

/// The inverse of the Cholesky factor of the rows' covariance, which is shrunk towards a multiple of the identity as far as Ledoit and
/// Wolf (2004) say. The columns of `rows` have a mean of 0.
fn whitening(rows: &Tensor) -> Result<Tensor, TchError> {
    let (count, features) = rows.size2()?;
    let (n, p) = (count as f64, features as f64);
    let empirical = rows.f_tr()?.f_matmul(rows)?.f_div_scalar(n)?;
    let sum = |tensor: Tensor| tensor.f_sum(Kind::Double)?.f_double_value(&[]);
    let variance = sum(empirical.f_diagonal(0, 0, 1)?)? / p;
    let squares = sum(empirical.f_square()?)?;
    let lengths = rows.f_square()?.f_sum_dim_intlist(1_i64, false, Kind::Double)?;
    let noise = (sum(lengths.f_square()?)? / n - squares) / (p * n);
    let spread = squares / p - variance * variance;
    let shrinkage = if spread > 0.0 { (noise / spread).clamp(0.0, 1.0) } else { 0.0 };
    let identity = Tensor::f_eye(features, (Kind::Double, rows.device()))?;
    let ridge = identity.f_mul_scalar(shrinkage * variance + LEAST_VARIANCE)?;
    let covariance = empirical.f_mul_scalar(1.0 - shrinkage)?.f_add(&ridge)?;
    covariance.f_linalg_cholesky(false)?.f_linalg_solve_triangular(&identity, false, true, false)
}

/// The value below which a share of the values lies, interpolated between two of them.
fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::Digest;

    use super::*;
    use crate::{
        models::formula::uniform,
        regression::{features::Features, fit::Problem},
    };

    /// The photos of a case of `gen_unlike.py`; those behind the first `photos` are of no class.
    fn examples(case: &serde_json::Value) -> Examples {
        let number = |name: &str| case[name].as_u64().expect("a number") as usize;
        let (photos, width, views, classes) =
            (number("photos"), number("features"), number("views"), number("classes"));
        let every = photos + number("strangers");
        let pooled = uniform(&format!("pooled {views}"), &[(views * every * width) as i64]).abs();
        let mut pooled: Vec<f32> = Vec::try_from(pooled.to_kind(Kind::Float)).expect("a vector");
        let labels: Vec<usize> = (0..every).map(|photo| photo % classes).collect();
        for row in (0..views * every).filter(|row| row % every < photos) {
            pooled[row * width + labels[row % every]] += 2.0;
        }
        Examples {
            features: Features::new(pooled.chunks(every * width).map(<[f32]>::to_vec).collect(), width),
            labels,
            classes,
            groups: (0..every).collect(),
            digests: (0..every).map(|photo| Digest::of(&photo.to_le_bytes())).collect(),
            weights: None,
        }
    }

    fn fitted(examples: &Examples, train: &[usize], lambda: f64) -> Regression {
        let problem = Problem::new(examples, train).expect("small");
        problem.regression(&problem.solve(lambda, None).expect("a minimum")).expect("small")
    }

    fn assert_near(what: &str, found: f64, golden: &serde_json::Value) {
        let golden = golden.as_f64().expect("a number");
        assert!((found - golden).abs() <= 1e-4 * golden.abs().max(1.0), "{what} is {found} and not {golden}");
    }

    #[test]
    fn energies_distances_and_the_threshold_are_those_of_the_formulas() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/unlike.json")).expect("JSON");
        for case in golden.as_array().expect("cases") {
            let examples = examples(case);
            let (photos, count) = (case["photos"].as_u64().unwrap() as usize, case["folds"].as_u64().unwrap() as usize);
            let (train, lambda) = ((0..photos).collect::<Vec<_>>(), case["lambda"].as_f64().unwrap());
            let part = |keep: fn(usize, usize) -> bool| {
                let of_fold = |fold| train.iter().copied().filter(|photo| keep(photo % count, fold)).collect();
                (0..count).map(of_fold).collect::<Vec<Vec<usize>>>()
            };
            let folds =
                InnerFolds { held_out: part(|a, b| a == b), train: part(|a, b| a != b), unscored_classes: vec![] };
            let mut held_out = Logits::new(examples.features.views(), examples.classes);
            for (train, photos) in folds.train.iter().zip(&folds.held_out) {
                held_out.append(&logits(&examples, &fitted(&examples, train, lambda), photos).expect("small"));
            }
            let fit = |threads| Unlike::fit(&examples, &train, &folds, &held_out, threads).expect("small");
            let unlike = fit(2);
            let scale = unlike.scale;
            assert_eq!(fit(1).scale, scale, "the number of threads changes no bit");
            for (what, found) in [("energy", scale.energy), ("distance", scale.distance)] {
                assert_near(what, found.mean, &case[what][0]);
                assert_near(what, found.deviation, &case[what][1]);
            }
            assert_near("threshold", scale.threshold, &case["threshold"]);
            let strangers: Vec<usize> = (photos..examples.labels.len()).collect();
            let regression = fitted(&examples, &train, lambda);
            let vectors = vectors(&examples, &strangers, &regression.mean).expect("small");
            let distances: Vec<f64> = Vec::try_from(unlike.distance.nearest(&vectors).expect("small")).expect("values");
            let scores = unlike.scores(&examples, &regression, &strangers).expect("small");
            for (place, (distance, score)) in distances.into_iter().zip(scores).enumerate() {
                assert_near("distance", distance, &case["distances"][place]);
                assert_near("score", score, &case["scores"][place]);
            }
        }
    }

    #[test]
    fn a_quantile_lies_between_two_values() {
        assert_eq!(quantile(vec![4.0, 0.0, 2.0], 0.75), 3.0);
        assert_eq!(quantile(vec![7.0], KEPT), 7.0);
    }

    #[test]
    fn features_that_never_vary_have_a_finite_distance() {
        let still = whitening(&Tensor::zeros([4, 3], (Kind::Double, tch::Device::Cpu))).expect("a factor");
        assert!((still.double_value(&[0, 0]) - 1e4).abs() < 1e-6);
    }
}
