//! Jobs that judge by models that have not learned from the photos that they judge: the recipe `auto`, and audits.

use std::collections::BTreeSet;

use sortinghat_proto::{
    AuditSpec, DatasetRef, FinetuneSpec, JobSpec, ObjectRef, Precision, Recipe, Split, WeightsSource,
    manifest::{AuditManifest, EvaluationManifest, ModelManifest, Score},
    v1::ErrorCode,
};
use sortinghat_worker::task::{JobError, JobOutput};

use crate::shapes::{Bench, Inputs, Ran, evaluate, finetune, shapes};

#[test]
fn the_recipe_auto_compares_two_and_tells_how_the_one_that_it_took_does_on_photos_that_decided_nothing() {
    let bench = Bench::new();
    let dataset = Some(bench.dataset(20, Split::ValidPercent(25)));
    let spec = JobSpec::Finetune(FinetuneSpec { recipe: Recipe::Auto, image_size_px: 48, ..finetune() });
    let fit = || bench.run(spec.clone(), Inputs { dataset: dataset.clone(), ..Inputs::default() });
    let ran = fit();
    let notices = ran.notices();
    let said = |what: &str| notices.iter().any(|notice| notice.contains(what));
    assert!(said("comparing the recipes fast and best on 5 inner folds of the 30 photos to learn from, within about "));
    assert!(said("fast: NLL ") && said("best: NLL ") && said(" is taken: it "), "{notices:?}");
    let epochs = ran.epochs();
    let [row] = epochs.as_slice() else { panic!("one row, that of the model: {epochs:?}") };
    let output = ran.output();
    assert!(output.summary.starts_with("resnet18, recipe auto, on 30 photos, "), "{}", output.summary);
    let manifest = |output: &JobOutput| bench.objects().document::<ModelManifest>(&output.manifest).unwrap();
    let model = manifest(&output);
    let auto = model.recipe.auto().expect("a recipe that chooses").clone();
    assert_eq!(auto.candidates.iter().map(|one| one.recipe.as_str()).collect::<Vec<_>>(), ["fast", "best"]);
    let taken = auto.candidates.iter().find(|one| one.recipe == auto.chosen).expect("one of them");
    assert!(taken.behind == 0.0 || (auto.chosen == "fast" && taken.behind < taken.standard_error), "{auto:?}");
    let sizes: Vec<u32> = auto.regression.views.iter().map(|view| view.size_px).collect();
    let (expected, side) = if auto.chosen == "fast" { (vec![37], 37) } else { (vec![48, 48], 48) };
    assert_eq!((sizes, model.image_size_px), (expected, side));
    assert_eq!(auto.label_weights, None, "15 photos of a class are too few to doubt labels");
    assert_eq!(manifest(&fit().output()).weights, model.weights, "the same bits again");

    let inputs = Inputs { model: Some(output.manifest.clone()), ..Inputs::default() };
    let evaluation = bench.run(JobSpec::Evaluate(evaluate()), inputs).output();
    let evaluation: EvaluationManifest = bench.objects().document(&evaluation.manifest).unwrap();
    let Score { photos, correct, loss, .. } = evaluation.findings.plain;
    assert_eq!((photos, correct as f64 / photos as f64), (10, row.accuracy), "it is measured as it was made");
    assert!((loss - row.valid_loss).abs() < 1e-4, "{loss} and {}", row.valid_loss);
}

#[test]
fn the_recipe_auto_compares_nothing_where_photos_are_too_few_and_says_so() {
    let bench = Bench::new();
    let dataset = Some(bench.dataset(3, Split::ValidPercent(34)));
    let spec = JobSpec::Finetune(FinetuneSpec { recipe: Recipe::Auto, ..finetune() });
    let ran = bench.run(spec, Inputs { dataset, ..Inputs::default() });
    let notices = ran.notices();
    assert!(notices.iter().any(|notice| notice.contains("the model is made by the recipe fast")), "{notices:?}");
    let model: ModelManifest = bench.objects().document(&ran.output().manifest).unwrap();
    let auto = model.recipe.auto().expect("a recipe that chooses");
    assert_eq!((auto.chosen.as_str(), auto.candidates.len(), &auto.label_weights), ("fast", 0, &None));
    assert_eq!((auto.regression.lambda, auto.regression.temperature, &auto.regression.unlike), (1e-3, 1.0, &None));
}

#[test]
fn labels_that_are_probably_wrong_count_less_and_are_listed_and_none_is_removed() {
    let bench = Bench::new();
    let dataset = Some(bench.ingested(&mislabelled(), Split::ValidPercent(25)));
    let made = |recipe| {
        let spec = JobSpec::Finetune(FinetuneSpec { recipe, image_size_px: 48, ..finetune() });
        let ran = bench.run(spec, Inputs { dataset: dataset.clone(), ..Inputs::default() });
        let notices = ran.notices();
        (notices, bench.objects().document::<ModelManifest>(&ran.output().manifest).unwrap())
    };
    let (notices, model) = made(Recipe::Auto);
    let weights = model.recipe.auto().expect("a recipe that chooses").label_weights.clone();
    let weights = weights.unwrap_or_else(|| panic!("all labels count the same: {notices:?}"));
    assert!(notices.iter().any(|notice| notice.contains("of the labels seem wrong: ")), "{notices:?}");
    assert!((0.05..0.4).contains(&weights.wrong_share), "{weights:?}");
    assert_eq!(weights.below_half, weights.listed.len() as u64);
    let right = weights.listed.iter().filter(|label| label.path.contains("of-another")).count();
    assert!(right >= 5 && 2 * right > weights.listed.len(), "{weights:?}");
    assert!(weights.listed.is_sorted_by(|a, b| a.weight <= b.weight), "those that count least come first");
    assert!(weights.listed.iter().all(|label| label.weight < 0.5 && label.label != label.suggested));
    let (_, other) = made(if model.recipe.auto().unwrap().chosen == "fast" { Recipe::Fast } else { Recipe::Best });
    assert_ne!(other.weights, model.weights, "weights change what is learned");
}

/// 60 photos of each shape, of which every fifth lies in the folder of the other shape.
fn mislabelled() -> Vec<(String, Vec<u8>)> {
    let mut files = shapes(60);
    for (path, _) in files.iter_mut().step_by(5) {
        let (class, name) = path.split_once('/').expect("a folder for each class");
        *path = format!("{}/of-another-{class}-{name}", if class == "disc" { "square" } else { "disc" });
    }
    files
}

fn audit(bench: &Bench, dataset: ObjectRef, seed: u64) -> Ran {
    let spec = AuditSpec {
        dataset: DatasetRef::parse("shapes@1", "").unwrap(),
        backbone: sortinghat_proto::Backbone::Resnet18,
        weights: WeightsSource::Random,
        image_size_px: 48,
        seed,
        precision: Precision::F32,
    };
    bench.run(JobSpec::Audit(spec), Inputs { dataset: Some(dataset), ..Inputs::default() })
}

#[test]
fn an_audit_finds_labels_that_are_wrong_and_draws_a_sample_of_the_others() {
    let bench = Bench::new();
    let dataset = bench.ingested(&mislabelled(), Split::ValidPercent(25));
    let audited = |seed| {
        let output = audit(&bench, dataset.clone(), seed).output();
        (bench.objects().document::<AuditManifest>(&output.manifest).unwrap(), output.summary)
    };
    let (made, summary) = audited(3);
    let found = &made.findings;
    assert_eq!((found.score.photos + found.unaudited, found.repeats, found.folds), (120, 3, 5), "held-out photos too");
    assert!(summary.contains("labels of shapes@1 look wrong, ") && summary.ends_with("in all 3 repeats"), "{summary}");
    assert_eq!((found.doubted, found.queue.len() as u64), (found.queue.len() as u64, found.doubted));
    assert!(found.queue.is_sorted_by(|a, b| {
        (b.repeats, a.label_probability) <= (a.repeats, b.label_probability) || a.repeats > b.repeats
    }));
    let right = found.queue.iter().filter(|label| label.path.contains("of-another")).count();
    assert!(right >= 8 && 2 * right > found.queue.len(), "{:?}", found.queue);
    assert!(found.queue.iter().all(|label| label.suggested != label.label && (1..=3).contains(&label.repeats)));
    assert_eq!(found.sample.len(), 60.min(found.undoubted() as usize));
    let digests = |labels: &[sortinghat_proto::manifest::AuditedLabel]| -> BTreeSet<_> {
        labels.iter().map(|label| label.digest.clone()).collect()
    };
    assert!(digests(&found.queue).is_disjoint(&digests(&found.sample)));
    assert_eq!(audited(3).0.labels, made.labels, "the same seed, the same bits");
    assert_ne!(digests(&audited(4).0.findings.sample), digests(&found.sample), "another seed draws others");

    let read = |object: &ObjectRef| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut bench.objects().open(object).unwrap(), &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let table = read(&made.labels);
    assert!(table.starts_with("path,digest,label,suggested,label_probability,suggested_probability,repeats\n"));
    assert_eq!(table.lines().count() as u64, 1 + found.score.photos);
    let page = read(&made.report);
    for part in ["Labels that look wrong: ", "A random sample of the others: ", "in 3 of 3 repeats", "data:image/jpeg"]
    {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn an_audit_of_too_few_photos_is_refused_with_what_it_needs() {
    let bench = Bench::new();
    let dataset = bench.dataset(2, Split::ValidPercent(50));
    match audit(&bench, dataset, 1).result {
        Err(JobError::Refused(refusal)) => {
            assert_eq!((refusal.code, refusal.field.as_str()), (ErrorCode::UnusableData, "audit.dataset"));
            assert!(refusal.message.contains("three photos each"), "{}", refusal.message);
        }
        other => panic!("{other:?}"),
    }
}
