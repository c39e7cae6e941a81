//! Runs the job kinds one after the other on real files and a real network, without a coordinator.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

mod choosing;
mod shapes;
mod unlike;

use std::{collections::BTreeMap, time::Duration};

use arrow_array::{Array as _, cast::AsArray as _, types::Float32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shapes::{Bench, Inputs, Ran, evaluate, finetune, finetune_with, options, shape, shapes};
use sortinghat_proto::{
    ClassifySpec, DatasetRef, EvaluateOn, EvaluateSpec, FineTune, FinetuneSpec, JobSpec, ModelRef, ObjectRef,
    Precision, Recipe, Split, Tta, TtaRecipe, WeightsSource,
    executor::v1::executor_report::Report,
    manifest::{
        Decision, Decisions, EvaluationManifest, Findings, ModelManifest, PredictionsManifest, Score, UploadManifest,
        UploadedFile, Verdict,
    },
    v1::{ErrorCode, attempt_event::Event},
};
use sortinghat_worker::task::{Done, JobError, JobOutput, Part, StopSignal};

fn refusal(result: Result<Done, JobError>) -> sortinghat_proto::Refusal {
    match result {
        Err(JobError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_finetune_learns_and_its_model_knows_what_it_was_made_with() {
    let bench = Bench::new();
    let dataset = bench.dataset(20, Split::ValidPercent(25));
    let spec = finetune_with(FineTune { epochs: 3, ..options() });
    let ran = bench.run(JobSpec::Finetune(spec), Inputs { dataset: Some(dataset.clone()), ..Inputs::default() });

    let epochs = ran.epochs();
    let frozen: Vec<bool> = epochs.iter().map(|epoch| epoch.frozen).collect();
    assert_eq!(frozen, [true, false, false, false]);
    assert!(epochs[3].train_loss < epochs[0].train_loss, "the loss falls: {epochs:?}");
    assert_eq!(epochs[0].valid_photos, 10);
    assert_eq!(ran.checkpoints().len(), 4);
    assert!(ran.notices().iter().any(|notice| notice.contains("fewer than 20 photos to learn from in disc (15)")));

    let output = ran.output();
    assert!(output.summary.starts_with("resnet18 on 30 photos, "), "{}", output.summary);
    assert!(output.summary.contains("of 10 held-out photos right (95% interval "), "{}", output.summary);
    let model: ModelManifest = bench.objects().document(&output.manifest).unwrap();
    assert_eq!(model.classes, ["disc", "square"]);
    assert_eq!((model.dataset.manifest, model.dataset.name.as_str()), (dataset, "shapes@1"));
    assert_eq!((model.pretrained.source.as_str(), model.pretrained.digest), ("none", None));
    let made = model.recipe.fine_tune().expect("a network that was trained");
    assert_eq!((made.batch_size, made.micro_batch_size, model.history.len()), (10, 10, 4));
}

#[test]
fn a_regression_is_evaluated_as_it_was_measured_and_averages_over_its_own_views() {
    let bench = Bench::new();
    let dataset = Some(bench.dataset(20, Split::ValidPercent(25)));
    for (recipe, views) in [(Recipe::Fast, 1), (Recipe::Best, 2)] {
        let spec = JobSpec::Finetune(FinetuneSpec { recipe: recipe.clone(), ..finetune() });
        let fit = || bench.run(spec.clone(), Inputs { dataset: dataset.clone(), ..Inputs::default() });
        let ran = fit();
        let epochs = ran.epochs();
        let [row] = epochs.as_slice() else { panic!("one row, not {epochs:?}") };
        assert!(ran.notices().iter().any(|notice| notice.contains("chosen on 5 inner folds of the 30 photos")));
        assert!(ran.checkpoints().is_empty());
        let output = ran.output();
        let begins = format!("resnet18, recipe {recipe}, on 30 photos, ");
        assert!(output.summary.starts_with(&begins), "{}", output.summary);
        let manifest = |output: &JobOutput| bench.objects().document::<ModelManifest>(&output.manifest).unwrap();
        let model = manifest(&output);
        let made = model.recipe.regression().expect("a regression");
        assert_eq!((made.views.len(), made.inner_folds, model.recipe.name()), (views, 5, recipe.as_str()));
        assert!(made.tried.len() >= 11 && made.tried.iter().any(|tried| tried.lambda == made.lambda));
        assert_eq!(manifest(&fit().output()).weights, model.weights, "the same bits again");

        let asked = |spec: EvaluateSpec| {
            bench.run(JobSpec::Evaluate(spec), Inputs { model: Some(output.manifest.clone()), ..Inputs::default() })
        };
        let evaluation: EvaluationManifest = bench.objects().document(&asked(evaluate()).output().manifest).unwrap();
        let Score { photos, correct, loss, .. } = evaluation.findings.plain;
        assert_eq!((photos, correct as f64 / photos as f64), (10, row.accuracy));
        assert!((loss - row.valid_loss).abs() < 1e-4, "{loss} and {}", row.valid_loss);
        unlike::assert_photos_are_told(&bench, &output.manifest, made.unlike.as_ref().expect("30 photos are enough"));
        let tta = Some(Tta { recipe: TtaRecipe::Fastai2, passes: 4 });
        let refused = refusal(asked(EvaluateSpec { tta, ..evaluate() }).result);
        assert_eq!(refused.field, "evaluate.tta");
        assert!(refused.message.contains(&format!("made by the recipe {recipe}")), "{}", refused.message);
    }
}

#[test]
fn a_finetune_that_is_resumed_ends_in_the_same_bits() {
    let bench = Bench::new();
    let dataset = Some(bench.dataset(10, Split::ValidPercent(20)));
    let spec = JobSpec::Finetune(finetune_with(FineTune { epochs: 2, ..options() }));
    let weights = |checkpoint| {
        let ran = bench.run(spec.clone(), Inputs { dataset: dataset.clone(), checkpoint, ..Inputs::default() });
        let (checkpoints, epochs) = (ran.checkpoints(), ran.epochs().len());
        let model: ModelManifest = bench.objects().document(&ran.output().manifest).unwrap();
        (model.weights, model.history.len(), epochs, checkpoints)
    };
    let (whole, rows, epochs, checkpoints) = weights(None);
    assert_eq!((rows, epochs), (3, 3));
    let (resumed, rows, epochs, _) = weights(Some(checkpoints[1].clone()));
    assert_eq!((rows, epochs), (3, 1), "only the last epoch was run, and the table is complete");
    assert_eq!(resumed, whole);
}

#[test]
fn a_finetune_that_is_handed_back_again_and_again_ends_in_the_same_bits() {
    // The interval never ends: every checkpoint within an epoch is one that was asked for.
    let bench = Bench::new();
    let dataset = Some(bench.dataset(10, Split::ValidPercent(20)));
    let spec = JobSpec::Finetune(finetune_with(FineTune { epochs: 8, batch_size: 4, ..options() }));
    let weights = |ran: Ran| bench.objects().document::<ModelManifest>(&ran.output().manifest).unwrap().weights;
    let whole = weights(bench.run(spec.clone(), Inputs { dataset: dataset.clone(), ..Inputs::default() }));

    // Four steps an epoch, 36 in all; and in the middle of a validation.
    let (mut checkpoint, mut handed_back) = (None, 0);
    for stop_at in [("train", 2), ("train", 3), ("validate", 1), ("train", 7), ("train", 8), ("train", 13)] {
        let inputs = Inputs { dataset: dataset.clone(), checkpoint: checkpoint.clone(), ..Inputs::default() };
        let ran = bench.run_until(spec.clone(), inputs, move |report, stop| {
            if let Report::Progress(progress) = report
                && progress.phase == stop_at.0
                && progress.done >= stop_at.1
            {
                stop.hand_back();
            }
        });
        match &ran.result {
            Err(JobError::HandedBack) => handed_back += 1,
            // The training ended before it heard the command.
            Ok(_) => continue,
            other => panic!("{other:?}"),
        }
        if checkpoint.is_some() {
            assert!(ran.notices().iter().any(|notice| notice.starts_with("resumed from ")), "{:?}", ran.notices());
        }
        checkpoint = ran.checkpoints().pop().or(checkpoint);
    }
    assert!(handed_back > 0);
    let last = bench.run(spec, Inputs { dataset, checkpoint, ..Inputs::default() });
    assert!(last.notices().iter().any(|notice| notice.starts_with("resumed from epoch ")), "{:?}", last.notices());
    assert_eq!(weights(last), whole);
}

#[test]
fn a_finetune_whose_process_dies_after_any_step_goes_on_from_the_last_reported_checkpoint_to_the_same_bits() {
    let bench = Bench::with_checkpoints_every(Duration::ZERO);
    let dataset = Some(bench.dataset(10, Split::ValidPercent(20)));
    let backbone = sortinghat_proto::Backbone::EfficientnetLite0;
    let spec = JobSpec::Finetune(FinetuneSpec {
        backbone,
        ..finetune_with(FineTune { epochs: 3, batch_size: 4, ..options() })
    });
    let run =
        |checkpoint| bench.run(spec.clone(), Inputs { dataset: dataset.clone(), checkpoint, ..Inputs::default() });
    let weights = |ran: Ran| bench.objects().document::<ModelManifest>(&ran.output().manifest).unwrap().weights;
    let calm = run(None);
    let checkpoints = calm.checkpoints();
    let whole = weights(calm);
    assert!(checkpoints.len() > 4, "more than one an epoch: {}", checkpoints.len());
    // What follows in a run is a function of the last checkpoint that was reported before the process died.
    for checkpoint in checkpoints.into_iter().step_by(3) {
        let resumed = run(Some(checkpoint));
        assert!(resumed.notices().iter().any(|notice| notice.starts_with("resumed ")), "{:?}", resumed.notices());
        assert_eq!(weights(resumed), whole);
    }
}

#[test]
fn after_a_process_died_because_memory_ran_out_a_finetune_takes_smaller_pieces_and_its_model_says_so() {
    let bench = Bench::new();
    let inputs =
        Inputs { dataset: Some(bench.dataset(10, Split::ValidPercent(20))), memory_failures: 1, ..Inputs::default() };
    let ran = bench.run(JobSpec::Finetune(finetune()), inputs);
    assert!(ran.notices().iter().any(|notice| notice.contains("the gradients of 2 photos")), "{:?}", ran.notices());
    let model: ModelManifest = bench.objects().document(&ran.output().manifest).unwrap();
    let made = model.recipe.fine_tune().expect("a network that was trained");
    assert_eq!((made.batch_size, made.micro_batch_size), (10, 2));
}

#[test]
fn a_checkpoint_of_another_run_is_reported_and_not_used() {
    let bench = Bench::new();
    let dataset = Some(bench.dataset(10, Split::ValidPercent(20)));
    let run = |seed, checkpoint| {
        let spec = FinetuneSpec { seed, ..finetune_with(FineTune { freeze_epochs: 0, ..options() }) };
        bench.run(JobSpec::Finetune(spec), Inputs { dataset: dataset.clone(), checkpoint, ..Inputs::default() })
    };
    let other = run(1, None).checkpoints().remove(0);
    let ran = run(2, Some(other));
    assert!(ran.notices().iter().any(|notice| notice.contains("training starts again")), "{:?}", ran.notices());
    assert_eq!(ran.epochs().len(), 1);
    ran.output();
}

#[test]
fn a_cancelled_finetune_stops_at_the_next_step() {
    let bench = Bench::new();
    let dataset = Some(bench.dataset(10, Split::ValidPercent(20)));
    let spec = finetune_with(FineTune { epochs: 500, ..options() });
    let first_epoch = |report: &Report, stop: &StopSignal| {
        if matches!(report, Report::Event(event) if matches!(event.event, Some(Event::EpochFinished(_)))) {
            stop.cancel();
        }
    };
    let ran = bench.run_until(JobSpec::Finetune(spec), Inputs { dataset, ..Inputs::default() }, first_epoch);
    assert!(ran.epochs().len() < 500);
    assert!(matches!(ran.result, Err(JobError::Cancelled)), "{:?}", ran.result);
}

#[test]
fn a_fold_and_weights_that_are_not_there_are_refused_with_their_field() {
    let bench = Bench::new();
    let folds = bench.dataset(10, Split::Folds(3));
    let run = |spec| bench.run(JobSpec::Finetune(spec), Inputs { dataset: Some(folds.clone()), ..Inputs::default() });
    let missing = refusal(run(finetune()).result);
    assert_eq!((missing.field.as_str(), missing.message.contains("0 to 2")), ("finetune.fold", true));

    let weights = WeightsSource::Pretrained;
    let spec =
        FinetuneSpec { fold: Some(1), weights, backbone: sortinghat_proto::Backbone::EfficientnetLite0, ..finetune() };
    let absent = refusal(run(spec).result);
    assert_eq!((absent.code, absent.field.as_str()), (ErrorCode::WeightsUnavailable, "finetune.weights"));
    assert!(absent.message.contains("no weights for efficientnet_lite0"), "{}", absent.message);

    let model = run(FinetuneSpec { fold: Some(1), ..finetune() }).output().manifest;
    let ran = bench.run(JobSpec::Evaluate(evaluate()), Inputs { model: Some(model), ..Inputs::default() });
    let evaluation: EvaluationManifest = bench.objects().document(&ran.output().manifest).unwrap();
    assert!(evaluation.on.description.ends_with("held-out photos (fold 1) of shapes@1"), "{:?}", evaluation.on);
}

#[test]
fn an_evaluation_counts_every_held_out_photo_once_and_takes_decisions() {
    let bench = Bench::new();
    let model = Some(bench.model(1));
    let run = |spec| {
        let ran = bench.run(JobSpec::Evaluate(spec), Inputs { model: model.clone(), ..Inputs::default() });
        let output = ran.output();
        let manifest: EvaluationManifest = bench.objects().document(&output.manifest).unwrap();
        (output.summary, manifest)
    };
    let tta = Some(Tta { recipe: TtaRecipe::Fastai2, passes: 2 });
    let (summary, first) = run(EvaluateSpec { tta, ..evaluate() });
    assert!(summary.contains("right on the 10 held-out photos of shapes@1; with test-time augmentation"), "{summary}");
    assert!(summary.contains("exact McNemar p = "), "{summary}");
    let augmented = first.findings.augmented.expect("asked for");
    assert_eq!((first.findings.plain.photos, augmented.photos), (10, 10));
    assert_eq!(first.findings.confusion.iter().flatten().sum::<u64>(), 10);
    assert_eq!((0..2).map(|class| first.findings.confusion[class][class]).sum::<u64>(), augmented.correct);
    let csv = bench.objects().read(&first.predictions).unwrap();
    let mut rows = csv::Reader::from_reader(csv.as_ref());
    assert_eq!(
        rows.headers().unwrap().iter().collect::<Vec<_>>(),
        ["path", "digest", "label", "predicted", "loss", "disc", "square"]
    );
    let records: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 10);
    assert_eq!(records.iter().filter(|record| record[2] == record[3]).count() as u64, augmented.correct);
    let page = String::from_utf8(bench.objects().read(&first.report).unwrap().to_vec()).unwrap();
    assert!(page.contains("On the 10 held-out photos of shapes@1, shapes/1 is right on "));
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), first.findings.mistakes.len());

    // Decide about two photos: one is left out, the other gets the other label.
    let (out, relabelled) = (&first.findings.mistakes[0], &first.findings.mistakes[1]);
    let class = first.findings.classes[1 - relabelled.label].clone();
    let decisions = Decisions {
        decisions: vec![
            Decision { digest: out.digest.clone(), path: Some(out.path.clone()), verdict: Verdict::Exclude },
            Decision { digest: relabelled.digest.clone(), path: None, verdict: Verdict::Relabel { class } },
        ],
    };
    let decisions = Some(bench.objects().put_document(&decisions).unwrap());
    let (_, second) = run(EvaluateSpec { tta, decisions, ..evaluate() });
    assert_eq!(second.findings.augmented, first.findings.augmented, "the raw accuracy stays");
    let cleaned = second.findings.cleaned.expect("decisions were given");
    let is_right = |mistake: &sortinghat_proto::manifest::Mistake| u64::from(mistake.label == mistake.predicted);
    let expected = augmented.correct - is_right(out) - is_right(relabelled) + (1 - is_right(relabelled));
    assert_eq!((cleaned.score.photos, cleaned.score.correct), (9, expected));
    assert_eq!((cleaned.excluded, cleaned.relabelled), (1, 1));
}

/// What an evaluation found, the page that it wrote, and what it warned of.
fn evaluated(bench: &Bench, spec: EvaluateSpec, inputs: Inputs) -> (Findings, String, Vec<String>) {
    let ran = bench.run(JobSpec::Evaluate(spec), inputs);
    let (notices, output) = (ran.notices(), ran.output());
    let found: EvaluationManifest = bench.objects().document(&output.manifest).unwrap();
    let page = String::from_utf8(bench.objects().read(&found.report).unwrap().to_vec()).unwrap();
    (found.findings, page, notices)
}

#[test]
fn the_report_says_when_it_was_asked_for_what_was_learned_from_what_was_noticed_and_what_was_decided() {
    let bench = Bench::new();
    let model = bench.model(1);
    let of = |model: &ObjectRef| Inputs { model: Some(model.clone()), ..Inputs::default() };
    let (held_out, page, _) = evaluated(&bench, evaluate(), of(&model));
    assert_eq!((held_out.learned_from, held_out.confidence.iter().map(|bin| bin.photos).sum::<u64>()), (Some(0), 10));
    assert!(page.contains("2026-11-30 08:00:00Z") && !page.contains("has learned from"), "{page}");

    // All 40 photos, of which 30 were learned from.
    let on = EvaluateOn::Source(bench.upload(&shapes(20)));
    let mistake = &held_out.mistakes[0];
    let kept = Decision { digest: mistake.digest.clone(), path: Some("disc/where.png".into()), verdict: Verdict::Keep };
    let decisions = Some(bench.objects().put_document(&Decisions { decisions: vec![kept] }).unwrap());
    let (known, page, _) = evaluated(&bench, EvaluateSpec { on: on.clone(), decisions, ..evaluate() }, of(&model));
    assert_eq!((known.learned_from, known.doubts), (Some(30), None));
    assert!(page.contains("The model has learned from 30 of these 40 photos"), "{page}");
    assert!(page.contains("\"path\":\"disc/where.png\",\"verdict\":\"keep\""), "{page}");

    let mut files = shapes(20);
    files.push(("birds/0.heic".into(), b"\x00\x00\x00\x18ftypheic\x00\x00".to_vec()));
    let dataset = Some(bench.ingested(&files, Split::ValidPercent(50)));
    let on_dataset = EvaluateOn::Dataset(DatasetRef::parse("shapes@1", "").unwrap());
    let inputs = Inputs { dataset, ..of(&model) };
    let (_, page, _) = evaluated(&bench, EvaluateSpec { on: on_dataset, ..evaluate() }, inputs);
    assert!(page.contains("1 class has no usable photo and is not in the dataset: birds"), "{page}");

    let mut orphan: ModelManifest = bench.objects().document(&model).unwrap();
    orphan.dataset.manifest = ObjectRef::of(b"a dataset that was deleted");
    let orphan = bench.objects().put_document(&orphan).unwrap();
    let (unknown, page, notices) = evaluated(&bench, EvaluateSpec { on, ..evaluate() }, of(&orphan));
    assert_eq!((unknown.learned_from, unknown.doubts), (None, None));
    assert!(page.contains("nobody can tell whether the model has learned"), "{page}");
    assert!(notices.iter().any(|notice| notice.contains("nobody can tell")), "{notices:?}");
}

#[test]
fn an_evaluation_in_shards_finds_the_same_to_the_byte() {
    let bench = Bench::new();
    let model = bench.model(1);
    let mut files = shapes(70);
    files.insert(3, ("disc/broken.png".into(), b"\x89PNG\r\n\x1a\nno more".to_vec()));
    let tta = Some(Tta { recipe: TtaRecipe::Fastai2, passes: 2 });
    let spec = JobSpec::Evaluate(EvaluateSpec { on: EvaluateOn::Source(bench.upload(&files)), tta, ..evaluate() });
    let whole = bench.run(spec.clone(), Inputs { model: Some(model.clone()), ..Inputs::default() }).output();
    assert_eq!(bench.run_in_shards(&spec, Some(&model), 64), whole);
}

#[test]
fn a_labelled_folder_is_measured_like_the_dataset_and_unknown_folders_are_refused() {
    let bench = Bench::new();
    let model = Some(bench.model(1));
    let run = |files: &[(String, Vec<u8>)]| {
        let spec = EvaluateSpec { on: EvaluateOn::Source(bench.upload(files)), ..evaluate() };
        bench.run(JobSpec::Evaluate(spec), Inputs { model: model.clone(), ..Inputs::default() })
    };
    let held_out = bench.run(JobSpec::Evaluate(evaluate()), Inputs { model: model.clone(), ..Inputs::default() });
    let held_out: EvaluationManifest = bench.objects().document(&held_out.output().manifest).unwrap();
    let losses: BTreeMap<_, _> =
        held_out.findings.mistakes.iter().map(|photo| (photo.digest.clone(), photo.loss)).collect();

    let mut files = shapes(20);
    files.push(("disc/broken.png".into(), b"\x89PNG\r\n\x1a\nno more".to_vec()));
    files.push(("readme.txt".into(), b"in no class folder".to_vec()));
    let ran = run(&files);
    assert!(
        ran.notices().iter().any(|notice| notice.contains("has learned from 30 of these 40 photos")),
        "{:?}",
        ran.notices()
    );
    let output = ran.output();
    let uploaded: EvaluationManifest = bench.objects().document(&output.manifest).unwrap();
    assert_eq!((uploaded.findings.plain.photos, uploaded.findings.skipped), (40, 2));
    assert!(output.summary.contains("; 2 files were not measured: they cannot be read"), "{}", output.summary);
    assert_eq!(uploaded.on.description, "the 40 photos of the uploaded folder");
    let mut compared = 0;
    for photo in &uploaded.findings.mistakes {
        if let Some(loss) = losses.get(&photo.digest) {
            assert!(
                (photo.loss - loss).abs() < 0.02,
                "{}: {} from the file, {loss} from the dataset",
                photo.path,
                photo.loss
            );
            compared += 1;
        }
    }
    assert!(compared > 0, "some photos are in both lists");

    files.push(("triangle/1.png".into(), shape(true, 99)));
    let refused = refusal(run(&files).result);
    assert_eq!(refused.field, "evaluate.source");
    assert!(refused.message.contains("triangle") && refused.message.contains("disc, square"), "{}", refused.message);
}

#[test]
fn a_classify_in_shards_gives_the_same_predictions_to_the_byte() {
    let bench = Bench::new();
    let model = bench.model(1);
    let mut files: Vec<(String, Vec<u8>)> =
        (0..150).map(|number| (format!("{number}.png"), shape(number % 3 == 0, number))).collect();
    files.insert(70, ("broken.jpg".into(), b"not a photo".to_vec()));
    let tta = Some(Tta { recipe: TtaRecipe::Fastai2, passes: 2 });
    let spec = ClassifySpec {
        model: ModelRef::parse("shapes/1", "").unwrap(),
        source: bench.upload(&files),
        top_k: 5,
        tta,
        seed: 3,
        precision: Precision::Auto,
    };
    let spec = JobSpec::Classify(spec);
    let whole = bench.run(spec.clone(), Inputs { model: Some(model.clone()), ..Inputs::default() }).output();
    assert_eq!(bench.run_in_shards(&spec, Some(&model), 64), whole);
}

#[test]
fn shards_that_do_not_account_for_every_file_are_no_result() {
    let bench = Bench::new();
    let model = Some(bench.model(1));
    let files: Vec<(String, Vec<u8>)> = (0..6).map(|number| (format!("{number}.png"), shape(true, number))).collect();
    let spec = ClassifySpec {
        model: ModelRef::parse("shapes/1", "").unwrap(),
        source: bench.upload(&files),
        top_k: 1,
        tta: None,
        seed: 0,
        precision: Precision::Auto,
    };
    let run = |part| {
        bench.run(
            JobSpec::Classify(spec.clone()),
            Inputs { model: model.clone(), part: Some(part), ..Inputs::default() },
        )
    };
    let [first, second] = [0..3, 3..6].map(|range| run(Part::Shard(range)).output().manifest);
    for wrong in [vec![first.clone()], vec![second.clone(), first.clone()], vec![first.clone(), first, second]] {
        let result = run(Part::Finish(wrong)).result;
        assert!(matches!(result, Err(JobError::Internal(_))), "{result:?}");
    }
    assert!(matches!(run(Part::Shard(3..7)).result, Err(JobError::Internal(_))), "there is no seventh file");
}

#[test]
fn classify_gives_one_row_or_one_error_per_file_in_the_order_of_the_upload() {
    let bench = Bench::new();
    let model = Some(bench.model(1));
    let files: Vec<(String, Vec<u8>)> = vec![
        ("z.png".into(), shape(true, 50)),
        ("broken.jpg".into(), b"not a photo".to_vec()),
        ("a/b.png".into(), shape(false, 51)),
        ("a/copy of b.png".into(), shape(false, 51)),
        ("empty.png".into(), Vec::new()),
    ];
    let mut upload: UploadManifest = bench.objects().document(&bench.upload(&files)).unwrap();
    upload.files[0].shown_as = Some("../z.png".into());
    let unread = Some("permission denied".to_owned());
    upload.files.push(UploadedFile { unread, ..UploadedFile::new("locked.png", ObjectRef::of(b"")) });
    let spec = ClassifySpec {
        model: ModelRef::parse("shapes/1", "").unwrap(),
        source: bench.objects().put_document(&upload).unwrap(),
        top_k: 5,
        tta: None,
        seed: 0,
        precision: Precision::Auto,
    };
    let output = bench.run(JobSpec::Classify(spec), Inputs { model, ..Inputs::default() }).output();
    assert_eq!(output.summary, "3 photos classified by shapes/1, 3 could not be read");
    let manifest: PredictionsManifest = bench.objects().document(&output.manifest).unwrap();
    let counts = manifest.counts;
    assert_eq!((counts.inputs, counts.results, counts.errors), (6, 3, 3));

    let part = bench.objects().read(&manifest.parts[0]).unwrap();
    let batch = ParquetRecordBatchReaderBuilder::try_new(part).unwrap().build().unwrap().next().unwrap().unwrap();
    let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, sortinghat_proto::manifest::PREDICTION_COLUMNS);
    let text = |column: usize| batch.column(column).as_string::<i32>();
    let paths: Vec<&str> = text(0).iter().flatten().collect();
    assert_eq!(paths, upload.files.iter().map(UploadedFile::shown).collect::<Vec<_>>());
    assert_eq!((paths[0], text(5).value(5)), ("../z.png", "permission denied"));
    let errors: Vec<bool> = (0..6).map(|row| text(5).is_valid(row)).collect();
    assert_eq!(errors, [false, true, false, false, true, true]);
    assert_eq!((0..6).map(|row| text(2).is_null(row)).collect::<Vec<_>>(), errors);
    let probabilities = batch.column(3).as_primitive::<Float32Type>();
    assert_eq!(probabilities.value(2), probabilities.value(3), "the same photo, the same answer");
    let tops = batch.column(4).as_list::<i32>();
    assert_eq!((tops.value_length(0), tops.value_length(1)), (2, 0), "all of two classes, and none for an error");
    let top = tops.value(0);
    let top = top.as_struct().column(1).as_primitive::<Float32Type>();
    assert!((top.value(0) + top.value(1) - 1.0).abs() < 1e-5 && top.value(0) >= top.value(1));
}
