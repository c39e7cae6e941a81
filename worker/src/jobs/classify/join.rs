//! Joins the predictions of shards to those of the job. Every row comes in the order of the upload, and is checked against it.

use arrow_array::{Array as _, RecordBatch, cast::AsArray as _};
use arrow_select::concat::concat_batches;
use sortinghat_proto::{
    ObjectRef,
    manifest::{PredictionCounts, PredictionsManifest, UploadedFile},
};

use super::{
    failed_to_write,
    table::{from_parquet, to_parquet},
};
use crate::task::{JobContext, JobError};

/// Joins what shards have predicted of `files` into parts of `part_rows` rows. Holds one part in memory. The same rows give the same
/// parts, however they were divided.
///
/// # Errors
/// [`JobError::Internal`] unless there is exactly one row for each file, in the order of the files.
pub(super) fn join(
    context: &JobContext,
    files: &[UploadedFile],
    shards: &[ObjectRef],
    part_rows: usize,
) -> Result<(Vec<ObjectRef>, PredictionCounts), JobError> {
    let (waiting, parts, counts) = (Vec::new(), Vec::new(), PredictionCounts::default());
    let mut joined = Joined { context, files, part_rows, waiting, parts, counts };
    for shard in shards {
        let predictions: PredictionsManifest = context.objects().document(shard)?;
        for part in &predictions.parts {
            for rows in from_parquet(context.objects().read(part)?).map_err(unreadable)? {
                joined.add(rows.map_err(unreadable)?)?;
            }
        }
    }
    joined.finish()
}

fn unreadable(error: parquet::errors::ParquetError) -> JobError {
    JobError::Internal(format!("failed to read a shard's predictions: {error}"))
}

struct Joined<'a> {
    context: &'a JobContext,
    files: &'a [UploadedFile],
    part_rows: usize,
    /// Rows for the next part.
    waiting: Vec<RecordBatch>,
    parts: Vec<ObjectRef>,
    counts: PredictionCounts,
}

impl Joined<'_> {
    fn add(&mut self, mut rows: RecordBatch) -> Result<(), JobError> {
        self.context.check_cancelled()?;
        self.count(&rows)?;
        self.context.progress("join", self.counts.inputs, self.files.len() as u64, "photos");
        while self.waiting_rows() + rows.num_rows() >= self.part_rows {
            let fitting = self.part_rows - self.waiting_rows();
            self.waiting.push(rows.slice(0, fitting));
            rows = rows.slice(fitting, rows.num_rows() - fitting);
            self.store_part()?;
        }
        if rows.num_rows() > 0 {
            self.waiting.push(rows);
        }
        Ok(())
    }

    /// Counts rows, each of which must belong to the next file.
    fn count(&mut self, rows: &RecordBatch) -> Result<(), JobError> {
        let (paths, digests) = (rows.column(0).as_string::<i32>(), rows.column(1).as_string::<i32>());
        let errors = rows.column(5);
        for row in 0..rows.num_rows() {
            let number = self.counts.inputs as usize;
            let is_its = |file: &&UploadedFile| {
                file.shown() == paths.value(row) && file.object.digest.as_str() == digests.value(row)
            };
            if self.files.get(number).filter(is_its).is_none() {
                let path = paths.value(row);
                return Err(JobError::Internal(format!("row {number} of the joined predictions is of {path:?}")));
            }
            self.counts.inputs += 1;
            let count = if errors.is_null(row) { &mut self.counts.results } else { &mut self.counts.errors };
            *count += 1;
        }
        Ok(())
    }

    fn waiting_rows(&self) -> usize {
        self.waiting.iter().map(RecordBatch::num_rows).sum()
    }

    fn store_part(&mut self) -> Result<(), JobError> {
        let waiting = std::mem::take(&mut self.waiting);
        let schema = waiting.first().expect("rows wait").schema();
        let rows = concat_batches(&schema, &waiting).map_err(|error| failed_to_write(&error))?;
        let part = to_parquet(&rows).map_err(|error| failed_to_write(&error))?;
        self.parts.push(self.context.objects().put(part)?);
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<ObjectRef>, PredictionCounts), JobError> {
        if !self.waiting.is_empty() {
            self.store_part()?;
        }
        Ok((self.parts, self.counts))
    }
}
