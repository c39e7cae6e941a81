//! Decides which photos train and which validate. The split is stratified by class, keeps near-duplicates on one side, and is a pure
//! function of the seed and the digests.
//!
//! The order in which images arrive changes nothing: groups are ordered by a hash of the seed and of their smallest digest.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use sortinghat_proto::Digest;
pub use sortinghat_proto::layout::Side;

/// One image to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The original file; unique among the items.
    pub digest: Digest,
    /// Index of its class.
    pub class: usize,
    /// Items with the same number are near-duplicates; the numbers themselves mean nothing.
    pub group: usize,
}

/// Why no split exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A class needs one image on each side.
    #[error("class number {class} has {images} images, but it needs at least two")]
    ClassTooSmall {
        /// Index of the class.
        class: usize,
        /// How many images it has.
        images: usize,
    },
    /// It is not possible to hold out nothing or everything.
    #[error("the part held out must lie between 0 and 1, both excluded")]
    FractionOutOfRange,
    /// Fewer than two folds are no cross-validation.
    #[error("there must be at least two folds")]
    TooFewFolds,
}

/// A placement of every item, in the order of the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement<T> {
    /// Where each item lies.
    pub places: Vec<T>,
    /// Classes that consist of one group of near-duplicates, which had to be divided to give each side an image.
    pub divided_classes: Vec<usize>,
}

/// Holds out `floor(fraction * n)` images of each class, at least one and never all of them.
///
/// Groups are never divided, except where a class has only one. A group that is larger than what is still to be held out
/// trains. So a class of few, large groups may hold out less than asked, or more if even its smallest group is larger.
///
/// # Errors
/// [`SplitError::ClassTooSmall`] for a class below `classes` with fewer than two images, [`SplitError::FractionOutOfRange`].
pub fn hold_out(items: &[Item], classes: usize, fraction: f64, seed: u64) -> Result<Placement<Side>, SplitError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(SplitError::FractionOutOfRange);
    }
    let (units, divided_classes) = units(items, classes, seed)?;
    let totals = class_totals(items, classes);
    let targets: Vec<usize> = totals
        .iter()
        .map(|total| ((fraction * *total as f64) as usize).clamp(1, total.saturating_sub(1).max(1)))
        .collect();

    let mut held = vec![0; classes];
    let mut is_held = vec![false; units.len()];
    for (unit, is_held) in units.iter().zip(&mut is_held) {
        if unit.counts.iter().all(|(class, count)| held[*class] + count <= targets[*class]) {
            *is_held = true;
            unit.add_to(&mut held);
        }
    }
    for class in 0..classes {
        if held[class] == 0 {
            hold_smallest(class, &units, &totals, &mut is_held, &mut held);
        }
    }
    let mut places = vec![Side::Train; items.len()];
    for (unit, _) in units.iter().zip(&is_held).filter(|(_, is_held)| **is_held) {
        unit.members.iter().for_each(|member| places[*member] = Side::Valid);
    }
    Ok(Placement { places, divided_classes })
}

/// Holds out the smallest group of a class that is held out nowhere yet, provided that every class it touches still trains.
fn hold_smallest(class: usize, units: &[Unit], totals: &[usize], is_held: &mut [bool], held: &mut [usize]) {
    let candidate = units
        .iter()
        .enumerate()
        .filter(|(_, unit)| unit.counts.contains_key(&class))
        .filter(|(_, unit)| unit.counts.iter().all(|(class, count)| held[*class] + count < totals[*class]))
        .min_by_key(|(_, unit)| unit.members.len());
    if let Some((index, unit)) = candidate {
        is_held[index] = true;
        unit.add_to(held);
    }
}

/// Deals the images into `folds` folds, numbered from 0, so that each class is spread as evenly as its groups allow.
///
/// Large groups are dealt first, each to the fold that has the least of its classes.
///
/// # Errors
/// [`SplitError::TooFewFolds`], [`SplitError::ClassTooSmall`] for a class with fewer than two images.
pub fn deal_folds(items: &[Item], classes: usize, folds: usize, seed: u64) -> Result<Placement<usize>, SplitError> {
    if folds < 2 {
        return Err(SplitError::TooFewFolds);
    }
    let (mut units, divided_classes) = units(items, classes, seed)?;
    units.sort_by_key(|unit| std::cmp::Reverse(unit.members.len()));
    let totals = class_totals(items, classes);
    let mut dealt = vec![vec![0; classes]; folds];
    let mut places = vec![0; items.len()];
    for unit in &units {
        let fold = (0..folds)
            .min_by(|a, b| unit.load(&dealt[*a], &totals).total_cmp(&unit.load(&dealt[*b], &totals)))
            .expect("there are at least two folds");
        unit.add_to(&mut dealt[fold]);
        unit.members.iter().for_each(|member| places[*member] = fold);
    }
    Ok(Placement { places, divided_classes })
}

/// Images that are placed together: a group of near-duplicates.
struct Unit {
    /// Indices of the items.
    members: Vec<usize>,
    /// How many of them each class has.
    counts: BTreeMap<usize, usize>,
}

impl Unit {
    fn new(items: &[Item], members: Vec<usize>) -> Self {
        let mut counts = BTreeMap::new();
        for member in &members {
            *counts.entry(items[*member].class).or_insert(0) += 1;
        }
        Self { members, counts }
    }

    fn add_to(&self, totals: &mut [usize]) {
        for (class, count) in &self.counts {
            totals[*class] += count;
        }
    }

    /// How full a fold is for this unit: the part of its classes that the fold already has, then its size.
    fn load(&self, dealt: &[usize], totals: &[usize]) -> f64 {
        let of_classes: f64 =
            self.counts.iter().map(|(class, count)| *count as f64 * dealt[*class] as f64 / totals[*class] as f64).sum();
        let all: usize = totals.iter().sum();
        let size = dealt.iter().sum::<usize>() as f64 / all as f64;
        of_classes + 1e-3 * size
    }
}

/// The units in their seeded order, and the classes whose only group had to be divided.
fn units(items: &[Item], classes: usize, seed: u64) -> Result<(Vec<Unit>, Vec<usize>), SplitError> {
    for (class, images) in class_totals(items, classes).into_iter().enumerate() {
        if images < 2 {
            return Err(SplitError::ClassTooSmall { class, images });
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        groups.entry(item.group).or_default().push(index);
    }
    let divided_classes = classes_of_one_group(items, classes);
    let mut units = Vec::new();
    for (_, members) in groups {
        let (alone, together): (Vec<usize>, Vec<usize>) =
            members.into_iter().partition(|member| divided_classes.contains(&items[*member].class));
        units.extend(alone.into_iter().map(|member| Unit::new(items, vec![member])));
        if !together.is_empty() {
            units.push(Unit::new(items, together));
        }
    }
    units.sort_by_cached_key(|unit| {
        let smallest = unit.members.iter().map(|member| &items[*member].digest).min();
        seeded_key(seed, smallest.expect("a unit has members"))
    });
    Ok((units, divided_classes))
}

fn classes_of_one_group(items: &[Item], classes: usize) -> Vec<usize> {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for item in items {
        if groups[item.class].last() != Some(&item.group) {
            groups[item.class].push(item.group);
        }
    }
    let is_one = |groups: &Vec<usize>| groups.iter().all(|group| *group == groups[0]);
    (0..classes).filter(|class| is_one(&groups[*class])).collect()
}

fn class_totals(items: &[Item], classes: usize) -> Vec<usize> {
    let mut totals = vec![0; classes];
    items.iter().for_each(|item| totals[item.class] += 1);
    totals
}

/// A key that orders digests in a way that only the seed decides.
fn seeded_key(seed: u64, digest: &Digest) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"sortinghat split 1");
    hasher.update(seed.to_le_bytes());
    hasher.update(hex::decode(digest.as_str()).expect("a digest is hexadecimal"));
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const CLASSES: usize = 3;

    /// Any items in three classes of at least two, in groups that may span classes.
    fn any_items() -> impl Strategy<Value = Vec<Item>> {
        prop::collection::vec((0..CLASSES, 0..30usize), 1..80).prop_map(|drawn| {
            let ensured = (0..CLASSES).flat_map(|class| [(class, 100 + class), (class, 200 + class)]);
            let item = |(index, (class, group)): (usize, (usize, usize))| Item {
                digest: Digest::of(&index.to_le_bytes()),
                class,
                group,
            };
            ensured.chain(drawn).enumerate().map(item).collect()
        })
    }

    fn placed<T: Copy + Ord>(items: &[Item], places: &[T]) -> BTreeSet<(Digest, T)> {
        items.iter().map(|item| item.digest.clone()).zip(places.iter().copied()).collect()
    }

    proptest! {
        #[test]
        fn each_class_is_on_both_sides_and_each_group_on_one(items in any_items(), seed: u64) {
            let sides = hold_out(&items, CLASSES, 0.2, seed).expect("every class has two images").places;
            for class in 0..CLASSES {
                let of_class = || items.iter().zip(&sides).filter(move |(item, _)| item.class == class);
                prop_assert!(of_class().any(|(_, side)| *side == Side::Train));
                prop_assert!(of_class().any(|(_, side)| *side == Side::Valid));
            }
            for (a, side_of_a) in items.iter().zip(&sides) {
                for (b, side_of_b) in items.iter().zip(&sides) {
                    prop_assert!(a.group != b.group || side_of_a == side_of_b);
                }
            }
        }

        #[test]
        fn the_order_of_the_images_and_the_names_of_the_groups_change_nothing(items in any_items(), seed: u64) {
            let renamed: Vec<Item> =
                items.iter().rev().map(|item| Item { group: 1000 - item.group, ..item.clone() }).collect();
            let once = hold_out(&items, CLASSES, 0.2, seed).expect("every class has two images");
            let again = hold_out(&renamed, CLASSES, 0.2, seed).expect("every class has two images");
            prop_assert_eq!(placed(&items, &once.places), placed(&renamed, &again.places));
            let once = deal_folds(&items, CLASSES, 5, seed).expect("every class has two images");
            let again = deal_folds(&renamed, CLASSES, 5, seed).expect("every class has two images");
            prop_assert_eq!(placed(&items, &once.places), placed(&renamed, &again.places));
        }
    }

    fn single_items(classes: &[usize]) -> Vec<Item> {
        let item = |(index, class): (usize, &usize)| Item {
            digest: Digest::of(&index.to_le_bytes()),
            class: *class,
            group: index,
        };
        classes.iter().enumerate().map(item).collect()
    }

    #[test]
    fn the_part_held_out_is_rounded_down_in_each_class() {
        let items = single_items(&[[0; 14].as_slice(), &[1; 29]].concat());
        let sides = hold_out(&items, 2, 0.2, 7).expect("enough images").places;
        let held = |class| {
            items.iter().zip(&sides).filter(|(item, side)| item.class == class && **side == Side::Valid).count()
        };
        assert_eq!((held(0), held(1)), (2, 5));
    }

    #[test]
    fn folds_differ_by_at_most_one_image_of_a_class() {
        let items = single_items(&[[0; 14].as_slice(), &[1; 29]].concat());
        let folds = deal_folds(&items, 2, 5, 7).expect("enough images").places;
        for class in 0..2 {
            let counts: Vec<usize> = (0..5)
                .map(|fold| items.iter().zip(&folds).filter(|(item, at)| item.class == class && **at == fold).count())
                .collect();
            assert!(
                counts.iter().max().zip(counts.iter().min()).is_some_and(|(most, least)| most - least <= 1),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_class_of_one_group_is_divided_and_named() {
        let mut items = single_items(&[0, 0, 1, 1, 1]);
        items.iter_mut().filter(|item| item.class == 1).for_each(|item| item.group = 50);
        let placement = hold_out(&items, 2, 0.2, 1).expect("enough images");
        assert_eq!(placement.divided_classes, [1]);
        assert!(placement.places[2..].contains(&Side::Valid) && placement.places[2..].contains(&Side::Train));
    }

    #[test]
    fn a_class_with_one_image_is_refused_by_number() {
        let refused = hold_out(&single_items(&[0, 0, 1]), 2, 0.2, 1);
        assert_eq!(refused, Err(SplitError::ClassTooSmall { class: 1, images: 1 }));
    }
}
