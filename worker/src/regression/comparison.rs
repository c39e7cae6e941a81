//! Chooses among candidates by what each says of the same photos, none of which it has learned from.

use std::collections::BTreeMap;

/// How a candidate does beside the best one, on the same photos.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// Mean loss, in nats.
    pub loss: f64,
    /// How much higher that is than the mean loss of the best candidate: 0 for the best one.
    pub behind: f64,
    /// The standard error of `behind`, with photos of one group as one observation.
    pub standard_error: f64,
}

/// Compares candidates, of which `losses` has the loss of each photo, and says which one to take: the first whose difference from the best
/// is below one standard error of that difference. Candidates are in the order of what they cost, the cheapest first. `groups` has
/// the group of each photo.
///
/// # Panics
/// When there is no candidate or no photo, or when the lists are not equally long.
#[must_use]
pub fn compare(losses: &[Vec<f64>], groups: &[usize]) -> (Vec<Compared>, usize) {
    assert!(losses.iter().all(|losses| losses.len() == groups.len()), "one loss for each photo");
    let photos = groups.len() as f64;
    let means: Vec<f64> = losses.iter().map(|losses| losses.iter().sum::<f64>() / photos).collect();
    let best = (0..means.len()).min_by(|&a, &b| means[a].total_cmp(&means[b])).expect("there is a candidate");
    let compared = losses.iter().zip(&means).map(|(of_photos, &loss)| {
        let behind = loss - means[best];
        let differences = of_photos.iter().zip(&losses[best]).map(|(own, best)| own - best - behind);
        Compared { loss, behind, standard_error: clustered_error(differences, groups) }
    });
    let compared: Vec<Compared> = compared.collect();
    let taken = (0..best).find(|&place| compared[place].behind < compared[place].standard_error).unwrap_or(best);
    (compared, taken)
}

/// The standard error of a mean of which `off` has the deviations. The deviations of a group are added up first, as its photos say
/// the same thing several times.
fn clustered_error(off: impl Iterator<Item = f64>, groups: &[usize]) -> f64 {
    let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
    for (off, &group) in off.zip(groups) {
        *sums.entry(group).or_default() += off;
    }
    let count = sums.len() as f64;
    let squares = sums.values().map(|sum| sum * sum).sum::<f64>();
    // A single group says nothing of how groups differ.
    (squares * count / (count - 1.0).max(1.0)).sqrt() / groups.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::formula::uniform;

    #[test]
    fn differences_and_their_errors_are_those_of_the_formula_and_the_cheapest_that_is_as_good_is_taken() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/comparison.json")).expect("JSON");
        for case in golden.as_array().expect("cases") {
            let number = |name: &str| case[name].as_u64().expect("a number") as usize;
            let (photos, groups) = (number("photos"), number("groups"));
            let groups: Vec<usize> = (0..photos).map(|photo| photo * photo % groups).collect();
            let shifts =
                case["shifts"].as_array().expect("shifts").iter().map(|shift| shift.as_f64().expect("a number"));
            let losses: Vec<Vec<f64>> = shifts
                .enumerate()
                .map(|(candidate, shift)| {
                    let values = uniform(&format!("losses {candidate}"), &[photos as i64]).abs();
                    Vec::<f64>::try_from(values).expect("a vector").into_iter().map(|loss| loss + shift).collect()
                })
                .collect();
            let (compared, taken) = compare(&losses, &groups);
            assert_eq!(taken, number("taken"));
            for (compared, expected) in compared.iter().zip(case["compared"].as_array().expect("rows")) {
                let found = [compared.loss, compared.behind, compared.standard_error];
                for (found, expected) in found.into_iter().zip(expected.as_array().expect("three")) {
                    assert!((found - expected.as_f64().expect("a number")).abs() < 1e-9, "{compared:?}: {expected}");
                }
            }
        }
    }

    #[test]
    fn near_duplicates_count_as_one_observation() {
        let (first, second) = (vec![0.0, 0.0, 1.0, 1.0], vec![0.5; 4]);
        let error = |groups: &[usize]| compare(&[first.clone(), second.clone()], groups).0[1].standard_error;
        assert!(error(&[0, 0, 1, 1]) > 1.3 * error(&[0, 1, 2, 3]));
    }

    #[test]
    fn a_candidate_that_is_no_dearer_than_the_best_is_never_taken_for_it() {
        let losses = [vec![0.1, 0.3], vec![0.2, 0.2]];
        assert_eq!(compare(&losses, &[0, 1]).1, 0, "of equal ones the cheapest is the best");
        assert_eq!(compare(&[vec![0.1; 3], vec![0.1; 3]], &[0; 3]).1, 0);
    }
}
