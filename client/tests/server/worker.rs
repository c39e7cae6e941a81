//! A worker without an executor: it speaks the real protocol, and its results are made up.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, RecordBatch, StringArray,
    builder::{Float32Builder, ListBuilder, StringBuilder, StructBuilder},
};
use arrow_schema::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use sortinghat_client::Client;
use sortinghat_proto::{
    Backbone, ObjectRef, Precision, Refusal, TrainingCrop, Tta, TtaRecipe,
    limits::SESSION_SECRET_BYTES,
    manifest::{
        self, AuditFindings, AuditManifest, AuditedLabel, ClassCount, Confusion, Credit, DatasetManifest,
        DatasetProvenance, EpochRecord, EvaluationManifest, EvaluationTarget, Findings, FineTuneRecord, Framing,
        Gathered, GatheredClass, IngestCounts, Interval, ModelManifest, PREDICTION_COLUMNS, PairedTest, PhotoSource,
        PredictionCounts, PredictionsManifest, RecipeRecord, Rejection, RejectionReason, Remark, Score, Shard,
        SourceOutcome, SplitKind, UploadManifest, View, WeightsProvenance,
    },
    v1::{
        Assignment, AttemptEvent, ErrorCode, EvaluateSpec, IngestSpec, LeaseKey, LeaseReport, LogLine, Notice,
        NoticeLevel, SynchronizeRequest, TaskOutcome, TaskSucceeded, WorkerDescription, attempt_event::Event,
        job_spec::Kind, task_outcome::Outcome, worker_service_client::WorkerServiceClient,
    },
};

/// The predictions of every evaluation.
pub(crate) const MEASURED: &str = "path,digest,label,predicted,loss\nred/1.png,0a,red,green,1.5\n";
/// The dataset name for which an ingest fails.
pub(crate) const FAILING: &str = "few";

/// Takes tasks and reports their results, one after the other.
pub(crate) async fn work(url: String, client: Client) {
    let mut service = WorkerServiceClient::connect(url).await.expect("the coordinator listens");
    let (mut sequence, mut reports) = (0, Vec::<LeaseReport>::new());
    loop {
        sequence += 1;
        let request = SynchronizeRequest {
            worker_id: "scripted-1".to_owned(),
            session_secret: vec![7; SESSION_SECRET_BYTES],
            sequence,
            description: Some(description()),
            leases: reports.clone(),
            free_slots: u32::from(reports.is_empty()),
            wait_ms: if reports.is_empty() { 500 } else { 0 },
            ..SynchronizeRequest::default()
        };
        // The coordinator ends together with the test.
        let Ok(answer) = service.synchronize(request).await else { return };
        let answer = answer.into_inner();
        reports.retain(|report| !answer.acknowledged.contains(&key(report)));
        for task in answer.leases.into_iter().filter_map(|lease| lease.assignment) {
            if !reports.iter().any(|report| report.task_id == task.task_id) {
                reports.push(report(&client, task).await);
            }
        }
    }
}

fn description() -> WorkerDescription {
    WorkerDescription {
        host: "attic".to_owned(),
        version: "1.2.3".to_owned(),
        device: "cpu".to_owned(),
        device_reason: "there is no GPU".to_owned(),
        slots: 1,
        threads: 2,
        ..WorkerDescription::default()
    }
}

fn key(report: &LeaseReport) -> LeaseKey {
    LeaseKey { task_id: report.task_id.clone(), epoch: report.epoch }
}

async fn report(client: &Client, task: Assignment) -> LeaseReport {
    let kind = task.spec.as_ref().and_then(|spec| spec.kind.clone()).expect("a spec");
    let (events, outcome) = match kind {
        Kind::Ingest(spec) if spec.dataset_name == FAILING => {
            let why = Refusal::new(ErrorCode::UnusableData, "each class needs at least two usable photos: red has 1");
            (vec![], Outcome::Failed(why.into()))
        }
        Kind::Ingest(spec) => (vec![], succeeded(client, &dataset(client, spec).await, "4 photos in 2 classes").await),
        Kind::Gather(spec) => {
            let listed = upload(client, b"{\"class\":\"red\"}\n").await;
            let urls: ObjectRef = spec.urls.map(|urls| urls.try_into().expect("valid")).unwrap_or(listed);
            let (dataset_name, source) = (spec.dataset_name, Some(urls.into()));
            let spec = IngestSpec { dataset_name, source, valid_percent: 20, ..IngestSpec::default() };
            let remarks = vec![Remark::FromTheWeb { photos: 4, terms: vec!["found by Openverse".to_owned()] }];
            let gathered = Some(gathered(client, &task).await);
            let made = DatasetManifest { gathered, remarks, ..dataset(client, spec).await };
            (vec![], succeeded(client, &made, "4 photos in 2 classes").await)
        }
        Kind::Finetune(_) => (training(), succeeded(client, &model(client, &task).await, "75.0% of 2").await),
        Kind::Evaluate(spec) => (vec![], succeeded(client, &evaluation(client, &task, &spec).await, "75.0%").await),
        Kind::Audit(_) => (vec![], succeeded(client, &audit(client, &task).await, "1 of 4 labels").await),
        Kind::Classify(spec) => {
            let source = spec.source.expect("a source").try_into().expect("valid");
            let model_manifest = task.model.clone().expect("a model").try_into().expect("valid");
            (
                vec![],
                succeeded(client, &predictions(client, spec.model, model_manifest, source).await, "classified").await,
            )
        }
    };
    let numbered = (1..).zip(events).map(|(sequence, event)| AttemptEvent { sequence, event: Some(event) });
    LeaseReport {
        task_id: task.task_id,
        epoch: task.epoch,
        beat: 1,
        events: numbered.collect(),
        outcome: Some(TaskOutcome { outcome: Some(outcome) }),
        ..LeaseReport::default()
    }
}

async fn succeeded<T: manifest::Document>(client: &Client, made: &T, summary: &str) -> Outcome {
    let manifest = upload(client, &manifest::encode(made)).await;
    Outcome::Succeeded(TaskSucceeded { manifest: Some(manifest.into()), summary: summary.to_owned() })
}

async fn upload(client: &Client, content: &[u8]) -> ObjectRef {
    client.upload_bytes(content.to_vec().into()).await.expect("the coordinator takes objects")
}

async fn dataset(client: &Client, spec: IngestSpec) -> DatasetManifest {
    let broken = Rejection {
        path: "red/broken.png".to_owned(),
        digest: ObjectRef::of(b"broken").digest,
        reason: RejectionReason::Truncated,
        message: "the file is cut off after 6 bytes".to_owned(),
    };
    let rejections = serde_json::to_vec(&broken).expect("strings");
    let (split, counts) = match spec.folds {
        0 => (SplitKind::ValidPercent(spec.valid_percent), ClassCount { train: 1, valid: 1 }),
        folds => (SplitKind::Folds(folds), ClassCount { train: 2, valid: 0 }),
    };
    DatasetManifest {
        classes: vec!["green".to_owned(), "red".to_owned()],
        class_counts: vec![counts; 2],
        split,
        seed: spec.seed,
        shards: vec![Shard { object: upload(client, b"shard").await, rows: 4 }],
        derivative_short_side_px: spec.derivative_short_side_px,
        source: spec.source.expect("a source").try_into().expect("valid"),
        counts: IngestCounts { inputs: 5, accepted: 4, quarantined: 1, ..IngestCounts::default() },
        near_duplicate_groups: 0,
        rejections: Some(upload(client, &rejections).await),
        remarks: vec![],
        gathered: None,
    }
}

/// How its photos were gathered.
async fn gathered(client: &Client, task: &Assignment) -> Gathered {
    let before = task.dataset.clone().map(|dataset| ObjectRef::try_from(dataset).expect("valid"));
    let row = |outcome, path: Option<&str>, reason: Option<&str>| PhotoSource {
        class: "red".to_owned(),
        provider: "openverse".to_owned(),
        query: Some("red".to_owned()),
        rank: 1,
        url: "https://example.org/1.png".to_owned(),
        credit: Credit { author: Some("Ann".to_owned()), licence: Some("CC BY 4.0".to_owned()), ..Credit::default() },
        outcome,
        reason: reason.map(str::to_owned),
        path: path.map(str::to_owned),
        object: path.map(|path| ObjectRef::of(path.as_bytes())),
    };
    let rows = [
        row(SourceOutcome::Kept, Some("red/1.png"), None),
        row(SourceOutcome::Failed, None, Some("the host answered 404 Not Found")),
    ];
    let lines: String = rows.iter().map(|row| format!("{}\n", serde_json::to_string(row).expect("text"))).collect();
    let class = |class: &str| GatheredClass {
        class: class.to_owned(),
        query: Some(class.to_owned()),
        asked: 3,
        found: 4,
        fetched: 2,
        kept: 2,
    };
    Gathered {
        sources: upload(client, lines.as_bytes()).await,
        classes: vec![class("green"), class("red")],
        added_to: before.is_some().then(|| task.dataset_name.clone()),
        added_to_manifest: before,
    }
}

/// What a fine-tune says on its way.
fn training() -> Vec<Event> {
    let notice = |level: NoticeLevel, text: &str| Notice { level: level.into(), message: text.to_owned() };
    let epoch = |record: EpochRecord| {
        let EpochRecord { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms } = record;
        let valid_photos = 2;
        sortinghat_proto::v1::EpochMetrics {
            frozen,
            epoch,
            train_loss,
            valid_loss,
            accuracy,
            valid_photos,
            duration_ms,
        }
    };
    let mut events = vec![
        Event::Log(LogLine { text: "loading weights".to_owned() }),
        Event::Notice(notice(NoticeLevel::Info, "the weights are those of efficientnet_lite0")),
        Event::Notice(notice(NoticeLevel::Warning, "2 photos are few to measure on")),
    ];
    events.extend(history().map(|record| Event::EpochFinished(epoch(record))));
    events
}

fn history() -> [EpochRecord; 2] {
    let frozen =
        EpochRecord { frozen: true, epoch: 0, train_loss: 0.75, valid_loss: 0.5, accuracy: 0.5, duration_ms: 1200 };
    [frozen.clone(), EpochRecord { frozen: false, train_loss: 0.25, valid_loss: 0.125, accuracy: 1.0, ..frozen }]
}

async fn model(client: &Client, task: &Assignment) -> ModelManifest {
    let dataset = task.dataset.clone().expect("a fine-tune has a dataset").try_into().expect("valid");
    ModelManifest {
        classes: vec!["green".to_owned(), "red".to_owned()],
        backbone: Backbone::EfficientnetLite0,
        weights: upload(client, b"weights").await,
        image_size_px: 224,
        mean: [0.5; 3],
        std: [0.25; 3],
        recipe: RecipeRecord::Fastai2(FineTuneRecord {
            freeze_epochs: 1,
            epochs: 1,
            base_lr: 0.002,
            rate_search: None,
            mixing: None,
            label_smoothing: 0.0,
            crop: TrainingCrop::Resize,
            batch_size: 64,
            micro_batch_size: 64,
        }),
        dataset: DatasetProvenance { name: task.dataset_name.clone(), manifest: dataset, fold: None },
        pretrained: WeightsProvenance { source: "efficientnet_lite0.safetensors".to_owned(), digest: None },
        seed: 0,
        precision: Precision::F32,
        device: "cpu".to_owned(),
        threads: 2,
        software: "sortinghat 1.2.3".to_owned(),
        history: history().to_vec(),
    }
}

async fn audit(client: &Client, task: &Assignment) -> AuditManifest {
    let label = |path: &str, repeats| AuditedLabel {
        digest: ObjectRef::of(path.as_bytes()).digest,
        path: path.to_owned(),
        label: 1,
        suggested: if repeats > 0 { 0 } else { 1 },
        label_probability: 0.125,
        suggested_probability: 0.875,
        repeats,
    };
    let dataset = task.dataset.clone().expect("a dataset").try_into().expect("valid");
    let findings = AuditFindings {
        on: EvaluationTarget { description: "the 4 photos of stamps@1".to_owned(), manifest: dataset, fold: None },
        classes: vec!["green".to_owned(), "red".to_owned()],
        repeats: 3,
        folds: 2,
        lambda: 0.001,
        backbone: Backbone::EfficientnetLite0,
        pretrained: WeightsProvenance { source: "efficientnet_lite0.safetensors".to_owned(), digest: None },
        views: vec![View { framing: Framing::Pad, size_px: 288 }],
        seed: 0,
        score: Score { photos: 4, correct: 3, interval: Interval::wilson(3, 4), loss: 0.5 },
        wrong_share: 0.25,
        unaudited: 0,
        doubted: 1,
        always_doubted: 1,
        queue: vec![label("red/2.png", 3)],
        sample: vec![label("red/1.png", 0)],
    };
    let table = b"path,digest,label,suggested,label_probability,suggested_probability,repeats\n=red/2.png,d,red,green,0.125,0.875,3\n";
    AuditManifest {
        findings,
        report: upload(client, b"<html>a page of labels</html>").await,
        labels: upload(client, table).await,
    }
}

async fn evaluation(client: &Client, task: &Assignment, spec: &EvaluateSpec) -> EvaluationManifest {
    let score = |correct, loss| Score { photos: 4, correct, interval: Interval::wilson(correct, 4), loss };
    let has_tta = spec.tta_passes > 0;
    let findings = Findings {
        classes: vec!["green".to_owned(), "red".to_owned()],
        plain: score(3, 0.5),
        augmented: has_tta.then(|| score(4, 0.25)),
        tta: has_tta.then_some(Tta { recipe: TtaRecipe::Fastai2, passes: spec.tta_passes }),
        comparison: has_tta.then_some(PairedTest { only_first: 0, only_second: 1, p_value: 1.0 }),
        per_class: vec![],
        confusion: vec![],
        most_confused: vec![Confusion { label: 1, predicted: 0, photos: 1 }],
        mistakes: vec![],
        doubts: None,
        doubted: 0,
        cleaned: None,
        skipped: 1,
        learned_from: None,
        confidence: vec![],
    };
    let description = "the 4 held-out photos of stamps@1".to_owned();
    let given = task.spec.as_ref().and_then(|spec| spec.source()).or(task.dataset.as_ref()).cloned();
    let manifest = match given {
        Some(given) => given.try_into().expect("valid"),
        None => upload(client, b"the dataset of the model").await,
    };
    EvaluationManifest {
        model: spec.model.clone(),
        on: EvaluationTarget { description, manifest, fold: None },
        findings,
        report: upload(client, b"<html>a report</html>").await,
        predictions: upload(client, MEASURED.as_bytes()).await,
    }
}

/// Every photo is red, and no .heic file can be read.
async fn predictions(
    client: &Client,
    model: String,
    model_manifest: ObjectRef,
    source: ObjectRef,
) -> PredictionsManifest {
    let UploadManifest { files, .. } = client.read_document(&source).await.expect("an upload");
    let paths: Vec<String> = files.iter().map(|file| file.shown().to_owned()).collect();
    let errors = paths.iter().filter(|path| is_unreadable(path)).count() as u64;
    let inputs = paths.len() as u64;
    PredictionsManifest {
        model,
        model_manifest,
        dataset: Some("stamps@1".to_owned()),
        software: Some("1.2.3".to_owned()),
        source,
        classes: vec!["green".to_owned(), "red".to_owned()],
        parts: vec![upload(client, &part(&paths)).await],
        counts: PredictionCounts { inputs, results: inputs - errors, errors },
    }
}

fn is_unreadable(path: &str) -> bool {
    path.ends_with(".heic")
}

/// The Parquet file with the predictions for these photos.
fn part(paths: &[String]) -> Vec<u8> {
    let fields = Fields::from(vec![
        Field::new("class", DataType::Utf8, false),
        Field::new("probability", DataType::Float32, false),
    ]);
    let mut top = ListBuilder::new(StructBuilder::from_fields(fields, 2));
    for path in paths {
        let likely: &[(&str, f32)] = if is_unreadable(path) { &[] } else { &[("red", 0.75), ("green", 0.25)] };
        for (class, probability) in likely {
            let entries = top.values();
            entries.field_builder::<StringBuilder>(0).expect("a string").append_value(class);
            entries.field_builder::<Float32Builder>(1).expect("a float").append_value(*probability);
            entries.append(true);
        }
        top.append(true);
    }
    let text = |of: fn(&str) -> Option<&str>| -> ArrayRef {
        Arc::new(paths.iter().map(|path| of(path)).collect::<StringArray>())
    };
    let probabilities = paths.iter().map(|path| (!is_unreadable(path)).then_some(0.75_f32));
    let told = |path: &String| (!is_unreadable(path)).then(|| path.ends_with("stranger.jpg"));
    let columns: [ArrayRef; 8] = [
        text(|path| Some(path)),
        text(|_| Some("0a")),
        text(|path| (!is_unreadable(path)).then_some("red")),
        Arc::new(probabilities.collect::<Float32Array>()),
        Arc::new(top.finish()),
        text(|path| is_unreadable(path).then_some("HEIC is not supported")),
        Arc::new(paths.iter().map(told).collect::<BooleanArray>()),
        Arc::new(
            paths.iter().map(|path| told(path).map(|told| if told { 0.5_f32 } else { -1.5 })).collect::<Float32Array>(),
        ),
    ];
    let named = PREDICTION_COLUMNS.into_iter().zip(columns).map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(named).expect("columns of one length");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a valid schema");
    writer.write(&batch).expect("memory is writable");
    writer.into_inner().expect("memory is writable")
}
