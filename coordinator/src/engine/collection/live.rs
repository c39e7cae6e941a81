//! The set of objects that something refers to: of bounded size, and never without one that was put in.

use std::hash::{BuildHasher as _, RandomState};

use sortinghat_proto::Digest;

/// Bits of the filter: 16 MiB, of which the system gives only what is used.
const BITS: u64 = 1 << 27;
/// Bits of one digest. Ten million digests are confused with another one in 4 cases of 1000, and such an object is kept.
const BITS_PER_DIGEST: u64 = 4;

/// A Bloom filter of digests. Each filter is seeded anew, so that an object which one confuses with others is told apart by the
/// next.
#[derive(Debug)]
pub(super) struct Live {
    words: Vec<u64>,
    seed: RandomState,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { words: vec![0; (BITS / 64) as usize], seed: RandomState::new() }
    }

    pub(super) fn insert(&mut self, digest: &Digest) {
        for (word, bit) in self.places(digest) {
            self.words[word] |= bit;
        }
    }

    /// Whether the digest was put in, or is confused with others that were.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.places(digest).all(|(word, bit)| self.words[word] & bit != 0)
    }

    /// Kirsch and Mitzenmacher 2006: two hashes make as many as are needed.
    fn places(&self, digest: &Digest) -> impl Iterator<Item = (usize, u64)> + use<> {
        let hash = self.seed.hash_one(digest);
        let (first, step) = (hash & 0xffff_ffff, hash >> 32 | 1);
        (0..BITS_PER_DIGEST).map(move |round| {
            let place = (first + round * step) % BITS;
            ((place / 64) as usize, 1 << (place % 64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_always_found_and_little_else_is() {
        let mut live = Live::new();
        let digest = |number: u32| Digest::of(&number.to_le_bytes());
        (0..10_000).for_each(|number| live.insert(&digest(number)));
        assert!((0..10_000).all(|number| live.contains(&digest(number))));
        let confused = (10_000..20_000).filter(|number| live.contains(&digest(*number))).count();
        assert!(confused < 10, "{confused} of 10000");
    }
}
