//! Grouping near-duplicates without comparing everything with everything.
//!
//! If two 64-bit hashes differ in at most `d` bits and are cut into `d + 1` bands, at least one band is equal (pigeonhole).
//! So only pictures that share a band are compared, and those found near are joined (union-find).

use std::collections::HashMap;

use super::phash::{Fingerprint, MAX_HASH_DISTANCE};

const BANDS: u32 = MAX_HASH_DISTANCE + 1;

/// Gives each picture the index of its group's first member; a picture without neighbours is its own group.
///
/// Which pictures belong together does not depend on their order, which index names a group does.
pub fn group(fingerprints: &[Fingerprint]) -> Vec<usize> {
    let mut groups = UnionFind::new(fingerprints.len());
    for band in 0..BANDS {
        let mut buckets: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            let (own, mirrored) = (band_of(fingerprint.hash, band), band_of(fingerprint.mirrored_hash, band));
            buckets.entry(own).or_default().push(index);
            if mirrored != own {
                buckets.entry(mirrored).or_default().push(index);
            }
        }
        for bucket in buckets.values() {
            join_near(fingerprints, bucket, &mut groups);
        }
    }
    (0..fingerprints.len()).map(|index| groups.find(index)).collect()
}

fn join_near(fingerprints: &[Fingerprint], bucket: &[usize], groups: &mut UnionFind) {
    for (position, first) in bucket.iter().enumerate() {
        for second in &bucket[position + 1..] {
            if fingerprints[*first].is_near(&fingerprints[*second]) {
                groups.join(*first, *second);
            }
        }
    }
}

/// The `band`-th of [`BANDS`] slices of the hash, nearly equally wide.
fn band_of(hash: u64, band: u32) -> u64 {
    let (start, end) = (64 * band / BANDS, 64 * (band + 1) / BANDS);
    (hash >> start) & ((1 << (end - start)) - 1)
}

/// Disjoint sets whose representative is the smallest index.
struct UnionFind {
    parents: Vec<usize>,
}

impl UnionFind {
    fn new(len: usize) -> Self {
        Self { parents: (0..len).collect() }
    }

    fn find(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }

    fn join(&mut self, first: usize, second: usize) {
        let (first, second) = (self.find(first), self.find(second));
        self.parents[first.max(second)] = first.min(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::photos::phash::THUMB_BYTES;

    /// Fingerprints whose thumbnails agree, so that the hash alone decides.
    fn fingerprint(hash: u64) -> Fingerprint {
        let thumb = std::array::from_fn::<u8, THUMB_BYTES, _>(|index| (index % 36) as u8 * 7);
        Fingerprint { hash, mirrored_hash: !hash, thumb, aspect: 1.0 }
    }

    #[test]
    fn every_pair_within_the_distance_is_found_wherever_its_bits_differ() {
        let base = 0x0123_4567_89ab_cdef_u64;
        for start in 0..64 - MAX_HASH_DISTANCE {
            let near = fingerprint(base ^ (((1 << MAX_HASH_DISTANCE) - 1) << start));
            assert_eq!(group(&[fingerprint(base), near]), [0, 0], "bits from {start}");
        }
        let spread = (0..MAX_HASH_DISTANCE).fold(base, |hash, bit| hash ^ (1 << (bit * 6)));
        assert_eq!(group(&[fingerprint(base), fingerprint(spread)]), [0, 0]);
    }

    #[test]
    fn pictures_beyond_the_distance_stay_alone() {
        let far = fingerprint((1 << (MAX_HASH_DISTANCE + 1)) - 1);
        assert_eq!(group(&[fingerprint(0), far]), [0, 1]);
    }

    #[test]
    fn neighbours_of_neighbours_form_one_group() {
        let chain = [0, 0xff, 0xffff, 0xff_ffff].map(fingerprint);
        assert_eq!(group(&chain), [0, 0, 0, 0]);
    }
}
