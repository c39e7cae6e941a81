//! Minimises a smooth, strictly convex function by L-BFGS.
//!
//! The function is convex, so its derivative along a line only rises. The search along a line therefore looks at the derivative
//! alone. Near the minimum the values of the function differ by less than f64 can tell, and its gradients do not.

use std::collections::VecDeque;

/// How many pairs of steps and changes of the gradient are remembered.
const MEMORY: usize = 10;
/// A search along a line ends where the derivative has fallen to this share of what it was.
const SLOPE: f64 = 0.5;
/// The most gradients that one search along a line may take.
const MAX_TRIALS: usize = 40;

/// Where the descent ended.
#[derive(Debug, Clone)]
pub(super) struct Descent {
    /// The last point.
    pub(super) point: Vec<f64>,
    /// How many gradients were computed.
    pub(super) gradients: usize,
    /// Whether the gradient became as small as was asked.
    pub(super) arrived: bool,
}

/// Descends from `start` until `is_small` accepts the gradient, or until `max_gradients` have been computed.
///
/// # Errors
/// Those of `gradient`.
pub(super) fn minimise<E>(
    start: Vec<f64>,
    max_gradients: usize,
    is_small: impl Fn(&[f64]) -> bool,
    mut gradient: impl FnMut(&[f64]) -> Result<Vec<f64>, E>,
) -> Result<Descent, E> {
    let mut point = start;
    let mut slope = gradient(&point)?;
    let mut gradients = 1;
    let mut memory = Memory::default();
    while !is_small(&slope) && gradients < max_gradients {
        let mut direction = memory.direction(&slope);
        if dot(&direction, &slope) >= 0.0 {
            // Rounding has spoiled the memory.
            memory = Memory::default();
            direction = memory.direction(&slope);
        }
        let along = dot(&direction, &slope);
        let mut trial = Trial::default();
        let (next, next_slope) = loop {
            let next: Vec<f64> = point.iter().zip(&direction).map(|(x, d)| x + trial.length * d).collect();
            let next_slope = gradient(&next)?;
            gradients += 1;
            let at = dot(&direction, &next_slope);
            if at.abs() <= SLOPE * along.abs() || !trial.narrow(along, at) {
                break (next, next_slope);
            }
        };
        memory.remember(&point, &next, &slope, &next_slope);
        (point, slope) = (next, next_slope);
    }
    Ok(Descent { arrived: is_small(&slope), point, gradients })
}

/// A search along a line for the place where the derivative is near 0.
struct Trial {
    /// The length that is tried.
    length: f64,
    /// The longest length at which the function still falls, with the derivative there.
    falling: Option<(f64, f64)>,
    /// The shortest length at which it rises.
    rising: Option<(f64, f64)>,
    trials: usize,
}

impl Default for Trial {
    fn default() -> Self {
        Self { length: 1.0, falling: None, rising: None, trials: 0 }
    }
}

impl Trial {
    /// Chooses the next length from the derivative `at` the present one; `start` is the derivative at 0. False if the search has taken
    /// long enough.
    fn narrow(&mut self, start: f64, at: f64) -> bool {
        self.trials += 1;
        if at < 0.0 {
            self.falling = Some((self.length, at));
        } else {
            self.rising = Some((self.length, at));
        }
        let (low, low_slope) = self.falling.unwrap_or((0.0, start));
        self.length = match self.rising {
            None => self.length * 4.0,
            Some((high, high_slope)) => {
                // Where a straight line through both derivatives is 0, but not too near to either end.
                let share = low_slope / (low_slope - high_slope);
                low + (high - low) * share.clamp(0.1, 0.9)
            }
        };
        self.trials < MAX_TRIALS && self.length.is_finite()
    }
}

/// The last steps, from which the curvature is known.
#[derive(Default)]
struct Memory {
    pairs: VecDeque<Pair>,
}

/// A step, how the gradient changed on it, and 1 over the product of both.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    rho: f64,
}

impl Memory {
    fn remember(&mut self, from: &[f64], to: &[f64], before: &[f64], after: &[f64]) {
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>();
        let (step, change) = (difference(to, from), difference(after, before));
        let product = dot(&step, &change);
        if product > f64::EPSILON * dot(&step, &step).sqrt() * dot(&change, &change).sqrt() {
            self.pairs.push_back(Pair { step, change, rho: 1.0 / product });
        }
        if self.pairs.len() > MEMORY {
            self.pairs.pop_front();
        }
    }

    /// The way down from a point with this gradient: the two-loop recursion of L-BFGS.
    fn direction(&self, gradient: &[f64]) -> Vec<f64> {
        let mut way: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::with_capacity(self.pairs.len());
        for pair in self.pairs.iter().rev() {
            let share = pair.rho * dot(&pair.step, &way);
            add(&mut way, -share, &pair.change);
            shares.push(share);
        }
        let scale = match self.pairs.back() {
            Some(Pair { change, rho, .. }) => 1.0 / (rho * dot(change, change)),
            // Nothing is known of the curvature: no step that is longer than 1.
            None => 1.0_f64.min(1.0 / dot(gradient, gradient).sqrt()),
        };
        way.iter_mut().for_each(|w| *w *= scale);
        for (pair, share) in self.pairs.iter().zip(shares.into_iter().rev()) {
            let correction = share - pair.rho * dot(&pair.change, &way);
            add(&mut way, correction, &pair.step);
        }
        way
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `target += factor * other`.
fn add(target: &mut [f64], factor: f64, other: &[f64]) {
    target.iter_mut().zip(other).for_each(|(target, other)| *target += factor * other);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn largest(gradient: &[f64]) -> f64 {
        gradient.iter().fold(0.0, |most, g| g.abs().max(most))
    }

    proptest! {
        #[test]
        fn the_lowest_point_of_a_stretched_bowl_is_found(
            curvatures in prop::collection::vec(-1.5..1.5_f64, 1..40),
            seed in -100.0..100.0_f64,
        ) {
            let lowest: Vec<f64> = (0..curvatures.len()).map(|i| (seed + i as f64).sin() * 10.0).collect();
            let gradient = |x: &[f64]| {
                let slope = |i: usize| 10_f64.powf(curvatures[i]) * (x[i] - lowest[i]);
                Ok::<_, Infallible>((0..x.len()).map(slope).collect())
            };
            let found = minimise(vec![0.0; lowest.len()], 5_000, |g| largest(g) < 1e-9, gradient).expect("infallible");
            prop_assert!(found.arrived);
            for (found, lowest) in found.point.iter().zip(&lowest) {
                prop_assert!((found - lowest).abs() < 1e-5);
            }
        }

        #[test]
        fn a_wall_beside_a_plain_is_no_trap(steepness in 0.1..3.0_f64, start in -10.0..10.0_f64) {
            // exp(s x) - x falls evenly on the left and rises like a wall on the right; its lowest point is at -ln(s) / s.
            let gradient = |x: &[f64]| Ok::<_, Infallible>(vec![steepness * (steepness * x[0]).exp() - 1.0]);
            let found = minimise(vec![start], 2_000, |g| largest(g) < 1e-10, gradient).expect("infallible");
            prop_assert!(found.arrived, "{found:?}");
            prop_assert!((found.point[0] + steepness.ln() / steepness).abs() < 1e-8);
        }
    }

    #[test]
    fn a_descent_that_may_not_go_on_says_that_it_has_not_arrived() {
        let gradient = |x: &[f64]| Ok::<_, Infallible>(vec![x[0] - 1e6, 1e6 * x[1]]);
        let found = minimise(vec![0.0, 1.0], 3, |g| largest(g) < 1e-12, gradient).expect("infallible");
        assert!(!found.arrived);
        assert!(found.gradients >= 3);
    }
}
