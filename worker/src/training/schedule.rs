//! Learning rate and momentum of every step: one-cycle, and fastai's `fine_tune` made of two of them.

use std::f64::consts::PI;

use crate::randomness::Phase;

/// Cosine piece from `start` to `end` at `position` in [0, 1].
#[must_use]
pub fn cosine(start: f64, end: f64, position: f64) -> f64 {
    start + (end - start) * (1.0 - (PI * position).cos()) / 2.0
}

/// Momentum at the start, at the peak of the learning rate, and at the end.
const MOMENTUM: (f64, f64) = (0.95, 0.85);

/// One cycle: warm up over `warmup` of the way, then anneal. Momentum does the opposite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    /// Fraction of all steps before the peak, in (0, 1).
    pub warmup: f64,
    /// The cycle starts at the peak divided by this.
    pub div: f64,
    /// The cycle ends at the peak divided by this.
    pub div_final: f64,
}

impl OneCycle {
    /// The learning rate at `position` in [0, 1) for a peak of `peak`.
    #[must_use]
    pub fn learning_rate(&self, peak: f64, position: f64) -> f64 {
        self.piecewise(peak / self.div, peak, peak / self.div_final, position)
    }

    /// The momentum at `position` in [0, 1).
    #[must_use]
    pub fn momentum(&self, position: f64) -> f64 {
        self.piecewise(MOMENTUM.0, MOMENTUM.1, MOMENTUM.0, position)
    }

    fn piecewise(&self, start: f64, middle: f64, end: f64, position: f64) -> f64 {
        if position < self.warmup {
            cosine(start, middle, position / self.warmup)
        } else {
            cosine(middle, end, (position - self.warmup) / (1.0 - self.warmup))
        }
    }
}

/// The numbers for the optimiser in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRates {
    /// One learning rate for each parameter group; the head's is the last.
    pub learning_rates: Vec<f64>,
    /// Adam's beta1.
    pub momentum: f64,
}

/// One phase of `fine_tune`: a cycle over `epochs * batches` steps with a peak for each group.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseSchedule {
    /// Which phase.
    pub phase: Phase,
    /// Epochs in it.
    pub epochs: u32,
    /// Steps an epoch.
    pub batches: usize,
    cycle: OneCycle,
    peaks: Vec<f64>,
}

impl PhaseSchedule {
    /// Steps in the phase.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.epochs as usize * self.batches
    }

    /// The rates before batch `batch` of epoch `epoch`, both from 0.
    #[must_use]
    pub fn rates(&self, epoch: u32, batch: usize) -> StepRates {
        let position = f64::from(epoch) / f64::from(self.epochs) + batch as f64 / self.steps() as f64;
        StepRates {
            learning_rates: self.peaks.iter().map(|&peak| self.cycle.learning_rate(peak, position)).collect(),
            momentum: self.cycle.momentum(position),
        }
    }
}

/// What `fine_tune` takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FineTune {
    /// Epochs with everything trained.
    pub epochs: u32,
    /// Epochs before, with the body frozen.
    pub freeze_epochs: u32,
    /// The head's peak learning rate while frozen; half of it afterwards.
    pub base_learning_rate: f64,
    /// How much slower than the head the first group trains once unfrozen.
    pub learning_rate_divisor: f64,
    /// Warm-up of the unfrozen cycle.
    pub warmup: f64,
    /// The unfrozen cycle starts at its peak divided by this.
    pub div: f64,
}

const DIV_FINAL: f64 = 1e5;

impl FineTune {
    /// The phases in order; phases without epochs are left out.
    #[must_use]
    pub fn phases(&self, groups: usize, batches: usize) -> Vec<PhaseSchedule> {
        let base = self.base_learning_rate;
        let mut frozen_peaks = vec![base / 10.0; groups];
        frozen_peaks[groups - 1] = base;
        let frozen = PhaseSchedule {
            phase: Phase::Frozen,
            epochs: self.freeze_epochs,
            batches,
            cycle: OneCycle { warmup: 0.99, div: 25.0, div_final: DIV_FINAL },
            peaks: frozen_peaks,
        };
        let unfrozen = PhaseSchedule {
            phase: Phase::Unfrozen,
            epochs: self.epochs,
            batches,
            cycle: OneCycle { warmup: self.warmup, div: self.div, div_final: DIV_FINAL },
            peaks: geometric(base / 2.0 / self.learning_rate_divisor, base / 2.0, groups),
        };
        [frozen, unfrozen].into_iter().filter(|phase| phase.epochs > 0).collect()
    }
}

/// `count` values from `first` to `last` with a constant ratio.
fn geometric(first: f64, last: f64, count: usize) -> Vec<f64> {
    let ratio = (last / first).powf(1.0 / (count.max(2) - 1) as f64);
    (0..count).map(|i| if i + 1 == count { last } else { first * ratio.powi(i as i32) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_rises_to_its_peak_and_falls_almost_to_zero_while_momentum_dips() {
        let cycle = OneCycle { warmup: 0.25, div: 25.0, div_final: 1e5 };
        assert!((cycle.learning_rate(1.0, 0.0) - 0.04).abs() < 1e-12);
        assert!((cycle.learning_rate(1.0, 0.25) - 1.0).abs() < 1e-12);
        assert!((cycle.learning_rate(1.0, 1.0) - 1e-5).abs() < 1e-12);
        assert!((cycle.momentum(0.25) - 0.85).abs() < 1e-12);
        assert!((cycle.momentum(1.0) - 0.95).abs() < 1e-12);
    }

    #[test]
    fn two_groups_train_at_a_hundredth_and_at_the_full_rate_once_unfrozen() {
        let tuning = FineTune {
            epochs: 5,
            freeze_epochs: 1,
            base_learning_rate: 2e-3,
            learning_rate_divisor: 100.0,
            warmup: 0.3,
            div: 5.0,
        };
        let phases = tuning.phases(2, 10);
        assert_eq!(phases[0].peaks, [2e-4, 2e-3]);
        assert!((phases[1].peaks[0] - 1e-5).abs() < 1e-18 && phases[1].peaks[1] == 1e-3);
        let no_freezing = FineTune { freeze_epochs: 0, ..tuning };
        assert_eq!(no_freezing.phases(3, 10).len(), 1);
    }
}
