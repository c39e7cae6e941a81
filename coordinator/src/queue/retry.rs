//! The backoff before a task is tried again.

/// The delay before the first retry, in milliseconds, before jitter.
const FIRST_MS: u64 = 500;
/// The longest delay, in milliseconds.
const LONGEST_MS: u64 = 60_000;

/// The delay before retry number `retry` (counted from 1), in milliseconds. It doubles from half a second up to a minute. The upper half of
/// it is jitter, so that tasks that failed together do not return together.
///
/// `seed` determines the jitter: the same seed gives the same delay.
pub fn backoff_ms(retry: u32, seed: u64) -> u64 {
    let doublings = retry.saturating_sub(1).min(16);
    let longest = (FIRST_MS << doublings).min(LONGEST_MS);
    let least = longest / 2;
    least + split_mix(seed) % (longest - least + 1)
}

/// SplitMix64's output function (Steele, Lea and Flood, 2014): every bit of the seed changes every bit of the result.
fn split_mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_stay_within_their_bounds() {
        for (retry, longest) in [(1, 500), (2, 1_000), (3, 2_000), (8, 60_000), (u32::MAX, 60_000)] {
            for seed in 0..200 {
                assert!((longest / 2..=longest).contains(&backoff_ms(retry, seed)), "retry {retry}, seed {seed}");
            }
        }
    }

    #[test]
    fn tasks_that_failed_together_return_at_different_times() {
        let delays: std::collections::BTreeSet<u64> = (0..100).map(|seed| backoff_ms(4, seed)).collect();
        assert!(delays.len() > 80, "{} different delays of 100", delays.len());
    }
}
