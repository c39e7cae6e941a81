//! Random decisions that a seed reproduces.

/// A sequence of numbers that is a pure function of its seed (SplitMix64; Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice for one of several purposes, which are independent of the dice for other purposes.
    pub fn of(seed: u64, purpose: &str, number: u64) -> Self {
        let purpose = purpose.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
        Self(mix(purpose ^ mix(number)))
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// A number in `range`, which is not empty.
    pub fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True in this many of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several values, of which there is at least one.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// SplitMix64's output function: neighbouring inputs give unrelated outputs.
pub(crate) fn mix(seed: u64) -> u64 {
    finish(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

fn finish(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_reproduces_its_decisions_and_purposes_do_not_share_them() {
        let decide = |mut dice: Dice| [(); 8].map(|()| dice.below(1_000));
        assert_eq!(decide(Dice::of(7, "faults", 3)), decide(Dice::of(7, "faults", 3)));
        assert_ne!(decide(Dice::of(7, "faults", 3)), decide(Dice::of(7, "jobs", 3)));
        assert_ne!(decide(Dice::of(7, "faults", 3)), decide(Dice::of(7, "faults", 4)));
    }
}
