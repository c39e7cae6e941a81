//! Stored documents: each reads back as it was written, its form is the one that older versions wrote, and a document that an older
//! version wrote is still read.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use sortinghat_proto::{
    Backbone, Digest, Mixing, ObjectRef, Precision, TrainingCrop, Tta, TtaRecipe,
    manifest::{
        AbsentClass, ClassCount, ClassMetrics, ClassSize, CleanedAccuracy, ConfidenceBin, Confusion, DatasetManifest,
        DatasetProvenance, Decision, Decisions, Document, DocumentError, EpochRecord, EvaluationManifest,
        EvaluationTarget, Findings, FineTuneRecord, Framing, IngestCounts, Interval, LabelDoubt, LambdaScore, LeftOut,
        LeftOutReason, Mistake, ModelManifest, PairedTest, PredictionCounts, PredictionsManifest, RateSearch,
        RecipeRecord, RegressionRecord, Rejection, RejectionReason, Remark, Score, Shard, SplitKind, SplitPair, Spread,
        UnlikeMethod, UnlikeRecord, UnlikeScale, UploadManifest, UploadedFile, Verdict, View, WeightsProvenance,
        decode, encode, references,
    },
};

use crate::{
    config,
    strategies::{classes, digest, object},
};

fn upload() -> impl Strategy<Value = UploadManifest> {
    let text = || option::of(".{1,20}");
    let file = (".{1,40}", object(), text(), text()).prop_map(|(path, object, shown_as, unread)| UploadedFile {
        path,
        object,
        shown_as,
        unread,
    });
    (vec(file, 0..5), vec(left_out(), 0..3)).prop_map(|(files, left_out)| UploadManifest { files, left_out })
}

fn left_out() -> impl Strategy<Value = LeftOut> {
    let reason = select(vec![LeftOutReason::OutsideLink, LeftOutReason::Litter, LeftOutReason::EmptyFolder]);
    (reason, any::<u64>(), vec(".{1,20}", 0..3)).prop_map(|(reason, entries, paths)| LeftOut { reason, entries, paths })
}

/// A remark of any kind.
fn remark() -> impl Strategy<Value = Remark> {
    let names = || vec(".{1,20}", 0..3);
    let size = || (".{1,20}", any::<u64>()).prop_map(|(class, photos)| ClassSize { class, photos });
    let absent = (".{1,20}", ".{1,20}").prop_map(|(class, why)| AbsentClass { class, why });
    let pair = (".{1,20}", ".{1,20}").prop_map(|(held_out, learned)| SplitPair { held_out, learned });
    prop_oneof![
        vec(absent, 0..3).prop_map(|classes| Remark::ClassesWithoutPhotos { classes }),
        names().prop_map(|classes| Remark::OneNameInSeveralForms { classes }),
        vec(names(), 0..3).prop_map(|groups| Remark::SimilarNames { groups }),
        (names(), any::<u64>(), names()).prop_map(|(folders, files, held_out)| Remark::TestFolderLeftOut {
            folders,
            files,
            held_out
        }),
        (names(), any::<[u64; 2]>()).prop_map(|(folders, [files, photos])| Remark::FoldersBesideSplit {
            folders,
            files,
            photos
        }),
        vec(left_out(), 0..3).prop_map(|groups| Remark::LeftOut { groups }),
        (any::<[u64; 2]>(), vec(pair, 0..3)).prop_map(|([groups, held_out], examples)| {
            Remark::NearDuplicatesAcrossSplit { groups, held_out, examples }
        }),
        names().prop_map(|classes| Remark::OnlyNearDuplicates { classes }),
        (vec(size(), 0..3), any::<u64>()).prop_map(|(classes, fewer_than)| Remark::FewPhotos { classes, fewer_than }),
        (size(), size()).prop_map(|(largest, smallest)| Remark::Imbalance { largest, smallest }),
        (any::<u64>(), names()).prop_map(|(photos, examples)| Remark::ColorProfiles { photos, examples }),
        (any::<u64>(), names()).prop_map(|(photos, examples)| Remark::Mended { photos, examples }),
        (any::<u64>(), names()).prop_map(|(photos, examples)| Remark::WrongExtension { photos, examples }),
        (any::<u64>(), names()).prop_map(|(photos, terms)| Remark::FromTheWeb { photos, terms }),
        Just(Remark::Unknown),
    ]
}

fn decisions() -> impl Strategy<Value = Decisions> {
    let verdict = prop_oneof![
        Just(Verdict::Keep),
        Just(Verdict::Exclude),
        ".{1,20}".prop_map(|class| Verdict::Relabel { class }),
    ];
    let decision = (digest(), option::of("[a-z/.]{1,20}"), verdict).prop_map(|(digest, path, verdict)| Decision {
        digest,
        path,
        verdict,
    });
    vec(decision, 0..5).prop_map(|decisions| Decisions { decisions })
}

fn dataset() -> impl Strategy<Value = DatasetManifest> {
    let count = (any::<u64>(), any::<u64>()).prop_map(|(train, valid)| ClassCount { train, valid });
    let split = prop_oneof![
        Just(SplitKind::Given),
        (1..=50_u32).prop_map(SplitKind::ValidPercent),
        (2..=20_u32).prop_map(SplitKind::Folds),
    ];
    let shard = (object(), 0..1_000_000_u64).prop_map(|(object, rows)| Shard { object, rows });
    let what =
        (classes(), vec(count, 0..4), split, vec(shard, 0..4), object(), option::of(object()), vec(remark(), 0..4));
    (what, any::<[u64; 9]>(), any::<u32>()).prop_map(
        |((classes, class_counts, split, shards, source, rejections, remarks), numbers, derivative_short_side_px)| {
            let [
                seed,
                near_duplicate_groups,
                inputs,
                accepted,
                duplicates,
                conflicting,
                quarantined,
                unsupported,
                ignored,
            ] = numbers;
            let counts = IngestCounts { inputs, accepted, duplicates, conflicting, quarantined, unsupported, ignored };
            DatasetManifest {
                classes,
                class_counts,
                split,
                seed,
                shards,
                derivative_short_side_px,
                source,
                counts,
                near_duplicate_groups,
                rejections,
                remarks,
                gathered: None,
            }
        },
    )
}

fn predictions() -> impl Strategy<Value = PredictionsManifest> {
    let counts = any::<[u64; 3]>().prop_map(|[inputs, results, errors]| PredictionCounts { inputs, results, errors });
    let made_by = (option::of("[a-z]{1,9}@[1-9]"), option::of("[0-9.]{1,9}"));
    (".{0,20}", object(), made_by, object(), classes(), vec(object(), 0..4), counts).prop_map(
        |(model, model_manifest, (dataset, software), source, classes, parts, counts)| PredictionsManifest {
            model,
            model_manifest,
            dataset,
            software,
            source,
            classes,
            parts,
            counts,
        },
    )
}

/// Asserts that `document` reads back as it was written, and that its parts are found in it.
fn survives<T: Document + PartialEq + std::fmt::Debug>(document: &T, parts: &[&ObjectRef]) {
    let stored = encode(document);
    assert_eq!(&decode::<T>(&stored).expect("just written"), document);
    let found = references(&stored).expect("a document");
    assert_eq!(found.format, T::FORMAT);
    parts.iter().for_each(|part| assert!(found.objects.contains(part), "{part:?}"));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_upload_and_decisions_read_back_as_they_were_written(upload in upload(), decisions in decisions()) {
        survives(&upload, &upload.files.iter().map(|file| &file.object).collect::<Vec<_>>());
        survives(&decisions, &[]);
    }

    #[test]
    fn a_dataset_reads_back_as_it_was_written(dataset in dataset()) {
        let shards = dataset.shards.iter().map(|shard| &shard.object);
        survives(&dataset, &shards.chain([&dataset.source]).chain(&dataset.rejections).collect::<Vec<_>>());
        prop_assert_eq!(dataset.photos(), dataset.shards.iter().map(|shard| shard.rows).sum::<u64>());
    }

    #[test]
    fn predictions_read_back_as_they_were_written(predictions in predictions()) {
        let parts = predictions.parts.iter();
        survives(&predictions, &parts.chain([&predictions.source, &predictions.model_manifest]).collect::<Vec<_>>());
    }

    #[test]
    fn a_rejection_is_one_line(path in ".{0,40}", message in "(?s).{0,40}", digest in digest(), reason in reason()) {
        let rejection = Rejection { path, digest, reason, message };
        let line = serde_json::to_string(&rejection).expect("JSON");
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(serde_json::from_str::<Rejection>(&line).expect("just written"), rejection);
    }

    #[test]
    fn counts_balance_if_every_input_is_counted_once(counts: [u32; 6], more in 1..=9_u64) {
        let [accepted, duplicates, conflicting, quarantined, unsupported, ignored] = counts.map(u64::from);
        let inputs = counts.iter().map(|count| u64::from(*count)).sum();
        let counts = IngestCounts { inputs, accepted, duplicates, conflicting, quarantined, unsupported, ignored };
        prop_assert!(counts.balance());
        let lost = IngestCounts { inputs: inputs + more, ..counts };
        prop_assert!(!lost.balance());
    }

    #[test]
    fn wilsons_interval_holds_the_share_and_shrinks_with_more_photos(correct in 0..=500_u64, wrong in 0..=500_u64) {
        let total = correct + wrong;
        prop_assume!(total > 0);
        let share = correct as f64 / total as f64;
        let (few, many) = (Interval::wilson(correct, total), Interval::wilson(correct * 10, total * 10));
        prop_assert!(0.0 <= few.low && few.low <= share + 1e-9 && share <= few.high + 1e-9 && few.high <= 1.0);
        prop_assert!(many.high - many.low < few.high - few.low);
    }
}

fn reason() -> impl Strategy<Value = RejectionReason> {
    use RejectionReason as Reason;
    select(vec![
        Reason::Empty,
        Reason::Truncated,
        Reason::Corrupt,
        Reason::OverLimit,
        Reason::Unsupported,
        Reason::NotAPhoto,
        Reason::NoClass,
        Reason::Duplicate,
        Reason::Conflicting,
        Reason::BesideSplit,
        Reason::Unreadable,
        Reason::Other,
    ])
}

fn object_of(content: &str) -> ObjectRef {
    ObjectRef::of(content.as_bytes())
}

/// A model that uses every field; its numbers have short decimal forms.
fn model() -> ModelManifest {
    ModelManifest {
        classes: vec!["cats".into(), "dogs".into()],
        backbone: Backbone::EfficientnetLite0,
        weights: object_of("weights"),
        image_size_px: 224,
        mean: [0.5, 0.25, 0.125],
        std: [0.5; 3],
        recipe: RecipeRecord::Fastai2(FineTuneRecord {
            freeze_epochs: 1,
            epochs: 5,
            base_lr: 0.002,
            rate_search: Some(RateSearch {
                learning_rates: vec![0.1, 0.2],
                losses: vec![2.0, 1.0],
                valley: 0.125,
                minimum: 0.02,
                steep: 0.1,
                slide: 0.2,
            }),
            mixing: Some(Mixing::CutMix { alpha: 1.0 }),
            label_smoothing: 0.1,
            crop: TrainingCrop::RandomResized { min_scale: 0.08 },
            batch_size: 64,
            micro_batch_size: 32,
        }),
        dataset: DatasetProvenance { name: "stamps@1".into(), manifest: object_of("dataset"), fold: Some(2) },
        pretrained: WeightsProvenance { source: "none".into(), digest: Some(Digest::of(b"pretrained")) },
        seed: 7,
        precision: Precision::Bf16,
        device: "cuda:0".into(),
        threads: 4,
        software: "0.1.0".into(),
        history: vec![EpochRecord {
            frozen: true,
            epoch: 0,
            train_loss: 1.5,
            valid_loss: 1.25,
            accuracy: 0.75,
            duration_ms: 900,
        }],
    }
}

/// An evaluation that uses every field.
fn evaluation() -> EvaluationManifest {
    let score = Score { photos: 4, correct: 3, interval: Interval { low: 0.25, high: 0.875 }, loss: 0.5 };
    let findings = Findings {
        classes: vec!["cats".into(), "dogs".into()],
        plain: score,
        augmented: Some(Score { correct: 4, ..score }),
        tta: Some(Tta { recipe: TtaRecipe::Fastai07, passes: 8 }),
        comparison: Some(PairedTest { only_first: 0, only_second: 1, p_value: 1.0 }),
        per_class: vec![ClassMetrics { photos: 2, predicted: 1, correct: 1, precision: Some(1.0), recall: None }],
        confusion: vec![vec![2, 0], vec![1, 1]],
        most_confused: vec![Confusion { label: 1, predicted: 0, photos: 1 }],
        mistakes: vec![Mistake {
            digest: Digest::of(b"mistake"),
            path: "dogs/a.png".into(),
            label: 1,
            predicted: 0,
            label_probability: 0.25,
            predicted_probability: 0.75,
            loss: 1.5,
        }],
        doubts: Some(vec![LabelDoubt {
            digest: Digest::of(b"doubt"),
            path: "dogs/b.png".into(),
            label: 1,
            suggested: 0,
            label_probability: 0.125,
            suggested_probability: 0.875,
            normalized_margin: 0.125,
            by_class: true,
        }]),
        doubted: 1,
        learned_from: Some(0),
        confidence: vec![ConfidenceBin { from: 0.5, photos: 2, correct: 1, mean: 0.75 }],
        cleaned: Some(CleanedAccuracy {
            score,
            excluded: 1,
            relabelled: 1,
            kept: 2,
            changed_errors: 1,
            unknown: 0,
            changes: vec![("dogs/a.png".into(), Verdict::Relabel { class: "cats".into() })],
        }),
        skipped: 3,
    };
    EvaluationManifest {
        model: "stamps/1".into(),
        on: EvaluationTarget { description: "4 photos".into(), manifest: object_of("dataset"), fold: None },
        findings,
        report: object_of("report"),
        predictions: object_of("predictions"),
    }
}

#[test]
fn the_form_of_a_stored_model_and_evaluation_is_the_one_that_was_written_before() {
    let (model, evaluation) = (model(), evaluation());
    survives(&model, &[&model.weights, &model.dataset.manifest]);
    survives(&evaluation, &[&evaluation.on.manifest, &evaluation.report, &evaluation.predictions]);
    let stored = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).expect("JSON");
    insta::assert_json_snapshot!("model", stored(encode(&model)));
    insta::assert_json_snapshot!("evaluation", stored(encode(&evaluation)));
    assert_eq!(evaluation.findings.errors(), 0);
    assert_eq!(evaluation.findings.best().accuracy(), 1.0);
    assert_eq!(evaluation.findings.plain.accuracy(), 0.75);
}

fn a_dataset() -> DatasetManifest {
    DatasetManifest {
        classes: vec!["cats".into(), "dogs".into()],
        class_counts: vec![ClassCount { train: 2, valid: 1 }; 2],
        split: SplitKind::Given,
        seed: 1,
        shards: vec![],
        derivative_short_side_px: 512,
        source: object_of("upload"),
        counts: IngestCounts { inputs: 6, accepted: 6, ..IngestCounts::default() },
        near_duplicate_groups: 0,
        rejections: None,
        remarks: vec![],
        gathered: None,
    }
}

/// `document` as a version that did not know `fields` wrote it.
fn without(document: &impl Document, fields: &[&str]) -> Vec<u8> {
    let mut stored: Value = serde_json::from_slice(&encode(document)).expect("JSON");
    for field in fields {
        stored.as_object_mut().expect("an object").remove(*field).expect("a field");
    }
    serde_json::to_vec(&stored).expect("JSON")
}

#[test]
fn a_document_of_an_older_version_is_read_with_the_defaults_of_the_fields_that_it_lacks() {
    let old = without(&model(), &["rate_search", "mixing", "label_smoothing", "crop"]);
    let read: ModelManifest = decode(&old).expect("an old model");
    let RecipeRecord::Fastai2(made) = model().recipe else { panic!("a network that was trained") };
    let made =
        FineTuneRecord { rate_search: None, mixing: None, label_smoothing: 0.0, crop: TrainingCrop::Resize, ..made };
    let expected = ModelManifest { recipe: RecipeRecord::Fastai2(made), ..model() };
    assert_eq!(read, expected);
    let read: EvaluationManifest =
        decode(&without(&evaluation(), &["doubts", "doubted", "learned_from", "confidence"]))
            .expect("an old evaluation");
    assert_eq!((read.findings.doubts, read.findings.learned_from, read.findings.confidence), (None, None, vec![]));
    let read: DatasetManifest = decode(&without(&a_dataset(), &["remarks"])).expect("an old dataset");
    assert_eq!(read, a_dataset());
    let upload = UploadManifest::of(vec![UploadedFile::new("a.png", object_of("a"))]);
    assert!(!String::from_utf8(encode(&upload)).expect("JSON").contains("left_out"), "old readers see no difference");
}

#[test]
fn a_model_names_its_recipe_and_says_what_it_was_made_with() {
    let record = RegressionRecord {
        views: vec![View { framing: Framing::Crop, size_px: 288 }, View { framing: Framing::Pad, size_px: 288 }],
        lambda: 0.001,
        temperature: 1.125,
        inner_folds: 5,
        tried: vec![LambdaScore { lambda: 0.001, nll: 0.5 }],
        unlike: Some(UnlikeRecord {
            method: UnlikeMethod::EnergyAndDistance,
            scale: UnlikeScale { energy: Spread::of(&[1.0, 3.0]), distance: Spread::of(&[2.0, 2.0]), threshold: -1.5 },
            held_out: 20,
            false_alarms: 1,
        }),
    };
    let best = ModelManifest { recipe: RecipeRecord::Best(record), ..model() };
    let stored: Value = serde_json::from_slice(&encode(&best)).expect("JSON");
    assert_eq!((&stored["recipe"], &stored["views"][1]["framing"]), (&json!("best"), &json!("pad")));
    assert_eq!(decode::<ModelManifest>(&encode(&best)).expect("what was stored"), best);
    assert_eq!(
        (&stored["unlike"]["method"], &stored["unlike"]["energy"]["mean"]),
        (&json!("energy_and_distance"), &json!(2.0))
    );
    assert_eq!(stored["unlike"]["distance"]["deviation"], json!(1.0), "equal values are not divided by zero");
    let old = decode::<ModelManifest>(&without(&best, &["unlike"])).expect("a model of before");
    assert_eq!(old.recipe.regression().expect("a regression").unlike, None);
    let stored: Value = serde_json::from_slice(&encode(&model())).expect("JSON");
    assert_eq!((&stored["recipe"], &stored["epochs"]), (&json!("fastai2"), &json!(5)));
}

#[test]
fn what_is_no_document_of_the_wanted_kind_says_what_was_expected_and_what_was_found() {
    let upload = encode(&UploadManifest::default());
    assert!(
        matches!(decode::<ModelManifest>(&upload), Err(DocumentError::WrongFormat { found, .. }) if found == "sortinghat.upload/1")
    );
    let newer = json!({ "format": "sortinghat.upload/2", "files": [] }).to_string();
    let error = decode::<UploadManifest>(newer.as_bytes()).expect_err("of a newer version");
    assert_eq!(error.to_string(), "expected a sortinghat.upload/1 document, found \"sortinghat.upload/2\"");
    for malformed in ["", "[]", "{\"files\":[]}", "{\"format\":\"sortinghat.upload/1\"}"] {
        let error = decode::<UploadManifest>(malformed.as_bytes()).expect_err(malformed);
        assert!(error.to_string().starts_with("not a sortinghat.upload/1 document: "), "{error}");
    }
}
