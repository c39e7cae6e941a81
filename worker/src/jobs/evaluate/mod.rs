//! Evaluate: measures a model on labelled photos. The result is numbers with their uncertainty, every prediction, and a page to read.

mod part;
mod subjects;
mod table;

use std::{collections::HashSet, ops::Range, sync::Arc};

use sortinghat_proto::{
    Digest, EvaluateOn, EvaluateSpec, ObjectRef, Precision, Refusal, Tta,
    manifest::{Decisions, EvaluationManifest, Findings, ModelManifest},
};

use super::{
    network,
    predict::{Question, predict},
    warm::WarmModel,
};
use crate::{
    batches::{Gallery, Selection},
    evaluation::{Subject, apply_decisions, list_doubts, measure, summary},
    prediction::probabilities::Probabilities,
    report::{Pictures, Report},
    task::{Done, JobContext, JobError, JobOutput, Scope},
};
use subjects::Subjects;

pub(crate) fn run(spec: &EvaluateSpec, context: &JobContext, warm: &mut WarmModel) -> Result<Done, JobError> {
    let model: ModelManifest = context.objects().document(&context.model()?.manifest)?;
    network::check_tta(spec.tta, &model, &context.model()?.name, "evaluate.tta")?;
    // The decisions are read first, so that a file that cannot be used is refused before minutes of computing.
    let decisions = spec.decisions.as_ref().map(|object| read_decisions(context, object)).transpose()?;
    let subjects = Subjects::open(&spec.on, context, &model)?;
    let measured = match context.scope(subjects.photos.len())? {
        Scope::TooLarge(too_large) => return Ok(too_large.counted(context)),
        Scope::Whole => predict_range(spec, context, warm, &model, &subjects, 0..subjects.photos.len())?,
        Scope::Range(range) => {
            let measured = predict_range(spec, context, warm, &model, &subjects, range)?;
            return part::store(context, &measured).map(Done::Made);
        }
        Scope::Join(shards) => part::join(context, shards, model.classes.len())?,
    };
    conclude(spec, context, &model, decisions.as_ref(), subjects, &measured).map(Done::Made)
}

/// Makes the evaluation from the predictions of all subjects.
fn conclude(
    spec: &EvaluateSpec,
    context: &JobContext,
    model: &ModelManifest,
    decisions: Option<&Decisions>,
    mut subjects: Subjects,
    measured: &Measured,
) -> Result<JobOutput, JobError> {
    subjects.keep(&measured.decoded)?;
    if subjects.photos.is_empty() {
        return Err(subjects.nothing_left());
    }
    // Only now it is known which photos can be decoded. So the warning and the report count the same photos.
    subjects.warn_of_known_photos(context, model)?;
    let rows = measured.augmented.as_ref().unwrap_or(&measured.plain);

    let augmented = spec.tta.zip(measured.augmented.as_ref());
    let mut findings = measure(model.classes.clone(), &subjects.photos, &measured.plain, augmented);
    findings.learned_from = subjects.known_photos();
    if findings.learned_from == Some(0) {
        list_doubts(&mut findings, &subjects.photos, rows);
    }
    findings.skipped = subjects.skipped.files();
    if let Some(decisions) = decisions {
        let cleaned = apply_decisions(decisions, &model.classes, &subjects.photos, rows);
        findings.cleaned = Some(cleaned.map_err(|error| Refusal::invalid("evaluate.decisions", error.to_string()))?);
    }
    let conclusion = Conclusion { model, decisions, subjects: &subjects, findings: &findings, rows };
    let manifest = publish(spec, context, &conclusion)?;
    Ok(JobOutput { manifest, summary: summary(&subjects.target.description, &findings) })
}

fn read_decisions(context: &JobContext, object: &ObjectRef) -> Result<Decisions, JobError> {
    context.objects().document(object).map_err(|error| match error {
        crate::objects::ObjectError::Document { source, .. } => {
            let message = format!("the file was not saved by a report: {source}");
            Refusal::invalid("evaluate.decisions", message).into()
        }
        error => error.into(),
    })
}

/// Predictions of some consecutive subjects.
#[derive(Debug, Default)]
struct Measured {
    /// Which of them could be decoded.
    decoded: Vec<bool>,
    /// The rows of these, in order.
    plain: Probabilities,
    /// The same with test-time augmentation, if it was asked for.
    augmented: Option<Probabilities>,
}

/// Predicts some subjects.
fn predict_range(
    spec: &EvaluateSpec,
    context: &JobContext,
    warm: &mut WarmModel,
    model: &ModelManifest,
    subjects: &Subjects,
    range: Range<usize>,
) -> Result<Measured, JobError> {
    let network = warm.get(&context.model()?.manifest.digest, || network::load(context, model))?;
    let mut measured = Measured { augmented: spec.tta.map(|_| Probabilities::default()), ..Measured::default() };
    let selection = Selection { photos: Box::new(subjects.gallery.clone()), numbers: range.clone().collect() };
    let question = Question {
        network,
        photos: Gallery::new(Box::new(selection), 0),
        digests: subjects.photos[range].iter().map(|photo| photo.digest.clone()).collect(),
        tta: spec.tta,
        seed: spec.seed,
        precision: spec.precision,
    };
    predict(context, question, |answers| {
        measured.decoded.extend(answers.outcomes.iter().map(Result::is_ok));
        if !answers.plain.is_empty() {
            measured.plain.extend(&answers.plain);
            measured.augmented.iter_mut().zip(&answers.augmented).for_each(|(all, more)| all.extend(more));
        }
        Ok(())
    })?;
    Ok(measured)
}

/// Everything that is known once all photos are predicted.
struct Conclusion<'a> {
    model: &'a ModelManifest,
    decisions: Option<&'a Decisions>,
    subjects: &'a Subjects,
    findings: &'a Findings,
    rows: &'a Probabilities,
}

/// Stores the predictions, the report and the document that names both.
fn publish(spec: &EvaluateSpec, context: &JobContext, conclusion: &Conclusion<'_>) -> Result<ObjectRef, JobError> {
    let Conclusion { model, decisions, subjects, findings, rows } = *conclusion;
    let (objects, artifact) = (context.objects(), context.model()?);
    let csv = table::to_csv(&findings.classes, &subjects.photos, rows);
    let predictions = objects.put(csv.map_err(|error| JobError::Internal(format!("failed to write CSV: {error}")))?)?;
    let page = Report {
        model: &artifact.name,
        made: model,
        target: &subjects.target.description,
        job: context.task().id.job(),
        submitted: context.task().submitted,
        collection: &subjects.collection,
        noticed: &subjects.noticed,
        decisions,
        command: &command(spec, &artifact.name),
        findings,
        pictures: &pictures(context, findings, subjects)?,
    };
    let page = page.to_html().map_err(|error| JobError::Internal(error.to_string()))?;
    let report = objects.put(page)?;
    Ok(objects.put_document(&EvaluationManifest {
        model: artifact.name.clone(),
        on: subjects.target.clone(),
        findings: findings.clone(),
        report,
        predictions,
    })?)
}

/// Pictures of the photos that the report shows: doubtful labels, then highest loss first, as many as it may hold.
fn pictures(context: &JobContext, findings: &Findings, subjects: &Subjects) -> Result<Pictures, JobError> {
    let gallery: &Arc<Gallery> = &subjects.gallery;
    let doubts = findings.doubts.iter().flatten().map(|doubt| &doubt.digest);
    let shown: Vec<&Digest> = doubts.chain(findings.mistakes.iter().map(|mistake| &mistake.digest)).collect();
    let mut pictures = Pictures::new(shown.iter().collect::<HashSet<_>>().len());
    for (done, digest) in (0..).zip(&shown) {
        context.check_cancelled()?;
        context.progress("report", done, shown.len() as u64, "photos");
        let is_it = |photo: &Subject| photo.digest == **digest;
        let Some(index) = subjects.photos.iter().position(is_it) else { continue };
        // Every subject has been decoded a moment ago. Should one fail now, the report lacks its picture, and no number changes.
        if let Ok(photo) = gallery.photo(subjects.numbers[index])
            && !pictures.add((*digest).clone(), &photo)
        {
            break;
        }
    }
    Ok(pictures)
}

/// The command that evaluates again with the decisions.
fn command(spec: &EvaluateSpec, model: &str) -> String {
    let on = match &spec.on {
        EvaluateOn::HeldOut => String::new(),
        EvaluateOn::Dataset(dataset) => format!(" --on {dataset}"),
        EvaluateOn::Source(_) => " --on FOLDER".to_owned(),
    };
    let tta = spec.tta.map_or_else(String::new, |Tta { recipe, passes }| {
        format!(" --tta={} --passes {passes} --seed {}", recipe.as_str(), spec.seed)
    });
    let precision = match spec.precision {
        Precision::Auto => "",
        Precision::F32 => " --precision f32",
        Precision::Bf16 => " --precision bf16",
    };
    format!("hat evaluate {model}{on}{tta}{precision} --decisions decisions.json")
}
