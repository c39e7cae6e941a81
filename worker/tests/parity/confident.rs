//! cleanlab's confident learning: thresholds, counts, joint, and which labels are doubted in which order.

use serde_json::Value;
use sortinghat_worker::evaluation::audit::audit;
use sortinghat_worker::evaluation::confident::{Counts, Evidence};
use sortinghat_worker::evaluation::posterior::{always_doubted, weights, wrong_share};
use sortinghat_worker::prediction::probabilities::Probabilities;

use crate::formula::{assert_near, flat, golden};

fn indices(value: &Value) -> Vec<usize> {
    flat(value).into_iter().map(|index| index as usize).collect()
}

fn dense(counts: &Counts) -> Vec<f64> {
    let classes = counts.len();
    let row = |row: &std::collections::BTreeMap<usize, u64>| {
        (0..classes).map(|class| row.get(&class).copied().unwrap_or_default() as f64).collect::<Vec<_>>()
    };
    counts.iter().flat_map(row).collect()
}

fn follows_cleanlab(name: &str) {
    let golden = golden("cleanlab.json")[name].clone();
    let (labels, classes) = (indices(&golden["labels"]), golden["thresholds"].as_array().unwrap().len());
    let rows = flat(&golden["rows"]).into_iter().map(|probability| probability as f32).collect();
    let rows = Probabilities::new(rows, classes);
    let evidence = Evidence::new(&labels, &rows, classes);

    let thresholds = evidence.thresholds().into_iter().map(Option::unwrap).collect::<Vec<_>>();
    assert_near("thresholds", &thresholds, &flat(&golden["thresholds"]), 0.0, 1e-6);
    assert_eq!(dense(&evidence.counted()), flat(&golden["counted"]));
    let calibrated = dense(&evidence.calibrated());
    assert_eq!(calibrated, flat(&golden["calibrated"]));
    let joint = calibrated.iter().map(|count| count / labels.len() as f64).collect::<Vec<_>>();
    assert_near("joint", &joint, &flat(&golden["joint"]), 0.0, 1e-6);

    let doubts = evidence.doubts();
    assert_eq!(doubts.iter().map(|doubt| doubt.photo).collect::<Vec<_>>(), indices(&golden["ranked"]));
    let sorted = |wanted: &dyn Fn(bool) -> bool| {
        let mut photos: Vec<_> =
            doubts.iter().filter(|doubt| wanted(doubt.by_class)).map(|doubt| doubt.photo).collect();
        photos.sort_unstable();
        photos
    };
    assert_eq!(sorted(&|_| true), indices(&golden["by_noise_rate"]));
    assert_eq!(sorted(&|by_class| by_class), indices(&golden["by_both"]));
    for doubt in &doubts {
        let expected = |key: &str| flat(&golden[key][doubt.photo]);
        assert_near("self-confidence", &[doubt.self_confidence], &expected("self_confidence"), 0.0, 1e-6);
        assert_near("margin", &[doubt.normalized_margin], &expected("normalized_margin"), 0.0, 1e-6);
    }
}

#[test]
fn two_hundred_and_forty_noisy_labels_are_judged_as_cleanlab_does() {
    follows_cleanlab("noisy");
}

#[test]
fn photos_that_pass_two_thresholds_at_once_are_counted_as_cleanlab_does() {
    follows_cleanlab("two_pass");
}

#[test]
fn labels_that_every_repeat_doubts_and_the_weights_of_all_labels_are_those_of_cleanlab_and_bayes_rule() {
    let golden = golden("posterior.json");
    let (labels, classes) = (indices(&golden["labels"]), golden["clean"][0].as_array().unwrap().len());
    let rows = |value: &Value| {
        Probabilities::new(flat(value).into_iter().map(|probability| probability as f32).collect(), classes)
    };
    let repeats: Vec<Probabilities> = golden["repeats"].as_array().unwrap().iter().map(rows).collect();
    assert_eq!(always_doubted(&labels, &repeats, classes).into_iter().collect::<Vec<_>>(), indices(&golden["always"]));
    let wrong = wrong_share(&labels, &Probabilities::mean(&repeats), classes);
    assert_near("share of wrong labels", &[wrong], &flat(&golden["wrong_share"]), 0.0, 1e-9);
    let found = weights(&labels, &rows(&golden["clean"]), wrong, classes);
    assert_near("weights", &found, &flat(&golden["weights"]), 0.0, 1e-5);
}

#[test]
fn an_audit_finds_as_many_of_the_labels_that_are_known_to_be_wrong_as_cleanlab_does() {
    let golden = golden("posterior.json");
    let (labels, truth) = (indices(&golden["labels"]), indices(&golden["true"]));
    let classes = golden["clean"][0].as_array().unwrap().len();
    let rows = |value: &Value| {
        Probabilities::new(flat(value).into_iter().map(|probability| probability as f32).collect(), classes)
    };
    let repeats: Vec<Probabilities> = golden["repeats"].as_array().unwrap().iter().map(rows).collect();
    let audited = audit(&labels, &repeats, classes);
    assert_eq!(audited.iter().map(|one| one.repeats as usize).collect::<Vec<_>>(), indices(&golden["votes"]));
    let wrong = labels.iter().zip(&truth).filter(|(label, truth)| label != truth).count() as f64;
    let found = |doubted: &[usize]| {
        let right = doubted.iter().filter(|&&photo| labels[photo] != truth[photo]).count() as f64;
        [right / doubted.len() as f64, right / wrong]
    };
    let in_all: Vec<usize> = audited.iter().filter(|one| one.repeats == 3).map(|one| one.photo).collect();
    assert_near("precision and recall in all", &found(&in_all), &flat(&golden["found"]["all"]), 0.0, 1e-12);
    let first = audit(&labels, &repeats[..1], classes);
    let in_one: Vec<usize> = first.iter().filter(|one| one.repeats == 1).map(|one| one.photo).collect();
    assert_near("precision and recall in one", &found(&in_one), &flat(&golden["found"]["one"]), 0.0, 1e-12);
}
