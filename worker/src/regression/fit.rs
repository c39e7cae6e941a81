//! Fits the regression: the mean cross entropy plus a penalty on the weights, minimised to a gradient of 1e-8.
//!
//! Features are first turned so that their covariance is diagonal, and each direction is scaled by about the curvature that the
//! objective has along it. The descent then needs some tens of gradients, whatever the penalty, instead of hundreds or thousands.

use tch::{Kind, TchError, Tensor};

use super::{descent::minimise, features::Examples};
use crate::models::features::{centred, direction};

/// No component of the gradient, along the principal directions of the features, is larger than this at the minimum.
const GRADIENT: f64 = 1e-8;
/// The most gradients of one fit. Some tens are enough.
const MAX_GRADIENTS: usize = 3_000;
/// Directions with less than this share of the largest variance are left out: rounding made them.
const NO_VARIANCE: f64 = 1e-12;

/// A regression could not be fitted.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// libtorch failed, most likely for want of memory.
    #[error("failed to fit the regression: {0}")]
    Tch(#[from] TchError),
    /// The descent did not reach the minimum.
    #[error("the regression with lambda {lambda:e} did not converge in {gradients} gradients")]
    NoMinimum {
        /// The factor of the penalty.
        lambda: f64,
        /// How many gradients were computed.
        gradients: usize,
    },
}

/// A regression that was fitted, on features that are centred at its mean. All tensors are f64 on the host.
#[derive(Debug)]
pub struct Regression {
    /// `[features]`: the mean of the directions of the features.
    pub mean: Tensor,
    /// `[classes, features]`.
    pub weight: Tensor,
    /// `[classes]`.
    pub bias: Tensor,
}

impl Regression {
    /// Logits `[photos, classes]` f64 of photos with these pooled features `[photos, features]`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn logits(&self, pooled: &Tensor) -> Result<Tensor, TchError> {
        centred(&direction(pooled)?, &self.mean)?.f_linear(&self.weight, Some(&self.bias))
    }
}

/// The fit of a regression on some photos, ready to be solved for any penalty.
pub(super) struct Problem {
    mean: Tensor,
    /// `[features, directions]`: the orthonormal directions in which the features vary.
    basis: Tensor,
    /// `[rows, directions]`: the centred features in these directions.
    rows: Tensor,
    /// `[directions]`: the mean square of each column of `rows`.
    spread: Tensor,
    /// `[rows]`.
    labels: Tensor,
    /// `[rows, 1]`: the share of each row in the mean cross entropy; `None` if all have the same.
    shares: Option<Tensor>,
    classes: i64,
}

/// Weights and bias in the directions of a [`Problem`].
pub(super) struct Solution {
    /// `[directions, classes]`.
    weight: Tensor,
    /// `[classes]`.
    bias: Tensor,
}

impl Problem {
    pub(super) fn new(examples: &Examples, photos: &[usize]) -> Result<Self, FitError> {
        let directions = direction(&examples.features.rows(photos)?)?;
        let mean = directions.f_mean_dim(0_i64, false, Kind::Double)?;
        let features = centred(&directions, &mean)?;
        let (basis, spread) = principal_directions(&features)?;
        let labels = examples.labels_of_rows(photos).into_iter().map(to_i64).collect::<Vec<_>>();
        Ok(Self {
            mean,
            rows: features.f_matmul(&basis)?,
            basis,
            spread,
            labels: Tensor::f_from_slice(&labels)?,
            shares: examples.shares_of_rows(photos)?,
            classes: to_i64(examples.classes),
        })
    }

    /// Minimises the objective from `start`, the solution for a similar penalty, or from zero.
    pub(super) fn solve(&self, lambda: f64, start: Option<&Solution>) -> Result<Solution, FitError> {
        let scaled = Scaled::new(self, lambda)?;
        let start = match start {
            Some(solution) => scaled.point(solution)?,
            None => vec![0.0; scaled.len()],
        };
        let descent = minimise(start, MAX_GRADIENTS, |slope| scaled.is_small(slope), |point| scaled.gradient(point))?;
        if !descent.arrived {
            return Err(FitError::NoMinimum { lambda, gradients: descent.gradients });
        }
        Ok(scaled.solution(&descent.point)?)
    }

    /// The solution as a regression on features.
    pub(super) fn regression(&self, solution: &Solution) -> Result<Regression, FitError> {
        Ok(Regression {
            mean: self.mean.shallow_clone(),
            weight: self.basis.f_matmul(&solution.weight)?.f_tr()?.f_contiguous()?,
            bias: solution.bias.shallow_clone(),
        })
    }
}

/// The orthonormal directions `[features, directions]` in which the rows `[rows, features]` vary, and the mean square along each.
fn principal_directions(rows: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let (count, features) = rows.size2()?;
    if count >= features {
        let covariance = rows.f_tr()?.f_matmul(rows)?.f_div_scalar(count as f64)?;
        let (spread, basis) = covariance.f_linalg_eigh("L")?;
        return Ok((basis, spread.f_clamp_min(0.0)?));
    }
    // With fewer rows than features, the rows span all directions that matter, and the products of the rows give them sooner.
    let products = rows.f_matmul(&rows.f_tr()?)?.f_div_scalar(count as f64)?;
    let (spread, combinations) = products.f_linalg_eigh("L")?;
    let least = spread.f_max()?.f_double_value(&[])? * NO_VARIANCE;
    let kept = spread.f_gt(least)?.f_nonzero()?.f_view([-1])?;
    let (spread, combinations) = (spread.f_index_select(0, &kept)?, combinations.f_index_select(1, &kept)?);
    let lengths = spread.f_mul_scalar(count as f64)?.f_sqrt()?;
    Ok((rows.f_tr()?.f_matmul(&combinations)?.f_div(&lengths)?, spread))
}

/// A problem with one penalty, in coordinates in which the objective is about as curved in every direction.
struct Scaled<'a> {
    problem: &'a Problem,
    lambda: f64,
    /// `[rows, directions]`.
    rows: Tensor,
    /// `[directions, 1]`: what a coordinate is multiplied by to give a weight.
    scale: Tensor,
    /// The same for the bias.
    bias_scale: f64,
    /// The values of `scale`.
    scales: Vec<f64>,
}

impl<'a> Scaled<'a> {
    fn new(problem: &'a Problem, lambda: f64) -> Result<Self, FitError> {
        // The curvature of the cross entropy where all classes are equally probable.
        let classes = problem.classes as f64;
        let curvature = (1.0 - 1.0 / classes) / classes;
        let scale = problem.spread.f_mul_scalar(curvature)?.f_add_scalar(lambda)?.f_rsqrt()?;
        Ok(Self {
            problem,
            lambda,
            rows: problem.rows.f_mul(&scale)?,
            scales: Vec::<f64>::try_from(&scale)?,
            scale: scale.f_view([-1, 1])?,
            bias_scale: curvature.sqrt().recip(),
        })
    }

    fn len(&self) -> usize {
        (self.scales.len() + 1) * self.classes()
    }

    fn classes(&self) -> usize {
        usize::try_from(self.problem.classes).expect("a number of classes is not negative")
    }

    /// Weights `[directions, classes]` and bias `[classes]`, both still scaled, of a point.
    fn parts(&self, point: &[f64]) -> Result<(Tensor, Tensor), TchError> {
        let (weights, bias) = point.split_at(self.scales.len() * self.classes());
        Ok((Tensor::f_from_slice(weights)?.f_view([-1, self.problem.classes])?, Tensor::f_from_slice(bias)?))
    }

    fn point(&self, solution: &Solution) -> Result<Vec<f64>, TchError> {
        let weights = solution.weight.f_div(&self.scale)?.f_flatten(0, -1)?;
        let bias = solution.bias.f_div_scalar(self.bias_scale)?;
        Vec::try_from(Tensor::f_cat(&[weights, bias], 0)?)
    }

    fn solution(&self, point: &[f64]) -> Result<Solution, TchError> {
        let (weight, bias) = self.parts(point)?;
        Ok(Solution { weight: weight.f_mul(&self.scale)?, bias: bias.f_mul_scalar(self.bias_scale)? })
    }

    /// The gradient with respect to the coordinates.
    fn gradient(&self, point: &[f64]) -> Result<Vec<f64>, FitError> {
        let (weight, bias) = self.parts(point)?;
        let logits = self.rows.f_matmul(&weight)?.f_add(&bias.f_mul_scalar(self.bias_scale)?)?;
        let errors = errors(&logits, &self.problem.labels, self.problem.shares.as_ref())?;
        let penalty = weight.f_mul(&self.scale.f_square()?)?.f_mul_scalar(self.lambda)?;
        let weight = self.rows.f_tr()?.f_matmul(&errors)?.f_add(&penalty)?.f_flatten(0, -1)?;
        let bias = errors.f_sum_dim_intlist(0_i64, false, Kind::Double)?.f_mul_scalar(self.bias_scale)?;
        Ok(Vec::try_from(Tensor::f_cat(&[weight, bias], 0)?)?)
    }

    /// Whether the gradient with respect to weights and bias is as small as it must be.
    fn is_small(&self, slope: &[f64]) -> bool {
        let scales = self.scales.iter().copied().chain([self.bias_scale]);
        let mut parts = slope.chunks_exact(self.classes()).zip(scales);
        parts.all(|(part, scale)| part.iter().all(|slope| slope.abs() <= GRADIENT * scale))
    }
}

/// How the mean cross entropy changes with each logit: `[rows, classes]`.
fn errors(logits: &Tensor, labels: &Tensor, shares: Option<&Tensor>) -> Result<Tensor, TchError> {
    let (rows, _) = logits.size2()?;
    let labels = labels.f_view([-1, 1])?;
    let one = Tensor::f_full([rows, 1], -1.0, (Kind::Double, logits.device()))?;
    let errors = logits.f_softmax(-1, Kind::Double)?.f_scatter_add(1, &labels, &one)?;
    match shares {
        None => errors.f_div_scalar(rows as f64),
        Some(shares) => errors.f_mul(shares),
    }
}

fn to_i64(number: usize) -> i64 {
    i64::try_from(number).expect("numbers of things in memory fit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Reduction;

    use crate::{models::formula::uniform, regression::features::Features};
    use sortinghat_proto::Digest;

    /// Photos with random features, and classes that depend on them.
    fn examples(photos: usize, width: usize, views: usize) -> Examples {
        tch::manual_seed(7);
        let features: Vec<Vec<f32>> = (0..views)
            .map(|_| Vec::try_from(Tensor::rand([(photos * width) as i64], (Kind::Float, tch::Device::Cpu))).unwrap())
            .collect();
        let labels = (0..photos).map(|photo| usize::from(features[0][photo * width] > 0.4) + photo % 2).collect();
        Examples {
            features: Features::new(features, width),
            labels,
            classes: 3,
            groups: (0..photos).collect(),
            digests: (0..photos).map(|photo| Digest::of(&photo.to_le_bytes())).collect(),
            weights: None,
        }
    }

    #[test]
    fn the_minimum_is_the_one_that_newtons_method_finds() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/regression.json")).expect("JSON");
        for case in golden.as_array().expect("cases") {
            let number = |name: &str| case[name].as_u64().expect("a number") as usize;
            let (photos, width, views) = (number("photos"), number("features"), number("views"));
            let pooled =
                Vec::<f64>::try_from(uniform(&format!("pooled {views}"), &[(views * photos * width) as i64]).abs());
            let pooled: Vec<f32> = pooled.expect("a vector").into_iter().map(|value| value as f32).collect();
            let of_view = pooled.chunks(photos * width).map(<[f32]>::to_vec).collect();
            let labels =
                case["labels"].as_array().expect("labels").iter().map(|label| label.as_u64().expect("an index"));
            let examples = Examples {
                features: Features::new(of_view, width),
                labels: labels.map(|label| label as usize).collect(),
                classes: number("classes"),
                groups: (0..photos).collect(),
                digests: (0..photos).map(|photo| Digest::of(&photo.to_le_bytes())).collect(),
                weights: case["weighted"]
                    .as_bool()
                    .map(|_| Vec::try_from(uniform("weights", &[photos as i64]).abs()).expect("a vector")),
            };
            let problem = Problem::new(&examples, &(0..photos).collect::<Vec<_>>()).expect("small");
            let solution = problem.solve(case["lambda"].as_f64().expect("a number"), None).expect("a minimum");
            let found = problem.regression(&solution).expect("small");
            assert_near("mean", &found.mean, &case["mean"]);
            assert_near("weight", &found.weight, &case["weight"]);
            assert_near("bias", &(&found.bias - found.bias.mean(Kind::Double)), &case["bias"]);
        }
    }

    fn assert_near(what: &str, found: &Tensor, golden: &serde_json::Value) {
        let flat = golden.as_array().expect("values").iter().flat_map(|row| match row {
            serde_json::Value::Array(row) => row.clone(),
            value => vec![value.clone()],
        });
        let golden: Vec<f64> = flat.map(|value| value.as_f64().expect("a number")).collect();
        let off = (found.flatten(0, -1) - Tensor::from_slice(&golden)).abs().max().double_value(&[]);
        assert!(off < 1e-4, "{what} is off by {off:e}");
    }

    /// The objective and its gradient by the weight, computed plainly from the features.
    fn plain(examples: &Examples, regression: &Regression, lambda: f64) -> (f64, f64) {
        let photos: Vec<usize> = (0..examples.labels.len()).collect();
        let pooled = examples.features.rows(&photos).unwrap();
        let labels: Vec<i64> = examples.labels_of_rows(&photos).into_iter().map(to_i64).collect();
        let weight = regression.weight.copy().set_requires_grad(true);
        let bias = regression.bias.copy().set_requires_grad(true);
        let moved =
            Regression { mean: regression.mean.copy(), weight: weight.shallow_clone(), bias: bias.shallow_clone() };
        let loss = moved.logits(&pooled).unwrap().cross_entropy_loss(
            &Tensor::from_slice(&labels),
            None::<&Tensor>,
            Reduction::Mean,
            -100,
            0.0,
        );
        let objective = loss + weight.square().sum(Kind::Double) * (lambda / 2.0);
        objective.backward();
        let largest = weight.grad().abs().max().maximum(&bias.grad().abs().max()).double_value(&[]);
        (objective.double_value(&[]), largest)
    }

    #[test]
    fn the_gradient_vanishes_at_the_solution_with_more_and_with_fewer_rows_than_features() {
        for (photos, width, views) in [(200, 30, 1), (20, 60, 2), (45, 30, 2)] {
            let examples = examples(photos, width, views);
            let problem = Problem::new(&examples, &(0..photos).collect::<Vec<_>>()).unwrap();
            let mut warm: Option<Solution> = None;
            for lambda in [1e-1, 1e-3, 1e-6] {
                let solution = problem.solve(lambda, warm.as_ref()).unwrap();
                let regression = problem.regression(&solution).unwrap();
                let (objective, slope) = plain(&examples, &regression, lambda);
                assert!(slope <= 3e-8, "{photos} photos, lambda {lambda:e}: gradient {slope:e}");
                let cold = problem.regression(&problem.solve(lambda, None).unwrap()).unwrap();
                assert!((plain(&examples, &cold, lambda).0 - objective).abs() < 1e-10);
                warm = Some(solution);
            }
        }
    }
}
