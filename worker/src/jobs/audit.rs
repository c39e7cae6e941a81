//! Audit: looks for labels of a dataset that are probably wrong, by regressions that have not learned from the photos that they judge.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use sortinghat_proto::{
    AuditSpec, ObjectRef, Refusal,
    limits::{MAX_REVIEWED_PHOTOS, MAX_SAMPLED_PHOTOS},
    manifest::{
        AuditFindings, AuditManifest, AuditedLabel, DatasetManifest, EvaluationTarget, Framing, Interval, Score, View,
    },
    v1::ErrorCode,
    words::{count, counted},
};

use super::{
    dataset::open_dataset,
    features::features,
    pretrained::{Pretrained, Wanted},
    repeats::Repeats,
};
use crate::{
    batches::{DatasetPhotos, Gallery},
    dataset::PhotoRecord,
    evaluation::{
        audit::{Audited, audit, queue},
        posterior::wrong_share,
    },
    models::{HeadConfig, ModelConfig, Square},
    prediction::{metrics::argmax, precision::prediction_precision, predict::Predictor, probabilities::Probabilities},
    regression::{Examples, Features, InnerFolds, Policy, search},
    report::{AuditReport, Pictures},
    task::{JobContext, JobError, JobOutput},
};

/// How often the photos are dealt into folds.
const REPEATS: u64 = 3;
/// With more photos they are dealt once, which the job says.
const MANY_PHOTOS: usize = 20_000;

pub(crate) fn run(spec: &AuditSpec, context: &JobContext) -> Result<JobOutput, JobError> {
    let photos = Photos::open(context)?;
    let (findings, audited) = photos.judge(spec, context)?;
    let summary = summary(&findings, &photos.name);
    let manifest = photos.publish(context, findings, &audited)?;
    Ok(JobOutput { manifest, summary })
}

/// All photos of the dataset.
struct Photos {
    name: String,
    manifest: DatasetManifest,
    records: Vec<PhotoRecord>,
    gallery: Arc<Gallery>,
}

impl Photos {
    fn open(context: &JobContext) -> Result<Self, JobError> {
        let artifact = context.dataset()?;
        let manifest: DatasetManifest = context.objects().document(&artifact.manifest)?;
        let dataset = open_dataset(context, &manifest)?;
        let records = dataset.records().to_vec();
        let gallery = Gallery::new(Box::new(DatasetPhotos(dataset)), 0);
        Ok(Self { name: artifact.name.clone(), manifest, records, gallery })
    }

    /// The photos for a regression, without features as yet.
    fn bare_examples(&self) -> Examples {
        Examples {
            features: Features::none(),
            labels: self.records.iter().map(|record| record.label).collect(),
            classes: self.manifest.classes.len(),
            groups: self.records.iter().map(|record| record.group as usize).collect(),
            digests: self.records.iter().map(|record| record.digest.clone()).collect(),
            weights: None,
        }
    }

    /// What models say of each label that have not learned from its photo.
    fn judge(&self, spec: &AuditSpec, context: &JobContext) -> Result<(AuditFindings, Vec<Audited>), JobError> {
        let compute = &context.machine().compute;
        let mut examples = self.bare_examples();
        let all: Vec<usize> = (0..self.records.len()).collect();
        let policy = Policy { threads: compute.threads, seed: spec.seed };
        let folds = InnerFolds::deal(&examples, &all, spec.seed).ok_or_else(too_few)?;
        let weights = Wanted { backbone: spec.backbone, source: &spec.weights, kind: "audit" };
        let weights = Pretrained::find(weights, context)?;
        let views = [Framing::Crop, Framing::Pad].map(|framing| View { framing, size_px: spec.image_size_px });
        let config = ModelConfig::new(spec.backbone, self.manifest.classes.clone(), spec.image_size_px);
        let head = HeadConfig::Regression { temperature: 1.0, unlike: None };
        let config = ModelConfig { head, squares: views.map(Square::from).into(), ..config };
        let network = weights.network(config, spec.seed, context)?;
        let precision = prediction_precision(compute, spec.precision, spec.backbone);
        let predictor = Predictor::new(&network, precision, spec.seed);
        let seen = features(context, (&predictor, &network), &self.gallery, &examples.digests, "audit.weights")?;
        examples.features = seen;

        let repeats = self.repeats(context);
        let more = (repeats - 1) * folds.count() as u64;
        let progress = |done, all| {
            context.progress("regression", done, all, "fits");
            context.check_cancelled()
        };
        let found = search(&examples, &folds, policy.threads, &mut |done, all| progress(done, all + more))?;
        let (searched, lambda) = (found.tried.len() as u64 * folds.count() as u64, found.penalty.lambda());
        let first = (&folds, &found.held_out, found.penalty);
        let told = |done| progress(searched + done, searched + more);
        let repeats = Repeats::make(&examples, &all, first, (repeats, policy), told)?;
        let audited = audit(&repeats.labels, &repeats.rows, examples.classes);
        let audited: Vec<Audited> =
            audited.into_iter().map(|one| Audited { photo: repeats.photos[one.photo], ..one }).collect();
        let mean = repeats.mean();
        let queue = queue(&audited);
        let findings = AuditFindings {
            on: self.target(context)?,
            classes: self.manifest.classes.clone(),
            repeats: repeats.rows.len() as u32,
            folds: folds.count() as u32,
            lambda,
            backbone: spec.backbone,
            pretrained: weights.provenance,
            views: views.into(),
            seed: spec.seed,
            score: score(&repeats.labels, &mean),
            wrong_share: wrong_share(&repeats.labels, &mean, examples.classes),
            unaudited: (self.records.len() - audited.len()) as u64,
            doubted: queue.len() as u64,
            always_doubted: queue.iter().filter(|one| one.repeats as usize == repeats.rows.len()).count() as u64,
            queue: queue.iter().take(MAX_REVIEWED_PHOTOS).map(|one| self.label(one)).collect(),
            sample: self.sample(spec.seed, &audited).map(|one| self.label(one)).collect(),
        };
        Ok((findings, audited))
    }

    /// How often the photos are dealt into folds.
    fn repeats(&self, context: &JobContext) -> u64 {
        if self.records.len() <= MANY_PHOTOS {
            return REPEATS;
        }
        let photos = count(self.records.len() as u64);
        context.inform(format!("the {photos} photos are dealt into folds once and not {REPEATS} times, to save time"));
        1
    }

    fn target(&self, context: &JobContext) -> Result<EvaluationTarget, JobError> {
        let photos = counted(self.records.len() as u64, "photo", "photos");
        let manifest = context.dataset()?.manifest.clone();
        Ok(EvaluationTarget { description: format!("the {photos} of {}", self.name), manifest, fold: None })
    }

    /// A random sample of the labels that no repeat doubts, in random order. It is a function of the seed and of the photos.
    fn sample<'a>(&self, seed: u64, audited: &'a [Audited]) -> impl Iterator<Item = &'a Audited> {
        let undoubted = audited.iter().filter(|one| one.repeats == 0);
        let draw = |one: &Audited| {
            let name = format!("sortinghat.audit-sample/1 {seed} {}", self.records[one.photo].digest);
            <[u8; 32]>::from(Sha256::digest(name))
        };
        let mut drawn: Vec<([u8; 32], &Audited)> = undoubted.map(|one| (draw(one), one)).collect();
        drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.photo.cmp(&b.1.photo)));
        drawn.into_iter().map(|(_, one)| one).take(MAX_SAMPLED_PHOTOS)
    }

    fn label(&self, audited: &Audited) -> AuditedLabel {
        let Audited { photo, suggested, label_probability, suggested_probability, repeats } = *audited;
        let PhotoRecord { digest, path, label, .. } = &self.records[photo];
        AuditedLabel {
            digest: digest.clone(),
            path: path.clone(),
            label: *label,
            suggested,
            label_probability,
            suggested_probability,
            repeats,
        }
    }

    /// Stores what is said of every label, the page, and the document that names both.
    fn publish(
        &self,
        context: &JobContext,
        findings: AuditFindings,
        audited: &[Audited],
    ) -> Result<ObjectRef, JobError> {
        let objects = context.objects();
        let csv = self.to_csv(audited).map_err(|error| JobError::Internal(format!("failed to write CSV: {error}")))?;
        let labels = objects.put(csv)?;
        let page = AuditReport {
            dataset: &self.name,
            findings: &findings,
            job: context.task().id.job(),
            submitted: context.task().submitted,
            collection: self.name.split('@').next().unwrap_or(&self.name),
            pictures: &self.pictures(context, &findings)?,
        };
        let page = page.to_html().map_err(|error| JobError::Internal(error.to_string()))?;
        let report = objects.put(page)?;
        Ok(objects.put_document(&AuditManifest { findings, report, labels })?)
    }

    /// One row for each audited photo.
    fn to_csv(&self, audited: &[Audited]) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([
            "path",
            "digest",
            "label",
            "suggested",
            "label_probability",
            "suggested_probability",
            "repeats",
        ])?;
        for one in audited {
            let record = &self.records[one.photo];
            let (label, suggested) = (&self.manifest.classes[record.label], &self.manifest.classes[one.suggested]);
            let texts = [record.path.as_str(), record.digest.as_str(), label, suggested].map(str::to_owned);
            let numbers = [one.label_probability.to_string(), one.suggested_probability.to_string()];
            writer.write_record(texts.into_iter().chain(numbers).chain([one.repeats.to_string()]))?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }

    /// Pictures of the photos that the page shows, as many as it may hold.
    fn pictures(&self, context: &JobContext, findings: &AuditFindings) -> Result<Pictures, JobError> {
        let shown: BTreeSet<_> = findings.shown().map(|label| &label.digest).collect();
        let mut pictures = Pictures::new(shown.len());
        let numbers: HashMap<_, _> =
            self.records.iter().enumerate().map(|(number, record)| (&record.digest, number)).collect();
        for (done, label) in (0..).zip(findings.shown()) {
            context.check_cancelled()?;
            context.progress("report", done, shown.len() as u64, "photos");
            // Every photo has been decoded a moment ago. Should one fail now, the page lacks its picture, and no number changes.
            if let Ok(photo) = self.gallery.photo(numbers[&label.digest])
                && !pictures.add(label.digest.clone(), &photo)
            {
                break;
            }
        }
        Ok(pictures)
    }
}

fn too_few() -> JobError {
    let message = "the dataset has too few photos that differ to audit its labels: at least two classes, and half of all classes, need \
                   three photos each that are not near-duplicates of each other";
    Refusal::new(ErrorCode::UnusableData, message).at("audit.dataset").into()
}

/// How often the most probable class is the label.
fn score(labels: &[usize], rows: &Probabilities) -> Score {
    let photos = labels.len() as u64;
    let right = |(label, row): &(&usize, &[f32])| argmax(row) == **label;
    let correct = labels.iter().zip(rows.iter()).filter(right).count() as u64;
    let loss = |(&label, row): (&usize, &[f32])| -f64::from(row[label].max(f32::MIN_POSITIVE)).ln();
    let loss = labels.iter().zip(rows.iter()).map(loss).sum::<f64>() / photos.max(1) as f64;
    Score { photos, correct, interval: Interval::wilson(correct, photos), loss }
}

/// "31 of 713 labels of stamps@1 look wrong, 12 of them in all 3 repeats".
fn summary(findings: &AuditFindings, dataset: &str) -> String {
    let AuditFindings { doubted, always_doubted, repeats, score, .. } = findings;
    let look = if *doubted == 1 { "looks" } else { "look" };
    let of = format!("{} of {} labels of {dataset} {look} wrong", count(*doubted), count(score.photos));
    match repeats {
        1 => of,
        repeats => format!("{of}, {} of them in all {repeats} repeats", count(*always_doubted)),
    }
}
