//! Classify: makes predictions from photos. Each file gives one row or one error, in the order of the upload, in bounded memory.

mod join;
mod table;

use sortinghat_proto::{
    ClassifySpec, ObjectRef,
    manifest::{ModelManifest, PredictionCounts, PredictionsManifest, UploadManifest, UploadedFile},
    words::count,
};

use super::{
    network::{self, derivative_short_side},
    predict::{Answers, Question, predict},
    warm::WarmModel,
};
use crate::{
    batches::{Gallery, UploadedPhotos},
    prediction::probabilities::Probabilities,
    task::{Done, JobContext, JobError, JobOutput, Scope},
};
use join::join;
use table::{Row, Table};

/// The most rows that one Parquet file has.
const PART_ROWS: usize = 50_000;
/// The most classes that the rows of one Parquet file name together, with their probabilities: a file is made in memory.
const PART_PREDICTIONS: usize = 250_000;

pub(crate) fn run(spec: &ClassifySpec, context: &JobContext, warm: &mut WarmModel) -> Result<Done, JobError> {
    let artifact = context.model()?;
    let model: ModelManifest = context.objects().document(&artifact.manifest)?;
    network::check_tta(spec.tta, &model, &artifact.name, "classify.tta")?;
    let upload: UploadManifest = context.objects().document(&spec.source)?;
    let files = upload.files;
    let top_k = (spec.top_k as usize).min(model.classes.len());
    let (files, (parts, counts)) = match context.scope(files.len())? {
        Scope::TooLarge(too_large) => return Ok(too_large.counted(context)),
        Scope::Whole => (files.as_slice(), classify(spec, context, warm, &model, &files, top_k)?),
        // A range makes predictions like any job: the task that joins reads those of every range.
        Scope::Range(range) => {
            let files = &files[range];
            (files, classify(spec, context, warm, &model, files, top_k)?)
        }
        Scope::Join(shards) => (files.as_slice(), join(context, &files, shards, part_rows(top_k))?),
    };
    if counts.inputs != files.len() as u64 || counts.inputs != counts.results + counts.errors {
        return Err(JobError::Internal(format!("{counts:?} do not account for {} files", files.len())));
    }
    let summary = summary(&artifact.name, counts);
    let manifest = context.objects().put_document(&PredictionsManifest {
        model: artifact.name.clone(),
        model_manifest: artifact.manifest.clone(),
        dataset: Some(model.dataset.name),
        software: Some(env!("CARGO_PKG_VERSION").to_owned()),
        source: spec.source.clone(),
        classes: model.classes,
        parts,
        counts,
    })?;
    Ok(Done::Made(JobOutput { manifest, summary }))
}

/// Predicts these files; returns the stored parts.
fn classify(
    spec: &ClassifySpec,
    context: &JobContext,
    warm: &mut WarmModel,
    model: &ModelManifest,
    files: &[UploadedFile],
    top_k: usize,
) -> Result<(Vec<ObjectRef>, PredictionCounts), JobError> {
    let short_side_px = derivative_short_side(context, model)?;
    let network = warm.get(&context.model()?.manifest.digest, || network::load(context, model))?;
    let photos = UploadedPhotos::new(context.objects(), context.pulse(), files.to_vec(), short_side_px);
    let question = Question {
        network,
        photos: Gallery::new(Box::new(photos), 0),
        digests: files.iter().map(|file| file.object.digest.clone()).collect(),
        tta: spec.tta,
        seed: spec.seed,
        precision: spec.precision,
    };
    let mut writer = Writer::new(context, &model.classes, top_k);
    let mut waiting = files.iter();
    predict(context, question, |answers| writer.add(waiting.by_ref(), &answers))?;
    writer.finish()
}

fn summary(model: &str, counts: PredictionCounts) -> String {
    let photos = |number: u64| if number == 1 { "1 photo".to_owned() } else { format!("{} photos", count(number)) };
    let classified = format!("{} classified by {model}", photos(counts.results));
    match counts.errors {
        0 => classified,
        errors => format!("{classified}, {} could not be read", count(errors)),
    }
}

/// How many rows a Parquet file has if each row names `top_k` classes. The last file has fewer.
fn part_rows(top_k: usize) -> usize {
    PART_ROWS.min(PART_PREDICTIONS / top_k.max(1)).max(1)
}

/// Turns answers into rows, and rows into stored Parquet files.
struct Writer<'a> {
    context: &'a JobContext,
    classes: &'a [String],
    top_k: usize,
    table: Table,
    parts: Vec<ObjectRef>,
    counts: PredictionCounts,
}

impl<'a> Writer<'a> {
    fn new(context: &'a JobContext, classes: &'a [String], top_k: usize) -> Self {
        let (parts, counts) = (Vec::new(), PredictionCounts::default());
        Self { context, classes, top_k, table: Table::default(), parts, counts }
    }

    /// Adds the answers about the next of `files`.
    fn add<'f>(
        &mut self,
        mut files: impl Iterator<Item = &'f UploadedFile>,
        answers: &Answers,
    ) -> Result<(), JobError> {
        let rows = answers.augmented.as_ref().unwrap_or(&answers.plain);
        let mut next_row = 0;
        for outcome in &answers.outcomes {
            let file = files.next().ok_or_else(|| JobError::Internal("more answers than files".into()))?;
            let mut unlike = None;
            let top = match outcome {
                Ok(()) => {
                    unlike = answers.unlike.as_ref().map(|scores| scores[next_row]);
                    next_row += 1;
                    self.counts.results += 1;
                    Ok(top(rows, next_row - 1, self.top_k))
                }
                Err(reason) => {
                    self.counts.errors += 1;
                    Err(reason)
                }
            };
            self.counts.inputs += 1;
            let digest = file.object.digest.as_str();
            self.table.push(Row { path: file.shown(), digest, top, unlike, classes: self.classes });
            if self.table.rows() == part_rows(self.top_k) {
                self.store_part()?;
            }
        }
        Ok(())
    }

    fn store_part(&mut self) -> Result<(), JobError> {
        let bytes = std::mem::take(&mut self.table).into_parquet();
        let bytes = bytes.map_err(|error| failed_to_write(&error))?;
        self.parts.push(self.context.objects().put(bytes)?);
        Ok(())
    }

    /// The stored parts; at least one, so that a reader always finds the columns.
    fn finish(mut self) -> Result<(Vec<ObjectRef>, PredictionCounts), JobError> {
        if self.table.rows() > 0 || self.parts.is_empty() {
            self.store_part()?;
        }
        Ok((self.parts, self.counts))
    }
}

fn failed_to_write(error: &dyn std::error::Error) -> JobError {
    JobError::Internal(format!("failed to write predictions: {error}"))
}

/// The `k` most probable classes of a photo with their probabilities, the most probable first, equal ones by name.
fn top(rows: &Probabilities, photo: usize, k: usize) -> Vec<(usize, f32)> {
    let mut classes: Vec<(usize, f32)> = rows.row(photo).iter().copied().enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    classes.truncate(k);
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_come_first_and_equal_ones_by_name() {
        let rows = Probabilities::new(vec![1.0, 0.0, 0.0, 0.0, 0.1, 0.4, 0.1, 0.4], 4);
        assert_eq!(top(&rows, 1, 3), [(1, 0.4), (3, 0.4), (0, 0.1)]);
    }

    #[test]
    fn a_part_names_as_many_classes_at_most_whatever_is_asked_of_a_photo() {
        assert_eq!([1, 5].map(part_rows), [PART_ROWS; 2]);
        assert_eq!([6, 1_000, usize::MAX].map(part_rows), [41_666, 250, 1]);
    }

    #[test]
    fn the_summary_says_what_could_not_be_read() {
        let counts = |results, errors| PredictionCounts { inputs: results + errors, results, errors };
        assert_eq!(summary("stamps/1", counts(1, 0)), "1 photo classified by stamps/1");
        assert_eq!(summary("stamps/1", counts(1200, 3)), "1,200 photos classified by stamps/1, 3 could not be read");
    }
}
