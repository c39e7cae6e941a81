//! Groups near-duplicates without comparing every picture with every other.
//!
//! If two 64-bit hashes differ in at most 10 bits and are cut into 4 bands of 16, some band differs in at most 2 bits
//! (pigeonhole). So a picture is compared only with the pictures that have, in some band, one of the 137 values that are that
//! close to its own. A table with a place for each value finds them. Pictures that turn out near are joined (union-find). This is
//! multi-index hashing (Norouzi, Punjani and Fleet, 2012).

use std::{collections::HashMap, ops::Range};

use super::phash::{Fingerprint, MAX_HASH_DISTANCE, THUMB_BYTES};

const BANDS: u32 = 4;
const BAND_BITS: u32 = 64 / BANDS;
/// Bits in which the closest band of two near hashes may differ.
const BAND_DISTANCE: u32 = MAX_HASH_DISTANCE / BANDS;
/// How many pictures are looked up between two reports of progress.
const LOOKUPS_BETWEEN_REPORTS: usize = 1_000;

/// Which pictures belong together, and what it took to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// For each picture the index of its group's first member; a picture without neighbours is its own group.
    pub groups: Vec<usize>,
    /// How many pairs of fingerprints were compared.
    pub comparisons: u64,
}

impl Grouping {
    /// Groups near-duplicates. The order of the pictures does not change which of them belong together, only which index names a
    /// group. `looked` is called now and then with the number of look-ups that are done and with their total, because a million
    /// pictures take minutes.
    pub fn of(fingerprints: &[Fingerprint], looked: &dyn Fn(u64, u64)) -> Self {
        let mut groups = UnionFind::new(fingerprints.len());
        let distinct = join_equal(fingerprints, &mut groups);
        let masks: Vec<u16> = (0..=u16::MAX).filter(|mask| mask.count_ones() <= BAND_DISTANCE).collect();
        let mut comparisons = 0;
        for band in 0..BANDS {
            let table = BandTable::new(fingerprints, &distinct, band);
            for (number, first) in distinct.iter().enumerate() {
                if number % LOOKUPS_BETWEEN_REPORTS == 0 {
                    looked((band as usize * distinct.len() + number) as u64, (BANDS as usize * distinct.len()) as u64);
                }
                let fingerprint = &fingerprints[*first];
                for hash in [fingerprint.hash, fingerprint.mirrored_hash] {
                    let value = band_of(hash, band);
                    for second in masks.iter().flat_map(|mask| table.with_value(value ^ mask)) {
                        comparisons += 1;
                        if first != second && fingerprint.is_near(&fingerprints[*second]) {
                            groups.join(*first, *second);
                        }
                    }
                }
            }
        }
        let groups = (0..fingerprints.len()).map(|index| groups.find(index)).collect();
        Self { groups, comparisons }
    }
}

/// Joins pictures with equal fingerprints, of which a set of blank scans has thousands; returns the first of each.
fn join_equal(fingerprints: &[Fingerprint], groups: &mut UnionFind) -> Vec<usize> {
    let mut firsts: HashMap<(u64, u64, &[u8; THUMB_BYTES], u32), usize> = HashMap::new();
    let mut distinct = Vec::new();
    for (index, fingerprint) in fingerprints.iter().enumerate() {
        let key = (fingerprint.hash, fingerprint.mirrored_hash, &fingerprint.thumb, fingerprint.aspect.to_bits());
        let first = *firsts.entry(key).or_insert(index);
        if first == index {
            distinct.push(index);
        } else {
            groups.join(first, index);
        }
    }
    distinct
}

/// The pictures by the value of one band of their hash.
struct BandTable {
    /// Sorted by value.
    members: Vec<usize>,
    /// Where the members with a value start; one more than there are values.
    starts: Vec<usize>,
}

impl BandTable {
    fn new(fingerprints: &[Fingerprint], indices: &[usize], band: u32) -> Self {
        let value = |index: &usize| usize::from(band_of(fingerprints[*index].hash, band));
        let mut members = indices.to_vec();
        members.sort_by_key(value);
        let mut starts = vec![0; (1 << BAND_BITS) + 1];
        members.iter().for_each(|member| starts[value(member) + 1] += 1);
        for next in 1..starts.len() {
            starts[next] += starts[next - 1];
        }
        Self { members, starts }
    }

    fn with_value(&self, value: u16) -> &[usize] {
        let range: Range<usize> = self.starts[usize::from(value)]..self.starts[usize::from(value) + 1];
        &self.members[range]
    }
}

/// The `band`-th of [`BANDS`] slices of the hash.
fn band_of(hash: u64, band: u32) -> u16 {
    (hash >> (band * BAND_BITS)) as u16
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
    use crate::phash::THUMB_BYTES;

    /// Fingerprints whose thumbnails agree, so that the hash alone decides.
    fn fingerprint(hash: u64) -> Fingerprint {
        let thumb = std::array::from_fn::<u8, THUMB_BYTES, _>(|index| (index % 36) as u8 * 7);
        Fingerprint { hash, mirrored_hash: !hash, thumb, aspect: 1.0 }
    }

    fn groups(fingerprints: &[Fingerprint]) -> Vec<usize> {
        Grouping::of(fingerprints, &|_, _| {}).groups
    }

    #[test]
    fn every_pair_within_the_distance_is_found_wherever_its_bits_differ() {
        let base = 0x0123_4567_89ab_cdef_u64;
        for start in 0..64 - MAX_HASH_DISTANCE {
            let near = fingerprint(base ^ (((1 << MAX_HASH_DISTANCE) - 1) << start));
            assert_eq!(groups(&[fingerprint(base), near]), [0, 0], "bits from {start}");
        }
        let spread = (0..MAX_HASH_DISTANCE).fold(base, |hash, bit| hash ^ (1 << (bit * 6)));
        assert_eq!(groups(&[fingerprint(base), fingerprint(spread)]), [0, 0]);
    }

    #[test]
    fn pictures_beyond_the_distance_stay_alone() {
        let far = fingerprint((1 << (MAX_HASH_DISTANCE + 1)) - 1);
        assert_eq!(groups(&[fingerprint(0), far]), [0, 1]);
    }

    #[test]
    fn neighbours_of_neighbours_form_one_group() {
        let chain = [0, 0xff, 0xffff, 0xff_ffff].map(fingerprint);
        assert_eq!(groups(&chain), [0, 0, 0, 0]);
    }

    #[test]
    fn a_hundred_thousand_pictures_are_grouped_by_comparing_few_of_their_pairs() {
        let mut state = 1u64;
        let fingerprints: Vec<Fingerprint> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                fingerprint(state ^ (state >> 29))
            })
            .collect();
        let grouping = Grouping::of(&fingerprints, &|_, _| {});
        // Everything with everything would be 5 * 10^9.
        assert!(grouping.comparisons < 250_000_000, "{}", grouping.comparisons);
        assert!(grouping.groups.iter().enumerate().filter(|(index, group)| index != *group).count() < 100);
    }

    #[test]
    fn equal_pictures_need_no_comparison() {
        let grouping = Grouping::of(&vec![fingerprint(7); 50_000], &|_, _| {});
        assert!(grouping.groups.iter().all(|group| *group == 0));
        assert!(grouping.comparisons < 10, "{}", grouping.comparisons);
    }
}
