//! Job specs: what is refused, which defaults are filled in, and the way over the wire and back.

use proptest::prelude::*;
use prost::Message as _;
use sortinghat_proto::{
    Backbone, BaseRate, JobKind, JobSpec, Name, ObjectRef, Precision, Recipe, Refusal, Split, TrainingCrop, Tta,
    TtaRecipe, WeightsSource,
    v1::{self, job_spec::Kind},
};

use crate::{config, strategies};

fn parse(kind: Kind) -> Result<JobSpec, Refusal> {
    JobSpec::try_from(v1::JobSpec { kind: Some(kind) })
}

fn photos() -> Option<v1::ObjectRef> {
    Some(ObjectRef::of(b"photos").into())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_spec_is_the_same_after_the_wire(spec in strategies::any_spec()) {
        let bytes = v1::JobSpec::from(spec.clone()).encode_to_vec();
        let received = v1::JobSpec::decode(&*bytes).expect("just encoded");
        prop_assert_eq!(received.job_kind(), Some(spec.kind()));
        prop_assert_eq!(JobSpec::try_from(received), Ok(spec));
    }

    #[test]
    fn the_uploads_of_a_spec_are_named_by_its_kind_and_occur_in_its_message(spec in strategies::any_spec()) {
        let bytes = v1::JobSpec::from(spec.clone()).encode_to_vec();
        let found: Vec<_> = sortinghat_proto::manifest::digests_in(&bytes).collect();
        for (field, object) in spec.uploads() {
            prop_assert!(field.starts_with(&format!("{}.", spec.kind())), "{}", field);
            prop_assert!(found.contains(&object.digest), "{}", field);
        }
        prop_assert!(spec.uploaded_weights().is_none_or(|weights| found.contains(weights)));
    }

    #[test]
    fn a_job_keeps_its_output_under_the_name_in_its_spec(
        mut spec in strategies::any_spec(),
        dataset in strategies::name(),
    ) {
        // As the coordinator does when it accepts a job: the dataset lends its name where the spec has none.
        if let Some(open) = spec.missing_output_name() {
            *open = Some(dataset);
        }
        prop_assert_eq!(spec.missing_output_name(), None);
        let named = v1::JobSpec::from(spec.clone()).output_name();
        prop_assert_eq!(named.map(|(kind, _)| kind), spec.kind().makes());
    }
}

#[test]
fn a_job_needs_a_kind_and_the_refusal_lists_all_of_them() {
    let refusal = JobSpec::try_from(v1::JobSpec { kind: None }).expect_err("no kind");
    assert_eq!(refusal.field, "spec.kind");
    for kind in JobKind::ALL {
        assert!(refusal.message.contains(kind.as_str()), "{}", refusal.message);
    }
    let unknown = v1::JobSpec { kind: None };
    assert_eq!((unknown.job_kind(), unknown.subject(), unknown.output_name()), (None, "", None));
}

#[test]
fn a_job_is_about_what_its_user_named() {
    let stamps = || "stamps".to_owned();
    let subjects = [
        Kind::Ingest(v1::IngestSpec { dataset_name: stamps(), ..Default::default() }),
        Kind::Finetune(v1::FinetuneSpec { dataset: stamps(), model_name: "other".into(), ..Default::default() }),
        Kind::Evaluate(v1::EvaluateSpec { model: stamps(), ..Default::default() }),
        Kind::Classify(v1::ClassifySpec { model: stamps(), ..Default::default() }),
        Kind::Audit(v1::AuditSpec { dataset: stamps(), ..Default::default() }),
        Kind::Gather(v1::GatherSpec { dataset_name: stamps(), ..Default::default() }),
    ];
    for kind in subjects {
        assert_eq!(v1::JobSpec { kind: Some(kind) }.subject(), "stamps");
    }
}

#[test]
fn an_ingest_that_says_little_holds_out_a_fifth() {
    let wire = v1::IngestSpec { dataset_name: "stamps".into(), source: photos(), ..Default::default() };
    let JobSpec::Ingest(spec) = parse(Kind::Ingest(wire)).expect("valid") else { panic!("not an ingest") };
    assert_eq!((spec.split, spec.derivative_short_side_px), (Split::ValidPercent(20), 512));
}

#[test]
fn a_finetune_that_says_nothing_chooses_its_recipe_and_one_that_says_how_to_train_gets_fastais_defaults() {
    let JobSpec::Finetune(spec) = finetune_of(|spec| spec.freeze_epochs = Some(1)).expect("valid") else {
        panic!("not a finetune")
    };
    let Recipe::Fastai2(options) = &spec.recipe else { panic!("an option of fastai2 means fastai2") };
    assert_eq!((options.epochs, options.freeze_epochs, options.batch_size), (5, 1, 64));
    assert_eq!((options.base_lr, options.mixing, options.label_smoothing), (BaseRate::Given(2e-3), None, 0.0));
    assert_eq!((options.crop, spec.image_size_px), (TrainingCrop::Resize, 224));
    let JobSpec::Finetune(mut spec) = finetune_of(|_| ()).expect("valid") else { panic!("not a finetune") };
    assert_eq!((&spec.recipe, spec.precision), (&Recipe::Auto, Precision::Auto));
    assert_eq!((spec.backbone, spec.image_size_px), (Backbone::EfficientnetLite0, 288));
    assert_eq!((spec.weights.clone(), spec.fold), (WeightsSource::Pretrained, None));
    let named: Name = "mine".parse().expect("a name");
    spec.model_name = Some(named.clone());
    let output = v1::JobSpec::from(JobSpec::Finetune(spec)).output_name().expect("a name");
    assert_eq!(output.1, named);
}

#[test]
fn predictions_that_say_little_return_five_classes_from_one_pass() {
    let wire = v1::ClassifySpec { model: "stamps/1".into(), source: photos(), ..Default::default() };
    let JobSpec::Classify(spec) = parse(Kind::Classify(wire.clone())).expect("valid") else { panic!("not a classify") };
    assert_eq!((spec.top_k, spec.tta), (5, None));
    let augmented = v1::ClassifySpec { tta: v1::TtaRecipe::Max.into(), ..wire };
    let JobSpec::Classify(spec) = parse(Kind::Classify(augmented)).expect("valid") else { panic!("not a classify") };
    assert_eq!(spec.tta, Some(Tta { recipe: TtaRecipe::Max, passes: 4 }));
}

type Change<T> = fn(&mut T);

fn finetune_of(change: impl FnOnce(&mut v1::FinetuneSpec)) -> Result<JobSpec, Refusal> {
    let mut wire = v1::FinetuneSpec { dataset: "stamps@1".into(), ..Default::default() };
    change(&mut wire);
    parse(Kind::Finetune(wire))
}

#[test]
fn every_value_of_a_finetune_out_of_range_is_refused_with_its_field() {
    let cases: [(&str, Change<v1::FinetuneSpec>); 21] = [
        ("finetune.dataset", |spec| spec.dataset = "stamps/1".into()),
        ("finetune.dataset", |spec| spec.dataset = String::new()),
        ("finetune.model_name", |spec| spec.model_name = "Mine".into()),
        ("finetune.recipe", |spec| spec.recipe = "mine".into()),
        ("finetune.backbone", |spec| spec.backbone = "vgg".into()),
        ("finetune.weights", |spec| spec.weights = "hub:../etc".into()),
        ("finetune.weights", |spec| spec.weights = "object:abc".into()),
        ("finetune.epochs", |spec| spec.epochs = 1001),
        ("finetune.freeze_epochs", |spec| spec.freeze_epochs = Some(101)),
        ("finetune.base_lr", |spec| spec.base_lr = f64::NAN),
        ("finetune.base_lr", |spec| spec.base_lr = -1.0),
        ("finetune.batch_size", |spec| spec.batch_size = 1),
        ("finetune.image_size_px", |spec| spec.image_size_px = 31),
        ("finetune.fold", |spec| spec.fold = Some(20)),
        ("finetune.precision", |spec| spec.precision = 9),
        ("finetune.mixup_alpha", |spec| spec.mixup_alpha = -0.1),
        ("finetune.cutmix_alpha", |spec| spec.cutmix_alpha = 1.1),
        ("finetune.label_smoothing", |spec| spec.label_smoothing = 1.0),
        ("finetune.label_smoothing", |spec| spec.label_smoothing = f64::NAN),
        ("finetune.crop", |spec| spec.crop = 9),
        ("finetune.min_scale", |spec| (spec.crop, spec.min_scale) = (v1::TrainingCrop::RandomResized.into(), 2.0)),
    ];
    for (field, change) in cases {
        assert_eq!(finetune_of(change).expect_err(field).field, field);
    }
}

#[test]
fn every_value_of_an_ingest_out_of_range_is_refused_with_its_field() {
    let cases: [(&str, Change<v1::IngestSpec>); 7] = [
        ("ingest.dataset_name", |spec| spec.dataset_name = "stamps@1".into()),
        ("ingest.source", |spec| spec.source = None),
        ("ingest.source", |spec| spec.source = Some(v1::ObjectRef::default())),
        ("ingest.valid_percent", |spec| spec.valid_percent = 51),
        ("ingest.folds", |spec| spec.folds = 1),
        ("ingest.derivative_short_side_px", |spec| spec.derivative_short_side_px = 63),
        ("ingest.layout", |spec| spec.layout = 9),
    ];
    for (field, change) in cases {
        let mut wire = v1::IngestSpec { dataset_name: "stamps".into(), source: photos(), ..Default::default() };
        change(&mut wire);
        assert_eq!(parse(Kind::Ingest(wire)).expect_err(field).field, field);
    }
}

#[test]
fn every_value_of_an_evaluation_or_a_prediction_out_of_range_is_refused_with_its_field() {
    use v1::evaluate_spec::On;
    let evaluations: [(&str, Change<v1::EvaluateSpec>); 7] = [
        ("evaluate.model", |spec| spec.model = "stamps@1".into()),
        ("evaluate.dataset", |spec| spec.on = Some(On::Dataset("stamps/1".into()))),
        ("evaluate.source", |spec| spec.on = Some(On::Source(v1::ObjectRef::default()))),
        ("evaluate.decisions", |spec| spec.decisions = Some(v1::ObjectRef::default())),
        ("evaluate.tta", |spec| spec.tta = 9),
        ("evaluate.tta_passes", |spec| (spec.tta, spec.tta_passes) = (v1::TtaRecipe::Max.into(), 33)),
        ("evaluate.precision", |spec| spec.precision = 9),
    ];
    for (field, change) in evaluations {
        let mut wire = v1::EvaluateSpec { model: "stamps/1".into(), ..Default::default() };
        change(&mut wire);
        assert_eq!(parse(Kind::Evaluate(wire)).expect_err(field).field, field);
    }
    let predictions: [(&str, Change<v1::ClassifySpec>); 5] = [
        ("classify.model", |spec| spec.model = String::new()),
        ("classify.source", |spec| spec.source = None),
        ("classify.top_k", |spec| spec.top_k = 1001),
        ("classify.tta_passes", |spec| spec.tta_passes = 1),
        ("classify.precision", |spec| spec.precision = 9),
    ];
    for (field, change) in predictions {
        let mut wire = v1::ClassifySpec { model: "stamps/1".into(), source: photos(), ..Default::default() };
        change(&mut wire);
        assert_eq!(parse(Kind::Classify(wire)).expect_err(field).field, field);
    }
}

#[test]
fn an_option_that_would_be_ignored_is_an_error() {
    let wire = v1::EvaluateSpec { model: "stamps/1".into(), tta_passes: 4, ..Default::default() };
    assert_eq!(parse(Kind::Evaluate(wire)).expect_err("no recipe").field, "evaluate.tta_passes");
    let wire = v1::IngestSpec {
        dataset_name: "a".into(),
        source: photos(),
        valid_percent: 20,
        folds: 5,
        ..Default::default()
    };
    assert_eq!(parse(Kind::Ingest(wire)).expect_err("both").field, "ingest.folds");
    let finetunes: [(&str, Change<v1::FinetuneSpec>); 3] = [
        ("finetune.find_lr", |spec| (spec.find_lr, spec.base_lr) = (true, 1e-3)),
        ("finetune.cutmix_alpha", |spec| (spec.mixup_alpha, spec.cutmix_alpha) = (0.4, 1.0)),
        ("finetune.min_scale", |spec| spec.min_scale = 0.5),
    ];
    for (field, change) in finetunes {
        assert_eq!(finetune_of(change).expect_err(field).field, field);
    }
}

#[test]
fn a_recipe_that_trains_no_network_refuses_every_option_of_training_one() {
    let options: [(&str, Change<v1::FinetuneSpec>); 10] = [
        ("finetune.epochs", |spec| spec.epochs = 5),
        ("finetune.freeze_epochs", |spec| spec.freeze_epochs = Some(0)),
        ("finetune.base_lr", |spec| spec.base_lr = 0.002),
        ("finetune.batch_size", |spec| spec.batch_size = 64),
        ("finetune.mixup_alpha", |spec| spec.mixup_alpha = 0.4),
        ("finetune.cutmix_alpha", |spec| spec.cutmix_alpha = 1.0),
        ("finetune.label_smoothing", |spec| spec.label_smoothing = 0.1),
        ("finetune.crop", |spec| spec.crop = v1::TrainingCrop::Resize.into()),
        ("finetune.min_scale", |spec| spec.min_scale = 0.5),
        ("finetune.find_lr", |spec| spec.find_lr = true),
    ];
    for recipe in ["auto", "fast", "best"] {
        let JobSpec::Finetune(spec) = finetune_of(|spec| spec.recipe = recipe.into()).expect("valid") else {
            panic!("not a finetune")
        };
        assert_eq!((spec.recipe.as_str(), spec.image_size_px), (recipe, spec.recipe.default_image_size_px()));
        for (field, change) in options {
            let refused = finetune_of(|spec| {
                spec.recipe = recipe.into();
                change(spec);
            });
            assert_eq!(refused.expect_err(field).field, field, "{recipe}");
        }
    }
}
