//! Every random number of a training run as a pure function of what it is for.
//!
//! A stream is named by (seed, purpose, phase, epoch or pass, photo digest, step or name). SHA-256 of that name, in a
//! fixed binary form, gives the stream's start and its odd increment; draw i is SplitMix64's finaliser of
//! `start + i * increment`. So thread count, worker, restart and the order of calls change nothing.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::Digest;

/// The part of `fine_tune` that a draw belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Only the head and the batch normalisations train.
    Frozen,
    /// Everything trains.
    Unfrozen,
    /// Test-time augmentation; its epochs are passes.
    TestTime,
    /// The search for a learning rate, before the others.
    Search,
}

/// What a draw is for. The numbers are part of the stored format: a run resumed by a newer program repeats them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The order of the training photos in an epoch.
    Order = 1,
    /// Where the square is cut from a photo.
    Crop = 2,
    /// Flip, rotation, zoom, warp and light of a photo.
    Augmentation = 3,
    /// The seed given to libtorch before a step's dropout.
    Dropout = 4,
    /// MixUp's and CutMix's partners, weights and boxes in a step.
    Mixing = 5,
    /// A weight's first value.
    Initialisation = 6,
}

/// One stream of draws.
#[derive(Debug, Clone)]
pub struct Draws {
    state: u64,
    increment: u64,
    spare_normal: Option<f64>,
}

impl Draws {
    /// The stream of one photo, named by the digest of its original, in an epoch or in a pass of test-time augmentation.
    #[must_use]
    pub fn photo(seed: u64, purpose: Purpose, phase: Phase, epoch: u32, digest: &Digest) -> Self {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digest.as_str(), &mut bytes).expect("a digest is 64 hexadecimal digits");
        Self::new(seed, purpose, phase as u8, epoch, &bytes)
    }

    /// The stream of one step (or, with step 0, of one whole epoch).
    #[must_use]
    pub fn step(seed: u64, purpose: Purpose, phase: Phase, epoch: u32, step: u64) -> Self {
        Self::new(seed, purpose, phase as u8, epoch, &step.to_le_bytes())
    }

    /// The stream of one named thing that belongs to no epoch.
    #[must_use]
    pub fn named(seed: u64, purpose: Purpose, name: &str) -> Self {
        Self::new(seed, purpose, u8::MAX, 0, name.as_bytes())
    }

    fn new(seed: u64, purpose: Purpose, phase: u8, epoch: u32, item: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"sortinghat.randomness.v1");
        hash.update(seed.to_le_bytes());
        hash.update([purpose as u8, phase]);
        hash.update(epoch.to_le_bytes());
        hash.update(item);
        let name = hash.finalize();
        let word = |at: usize| u64::from_le_bytes(name[at..at + 8].try_into().expect("eight bytes of thirty-two"));
        Self { state: word(0), increment: word(8) | 1, spare_normal: None }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(self.increment);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with probability `p`.
    pub fn happens(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Uniform in 0..bound, without bias (Lemire's method).
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "an empty range has no element");
        let bound = bound as u64;
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// Standard normal (Box and Muller; both values are used).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        // 1 - u lies in (0, 1]: the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (TAU * self.uniform()).sin_cos();
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// Beta(alpha, alpha), by Jöhnk's method in logarithms, which is exact for every alpha up to 1.
    ///
    /// # Panics
    /// When `alpha` is not in (0, 1]: there the method rejects too often or is undefined.
    pub fn symmetric_beta(&mut self, alpha: f64) -> f64 {
        assert!(alpha > 0.0 && alpha <= 1.0, "alpha {alpha} is not in (0, 1]");
        loop {
            let x = (1.0 - self.uniform()).ln() / alpha;
            let y = (1.0 - self.uniform()).ln() / alpha;
            let largest = x.max(y);
            let log_sum = largest + ((x - largest).exp() + (y - largest).exp()).ln();
            if log_sum <= 0.0 {
                return (x - log_sum).exp();
            }
        }
    }

    /// 0..count in a random order (Fisher and Yates).
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order = (0..count).collect::<Vec<_>>();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        hex::encode([byte; 32]).parse().unwrap()
    }

    fn sample(draws: &mut Draws, count: usize, draw: impl Fn(&mut Draws) -> f64) -> (f64, f64) {
        let values = (0..count).map(|_| draw(draws)).collect::<Vec<_>>();
        let mean = values.iter().sum::<f64>() / count as f64;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64)
    }

    #[test]
    fn streams_are_frozen_for_ever_so_that_a_newer_program_resumes_an_older_run() {
        let mut draws = Draws::photo(42, Purpose::Augmentation, Phase::Unfrozen, 3, &digest(7));
        assert_eq!([draws.bits(), draws.bits()], FROZEN_BITS);
    }

    /// Computed by a second implementation, in Python.
    const FROZEN_BITS: [u64; 2] = [0xde00_faf9_fa16_03e8, 0xbcb7_bac4_e1b7_967c];

    #[test]
    fn every_part_of_a_streams_name_changes_it() {
        let base = || Draws::photo(1, Purpose::Augmentation, Phase::Frozen, 0, &digest(7));
        let others = [
            Draws::photo(2, Purpose::Augmentation, Phase::Frozen, 0, &digest(7)),
            Draws::photo(1, Purpose::Crop, Phase::Frozen, 0, &digest(7)),
            Draws::photo(1, Purpose::Augmentation, Phase::Unfrozen, 0, &digest(7)),
            Draws::photo(1, Purpose::Augmentation, Phase::Frozen, 1, &digest(7)),
            Draws::photo(1, Purpose::Augmentation, Phase::Frozen, 0, &digest(8)),
        ];
        assert_eq!(base().bits(), base().bits());
        for mut other in others {
            assert_ne!(base().bits(), other.bits());
        }
    }

    #[test]
    fn distributions_have_their_mean_and_variance() {
        let mut draws = Draws::named(5, Purpose::Order, "moments");
        let close = |(mean, variance): (f64, f64), expected: (f64, f64)| {
            let near = (mean - expected.0).abs() < 0.01 && (variance - expected.1).abs() < 0.01;
            assert!(near, "{mean} {variance}, expected {expected:?}");
        };
        close(sample(&mut draws, 100_000, Draws::uniform), (0.5, 1.0 / 12.0));
        close(sample(&mut draws, 100_000, Draws::normal), (0.0, 1.0));
        // Beta(a, a) has variance 1 / (4 (2 a + 1)).
        close(sample(&mut draws, 100_000, |draws| draws.symmetric_beta(0.4)), (0.5, 1.0 / 7.2));
        close(sample(&mut draws, 100_000, |draws| draws.symmetric_beta(1.0)), (0.5, 1.0 / 12.0));
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_every_place_gets_every_index() {
        let mut seen = [[false; 5]; 5];
        for seed in 0..200 {
            let order = Draws::named(seed, Purpose::Order, "").permutation(5);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            for (place, index) in order.into_iter().enumerate() {
                seen[place][index] = true;
            }
        }
        assert!(seen.iter().flatten().all(|&seen| seen));
    }
}
