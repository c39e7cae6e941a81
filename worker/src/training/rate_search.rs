//! fastai's learning-rate finder: it trains a little at rising rates, looks where the loss falls, and undoes the training.

use sortinghat_proto::manifest::RateSearch;
use tch::{TchError, Tensor, no_grad};

use super::loss::SmoothLoss;
use super::optimiser::zero_gradients;
use super::progress::{Flow, Observer};
use super::schedule::StepRates;
use super::source::{PhotoSource, Set, SourceError};
use super::trainer::{Moment, TrainError, Trainer};
use crate::randomness::Phase;

/// Steps of a search.
pub const STEPS: usize = 100;
/// The rates of the first step and of the one after the last.
const RATES: (f64, f64) = (1e-7, 10.0);
/// The search ends when the averaged loss is this many times the best one.
const DIVERGED: f64 = 4.0;
/// fastai's finder leaves Adam's momentum at its default.
const MOMENTUM: f64 = 0.9;
/// Points at the start and at the end of a curve that no suggestion looks at.
const MARGINS: (usize, usize) = (STEPS / 10, 5);

/// The learning rate of step `step`, from 0.
fn rate(step: usize) -> f64 {
    RATES.0 * (RATES.1 / RATES.0).powf(step as f64 / STEPS as f64)
}

/// What was measured while the rate rose.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// The rate of each step.
    pub learning_rates: Vec<f64>,
    /// The averaged loss after it, finite.
    pub losses: Vec<f64>,
    /// Whether the loss became NaN or infinite after the last of these steps.
    pub broke: bool,
}

impl Curve {
    /// What fastai's four methods suggest; `None` if the curve is too short to tell.
    #[must_use]
    pub fn suggest(self) -> Option<RateSearch> {
        let counted = self.learning_rates.len();
        // fastai goes on after a NaN and cuts the curve there, so that the margin cuts nothing off what is left.
        let end = if self.broke { counted.min(STEPS - MARGINS.1) } else { counted.saturating_sub(MARGINS.1) };
        let rates = self.learning_rates.get(MARGINS.0..end).filter(|rates| rates.len() > 1)?;
        let losses = &self.losses[MARGINS.0..end];
        let (valley, minimum, steep, slide) =
            (valley(losses), least(losses.iter().copied()), steep(rates, losses), slide(losses));
        let (valley, minimum) = (rates[valley], rates[minimum] / 10.0);
        let (steep, slide) = (rates[steep], rates[slide]);
        Some(RateSearch { valley, minimum, steep, slide, learning_rates: self.learning_rates, losses: self.losses })
    }
}

/// fastai's `valley`: halfway down the longest falling subsequence, whose end is the first at which one of that length ends.
fn valley(losses: &[f64]) -> usize {
    let mut lengths = vec![1_usize; losses.len()];
    for end in 1..losses.len() {
        let before = (0..end).filter(|&start| losses[end] < losses[start]).map(|start| lengths[start]).max();
        lengths[end] = before.unwrap_or(0) + 1;
    }
    let length = lengths.iter().copied().max().unwrap_or(1);
    let end = lengths.iter().position(|&other| other == length).unwrap_or(0);
    // fastai's start of the valley is one before its first element at the earliest. It stays at 0 where nothing falls, and
    // would wrap around to the highest rate where only the first two fall.
    if length == 1 { 0 } else { (end + length / 3 + length / 6).saturating_sub(length) }
}

/// fastai's `steep`: where the loss falls most for a factor in the rate.
fn steep(rates: &[f64], losses: &[f64]) -> usize {
    let slope = |i: usize| (losses[i + 1] - losses[i]) / (rates[i + 1].ln() - rates[i].ln());
    least((0..losses.len() - 1).map(slope))
}

/// fastai's `slide`: two points this far apart move left from the end until the slope is the same at both.
fn slide(losses: &[f64]) -> usize {
    const APART: usize = 15;
    const SAME: f64 = 0.005;
    let last = losses.len() - 1;
    let slope = |i: usize| match i {
        0 => losses[1] - losses[0],
        i if i == last => losses[last] - losses[last - 1],
        i => (losses[i + 1] - losses[i - 1]) / 2.0,
    };
    let Some(first) = last.checked_sub(APART) else { return 0 };
    let moved = (0..=first).rev().take_while(|&left| (slope(left + APART) - slope(left)).abs() > SAME);
    moved.last().unwrap_or(first)
}

/// Index of the least value, the first among equals.
fn least(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
}

impl Trainer {
    /// Searches with the body frozen. Then restores the model and the optimiser, and plans the run with the rate that was found.
    pub(super) fn search_rate(
        &mut self,
        source: &dyn PhotoSource,
        observer: &mut dyn Observer,
    ) -> Result<Flow, TrainError> {
        self.classifier.freeze();
        self.optimiser.clear();
        let before = self.copy_of_state().map_err(TrainError::Tch)?;
        let climbed = self.climb(source, observer);
        self.put_back(&before);
        let Some(curve) = climbed? else { return Ok(Flow::Stop) };
        let steps = curve.learning_rates.len();
        let found = curve.suggest().ok_or(TrainError::NoRate { steps })?;
        let flow = observer.rate_found(&found);
        self.use_search(Some(found));
        Ok(flow)
    }

    fn copy_of_state(&self) -> Result<Vec<Tensor>, TchError> {
        no_grad(|| self.classifier.state().map(|(_, tensor)| tensor.f_detach_copy()).collect())
    }

    fn put_back(&mut self, before: &[Tensor]) {
        no_grad(|| {
            for ((_, tensor), before) in self.classifier.state().zip(before) {
                tensor.shallow_clone().copy_(before);
            }
        });
        zero_gradients(self.classifier.parameters());
        self.optimiser.clear();
    }

    /// Trains at rising rates until the loss diverges; `None` if the observer asked to stop.
    fn climb(&mut self, source: &dyn PhotoSource, observer: &mut dyn Observer) -> Result<Option<Curve>, TrainError> {
        let (mut curve, mut smooth, mut best) = (Curve::default(), SmoothLoss::default(), f64::INFINITY);
        for epoch in 0.. {
            let indices = self.order(Phase::Search, epoch);
            let mut stream = source.batches(Set::Training, self.plan(Phase::Search, epoch, indices.clone()));
            for indices in indices {
                let step = curve.losses.len();
                if step == STEPS {
                    return Ok(Some(curve));
                }
                let pixels = stream.next().ok_or_else(|| SourceError("the batches ended early".to_owned()))??;
                let rates = StepRates { learning_rates: vec![rate(step); self.groups()], momentum: MOMENTUM };
                match self.step(Moment { phase: Phase::Search, epoch, step }, &rates, &pixels, &indices, observer) {
                    Ok(loss) => smooth.add(loss),
                    Err(TrainError::NotANumber { .. }) => return Ok(Some(Curve { broke: true, ..curve })),
                    Err(error) => return Err(error),
                }
                curve.learning_rates.push(rate(step));
                curve.losses.push(smooth.value());
                best = best.min(smooth.value());
                if smooth.value() > DIVERGED * best {
                    return Ok(Some(curve));
                }
                if observer.searching(step + 1, STEPS) == Flow::Stop {
                    return Ok(None);
                }
            }
        }
        unreachable!("every epoch has a batch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: Vec<f64>) -> Curve {
        Curve { learning_rates: (0..losses.len()).map(rate).collect(), losses, broke: false }
    }

    #[test]
    fn rates_rise_evenly_and_never_reach_the_end() {
        assert_eq!(rate(0), 1e-7);
        assert!((rate(50) / 1e-3 - 1.0).abs() < 1e-12 && rate(99) < 10.0);
    }

    #[test]
    fn a_curve_that_only_falls_has_its_valley_two_fifths_along() {
        let falling = curve((0..STEPS).map(|step| 2.0 - step as f64 / 100.0).collect()).suggest().expect("long enough");
        // 85 losses: from -1, a third and a sixth further.
        assert_eq!(falling.valley, rate(10 - 1 + 28 + 14));
    }

    #[test]
    fn a_curve_that_never_falls_suggests_its_start_and_a_short_one_nothing() {
        let rising = curve((0..STEPS).map(|step| 1.0 + step as f64).collect()).suggest().expect("long enough");
        assert_eq!(rising.valley, rate(10));
        assert_eq!(curve(vec![1.0; 16]).suggest(), None);
        assert!(Curve { broke: true, ..curve(vec![1.0; 16]) }.suggest().is_some());
    }
}
