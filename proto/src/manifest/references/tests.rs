use std::collections::BTreeSet;

use super::*;
use crate::{
    Backbone, Mixing, Precision, Tta, TtaRecipe,
    manifest::{
        ClassCount, ClassMetrics, CleanedAccuracy, ConfidenceBin, Confusion, Credit, DatasetManifest,
        DatasetProvenance, Decision, Decisions, Document, EpochRecord, EvaluationManifest, EvaluationTarget, Findings,
        FineTuneRecord, Gathered, GatheredClass, IngestCounts, Interval, LabelDoubt, ListedUrl, Mistake, ModelManifest,
        PairedTest, PredictionCounts, PredictionsManifest, RateSearch, RecipeRecord, Score, Shard, SplitKind,
        UploadedFile, UrlList, Verdict, WeightsProvenance, encode,
    },
    v1,
};

/// Gives every field of an example a digest of its own, and knows which it gave.
#[derive(Default)]
struct Digests {
    objects: BTreeSet<Digest>,
    mentions: BTreeSet<Digest>,
}

impl Digests {
    fn next(&self) -> Digest {
        Digest::of(&(self.objects.len() + self.mentions.len()).to_le_bytes())
    }

    fn object(&mut self) -> ObjectRef {
        let digest = self.next();
        self.objects.insert(digest.clone());
        ObjectRef { digest, size_bytes: 7 }
    }

    fn mention(&mut self) -> Digest {
        let digest = self.next();
        self.mentions.insert(digest.clone());
        digest
    }

    /// Every digest of the example is found as what it is.
    fn assert_found<T: Document>(&self, example: &T) {
        let found = references(&encode(example)).expect("a document");
        assert_eq!(found.format, T::FORMAT);
        let objects: BTreeSet<Digest> = found.objects.into_iter().map(|object| object.digest).collect();
        assert_eq!((objects, found.mentions.into_iter().collect()), (self.objects.clone(), self.mentions.clone()));
    }
}

// The examples below name every field, so that whoever adds one is asked here whether it holds a digest.

#[test]
fn every_digest_of_an_upload_and_of_decisions_is_found() {
    let mut digests = Digests::default();
    let files =
        vec![UploadedFile::new("cats/a.png", digests.object()), UploadedFile::new("cats/b.png", digests.object())];
    digests.assert_found(&UploadManifest::of(files));

    let mut digests = Digests::default();
    let verdicts = [Verdict::Keep, Verdict::Exclude, Verdict::Relabel { class: "dogs".into() }];
    let decisions = verdicts.map(|verdict| Decision { digest: digests.mention(), path: None, verdict }).into();
    digests.assert_found(&Decisions { decisions });
}

#[test]
fn every_digest_of_a_dataset_is_found() {
    let mut digests = Digests::default();
    let dataset = DatasetManifest {
        classes: vec!["cats".into()],
        class_counts: vec![ClassCount { train: 1, valid: 1 }],
        split: SplitKind::ValidPercent(20),
        seed: 1,
        shards: vec![Shard { object: digests.object(), rows: 1 }, Shard { object: digests.object(), rows: 1 }],
        derivative_short_side_px: 256,
        source: digests.object(),
        counts: IngestCounts::default(),
        near_duplicate_groups: 0,
        rejections: Some(digests.object()),
        remarks: vec![],
        gathered: Some(Gathered {
            sources: digests.object(),
            classes: vec![GatheredClass::default()],
            added_to: Some("stamps@1".into()),
            added_to_manifest: Some(digests.object()),
        }),
    };
    digests.assert_found(&dataset);
    let credit = Credit::default();
    let urls = vec![ListedUrl { class: "cats".into(), url: "https://example.org/a.png".into(), credit }];
    Digests::default().assert_found(&UrlList { urls });
}

#[test]
fn every_digest_of_a_model_is_found() {
    let mut digests = Digests::default();
    let model = ModelManifest {
        classes: vec!["cats".into()],
        backbone: Backbone::Resnet18,
        weights: digests.object(),
        image_size_px: 224,
        mean: [0.5; 3],
        std: [0.5; 3],
        recipe: RecipeRecord::Fastai2(FineTuneRecord {
            freeze_epochs: 1,
            epochs: 1,
            base_lr: 0.002,
            rate_search: Some(RateSearch {
                learning_rates: vec![0.1],
                losses: vec![0.1],
                valley: 0.1,
                minimum: 0.1,
                steep: 0.1,
                slide: 0.1,
            }),
            mixing: Some(Mixing::MixUp { alpha: 0.4 }),
            label_smoothing: 0.0,
            crop: crate::TrainingCrop::Resize,
            batch_size: 64,
            micro_batch_size: 64,
        }),
        dataset: DatasetProvenance { name: "stamps@1".into(), manifest: digests.object(), fold: None },
        pretrained: WeightsProvenance { source: "object".into(), digest: Some(digests.mention()) },
        seed: 1,
        precision: Precision::F32,
        device: "cpu".into(),
        threads: 1,
        software: "1".into(),
        history: vec![EpochRecord {
            frozen: true,
            epoch: 0,
            train_loss: 0.1,
            valid_loss: 0.1,
            accuracy: 0.9,
            duration_ms: 1,
        }],
    };
    digests.assert_found(&model);
}

#[test]
fn every_digest_of_predictions_is_found() {
    let mut digests = Digests::default();
    let predictions = PredictionsManifest {
        model: "stamps/1".into(),
        model_manifest: digests.object(),
        dataset: Some("stamps@1".into()),
        software: None,
        source: digests.object(),
        classes: vec!["cats".into()],
        parts: vec![digests.object(), digests.object()],
        counts: PredictionCounts::default(),
    };
    digests.assert_found(&predictions);
}

fn findings(digests: &mut Digests) -> Findings {
    let score = Score { photos: 2, correct: 1, interval: Interval::wilson(1, 2), loss: 0.5 };
    Findings {
        classes: vec!["cats".into()],
        plain: score,
        augmented: Some(score),
        tta: Some(Tta { recipe: TtaRecipe::Fastai2, passes: 4 }),
        comparison: Some(PairedTest { only_first: 1, only_second: 0, p_value: 1.0 }),
        per_class: vec![ClassMetrics { photos: 2, predicted: 1, correct: 1, precision: Some(1.0), recall: None }],
        confusion: vec![vec![2]],
        most_confused: vec![Confusion { label: 0, predicted: 0, photos: 1 }],
        mistakes: vec![Mistake {
            digest: digests.mention(),
            path: "cats/a.png".into(),
            label: 0,
            predicted: 0,
            label_probability: 0.1,
            predicted_probability: 0.9,
            loss: 2.0,
        }],
        doubts: Some(vec![LabelDoubt {
            digest: digests.mention(),
            path: "cats/b.png".into(),
            label: 0,
            suggested: 0,
            label_probability: 0.1,
            suggested_probability: 0.9,
            normalized_margin: 0.1,
            by_class: true,
        }]),
        doubted: 1,
        learned_from: Some(0),
        confidence: vec![ConfidenceBin { from: 0.5, photos: 2, correct: 1, mean: 0.75 }],
        cleaned: Some(CleanedAccuracy {
            score,
            excluded: 1,
            relabelled: 0,
            kept: 0,
            changed_errors: 0,
            unknown: 0,
            changes: vec![("cats/a.png".into(), Verdict::Exclude)],
        }),
        skipped: 0,
    }
}

#[test]
fn every_digest_of_an_evaluation_is_found() {
    let mut digests = Digests::default();
    let evaluation = EvaluationManifest {
        model: "stamps/1".into(),
        on: EvaluationTarget { description: "142 photos".into(), manifest: digests.object(), fold: None },
        findings: findings(&mut digests),
        report: digests.object(),
        predictions: digests.object(),
    };
    digests.assert_found(&evaluation);
}

#[test]
fn digests_in_a_format_that_is_not_known_here_are_found_as_well() {
    let digest = |name: &str| Digest::of(name.as_bytes());
    let object = |name: &str| serde_json::json!({ "digest": digest(name), "size_bytes": 7, "rows": 1 });
    let part = serde_json::json!({
        "format": "sortinghat.ingest-part/1",
        "findings": [{ "photo": { "format": "png", "picture": { "object": 0, "bytes": { "start": 0, "end": 9 } } } }],
        "pictures": [object("first"), object("second")],
        "plain": object("third"),
        "seen": [digest("fourth"), [format!("object:{}", digest("fifth"))]],
        "by_photo": { digest("sixth").as_str(): -0.5 },
        "length_without_digest": { "size_bytes": 7 },
        "digest_of_something": { "digest": digest("seventh"), "size_bytes": "7" },
    });
    let found = references(&serde_json::to_vec(&part).expect("JSON")).expect("a document");
    let names = |digests: Vec<Digest>| digests.into_iter().collect::<BTreeSet<_>>();
    let objects = names(found.objects.into_iter().map(|object| object.digest).collect());
    assert_eq!(objects, names(["first", "second", "third"].map(digest).into()));
    assert_eq!(names(found.mentions), names(["fourth", "fifth", "sixth", "seventh"].map(digest).into()));
    assert_eq!(found.format, "sortinghat.ingest-part/1");
}

#[test]
fn every_digest_of_a_job_spec_is_found() {
    use prost::Message as _;
    use v1::{evaluate_spec::On, job_spec::Kind};
    let (first, second) = (ObjectRef::of(b"first"), ObjectRef::of(b"second"));
    let kinds = [
        (Kind::Ingest(v1::IngestSpec { source: Some(first.clone().into()), ..Default::default() }), vec![&first]),
        (Kind::Gather(v1::GatherSpec { urls: Some(first.clone().into()), ..Default::default() }), vec![&first]),
        (Kind::Classify(v1::ClassifySpec { source: Some(first.clone().into()), ..Default::default() }), vec![&first]),
        (
            Kind::Finetune(v1::FinetuneSpec { weights: format!("object:{}", first.digest), ..Default::default() }),
            vec![&first],
        ),
        (
            Kind::Evaluate(v1::EvaluateSpec {
                on: Some(On::Source(first.clone().into())),
                decisions: Some(second.clone().into()),
                ..Default::default()
            }),
            vec![&first, &second],
        ),
    ];
    for (kind, expected) in kinds {
        let found: BTreeSet<Digest> = digests_in(&v1::JobSpec { kind: Some(kind) }.encode_to_vec()).collect();
        let expected: BTreeSet<Digest> = expected.into_iter().map(|object| object.digest.clone()).collect();
        assert!(found.is_superset(&expected), "{found:?}");
    }
    assert_eq!(digests_in(b"short").count(), 0);
}

#[test]
fn content_that_is_not_json_names_nothing_and_only_the_files_of_an_upload_are_never_documents() {
    for bytes in [&b"\x89PNG"[..], b"", b"{\"format\":", b"{}{}"] {
        assert_eq!(references(bytes), None);
    }
    let of = |format: &str| references(format!(r#"{{"format":"{format}"}}"#).as_bytes()).expect("JSON");
    assert!(!of("sortinghat.upload/1").may_be_documents());
    assert!(of("sortinghat.dataset/1").may_be_documents() && of("").may_be_documents());
}
