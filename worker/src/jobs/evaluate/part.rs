//! What a shard of an evaluation has measured, on its way to the task that joins them.

use serde::{Deserialize, Serialize};
use sortinghat_proto::{
    ObjectRef,
    manifest::{Document, EVALUATION_PART_FORMAT},
    words::count,
};

use super::Measured;
use crate::{
    prediction::probabilities::Probabilities,
    task::{JobContext, JobError, JobOutput},
};

/// Predictions of a range of subjects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MeasuredPart {
    /// Which of them could be decoded.
    decoded: Vec<bool>,
    /// The rows of these: 32-bit floats, the least significant byte first, one for each class.
    plain: ObjectRef,
    /// The same with test-time augmentation.
    augmented: Option<ObjectRef>,
}

impl Document for MeasuredPart {
    const FORMAT: &'static str = EVALUATION_PART_FORMAT;
}

/// Stores what a shard has measured.
pub(super) fn store(context: &JobContext, measured: &Measured) -> Result<JobOutput, JobError> {
    let put = |rows: &Probabilities| {
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        context.objects().put(bytes)
    };
    let part = MeasuredPart {
        decoded: measured.decoded.clone(),
        plain: put(&measured.plain)?,
        augmented: measured.augmented.as_ref().map(put).transpose()?,
    };
    let summary = format!("{} photos predicted", count(part.decoded.len() as u64));
    Ok(JobOutput { manifest: context.objects().put_document(&part)?, summary })
}

/// Joins what shards have measured, in their order.
pub(super) fn join(context: &JobContext, shards: &[ObjectRef], classes: usize) -> Result<Measured, JobError> {
    let mut all = Measured::default();
    for (done, shard) in (1..).zip(shards) {
        context.check_cancelled()?;
        let part: MeasuredPart = context.objects().document(shard)?;
        let rows = part.decoded.iter().filter(|decoded| **decoded).count();
        let read = |object| read(context, object, rows, classes);
        let plain = read(&part.plain)?;
        if !plain.is_empty() {
            all.plain.extend(&plain);
        }
        if let Some(object) = &part.augmented {
            let (augmented, all) = (read(object)?, all.augmented.get_or_insert_default());
            if !augmented.is_empty() {
                all.extend(&augmented);
            }
        }
        all.decoded.extend(part.decoded);
        context.progress("join", done, shards.len() as u64, "parts");
    }
    Ok(all)
}

fn read(context: &JobContext, object: &ObjectRef, rows: usize, classes: usize) -> Result<Probabilities, JobError> {
    let bytes = context.objects().read(object)?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    if bytes.len() != rows * classes * size_of::<f32>() {
        let digest = &object.digest;
        return Err(JobError::Internal(format!("object {digest} does not hold {rows} rows of {classes} classes")));
    }
    Ok(Probabilities::new(values, classes))
}
