//! The documents that are stored as objects. Each document is JSON that starts with its format and version, names every part by digest,
//! and is immutable.
//!
//! A reader accepts the versions that it knows and ignores fields that it does not know. A field may be added, with a default, but is
//! never changed or removed. Documents are written by [`encode`] and read by [`decode`] only.

mod audit;
mod dataset;
mod decisions;
mod evaluation;
mod faults;
mod gather;
mod model;
mod predictions;
mod references;
mod remark;
#[cfg(test)]
mod schemas;
mod upload;

use serde::{Serialize, de::DeserializeOwned};

pub use audit::{AuditFindings, AuditManifest, AuditedLabel};
pub use dataset::{ClassCount, DatasetManifest, IngestCounts, Rejection, RejectionReason, Shard, SplitKind};
pub use decisions::{Decision, Decisions, Verdict};
pub use evaluation::{
    ClassMetrics, CleanedAccuracy, ConfidenceBin, Confusion, EvaluationManifest, EvaluationTarget, Findings, Interval,
    LabelDoubt, Mistake, PairedTest, Score,
};
pub use faults::Faults;
pub use gather::{Credit, Gathered, GatheredClass, ListedUrl, PhotoSource, SourceOutcome, UrlList};
pub use model::{
    AutoRecord, CandidateRecord, DatasetProvenance, EpochRecord, FineTuneRecord, Framing, LabelWeights, LambdaScore,
    ModelManifest, RateSearch, RecipeRecord, RegressionRecord, Spread, UnlikeMethod, UnlikeRecord, UnlikeScale, View,
    WeightedLabel, WeightsProvenance,
};
pub use predictions::{PREDICTION_COLUMNS, PredictionCounts, PredictionsManifest};
pub use references::{References, digests_in, references};
pub use remark::{AbsentClass, ClassSize, Remark, SplitPair};
pub use upload::{LeftOut, LeftOutReason, UploadManifest, UploadedFile};

/// A document that is stored as an object.
pub trait Document: Serialize + DeserializeOwned {
    /// Format and version, such as `sortinghat.dataset/1`.
    const FORMAT: &'static str;
}

/// The format of what a shard of an ingest has found. Only the worker knows its content.
pub const INGEST_PART_FORMAT: &str = "sortinghat.ingest-part/1";
/// The format of what a shard of an evaluation has measured. Only the worker knows its content.
pub const EVALUATION_PART_FORMAT: &str = "sortinghat.evaluation-part/1";

/// Why a stored document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The content is not JSON of the expected shape.
    #[error("not a {expected} document: {source}")]
    Malformed {
        /// The format that was expected.
        expected: &'static str,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The content is another document, or a document of a version that this software does not know.
    #[error("expected a {expected} document, found {found:?}")]
    WrongFormat {
        /// The format that was expected.
        expected: &'static str,
        /// The format that the document states.
        found: String,
    },
}

#[derive(Serialize)]
struct WithFormat<'a, T> {
    format: &'static str,
    #[serde(flatten)]
    document: &'a T,
}

#[derive(serde::Deserialize)]
struct FormatOnly {
    format: String,
}

/// The document as it is stored. Equal documents give equal bytes.
pub fn encode<T: Document>(document: &T) -> Vec<u8> {
    serde_json::to_vec(&WithFormat { format: T::FORMAT, document })
        .expect("manifests have string keys and finite numbers")
}

/// The document in `bytes`.
///
/// # Errors
/// [`DocumentError`] if the content is not JSON, of another format or of an unknown version.
pub fn decode<T: Document>(bytes: &[u8]) -> Result<T, DocumentError> {
    let malformed = |source| DocumentError::Malformed { expected: T::FORMAT, source };
    let FormatOnly { format } = serde_json::from_slice(bytes).map_err(malformed)?;
    if format != T::FORMAT {
        return Err(DocumentError::WrongFormat { expected: T::FORMAT, found: format });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectRef;

    fn upload() -> UploadManifest {
        UploadManifest::of(vec![UploadedFile::new("cats/a.png", ObjectRef::of(b"a"))])
    }

    #[test]
    fn a_document_reads_back_as_it_was_written() {
        assert_eq!(decode::<UploadManifest>(&encode(&upload())).expect("just written"), upload());
    }

    #[test]
    fn an_old_reader_ignores_what_a_new_writer_adds() {
        let mut value: serde_json::Value = serde_json::from_slice(&encode(&upload())).expect("JSON");
        value["added_later"] = 1.into();
        let bytes = serde_json::to_vec(&value).expect("JSON");
        assert_eq!(decode::<UploadManifest>(&bytes).expect("still readable"), upload());
    }

    #[test]
    fn another_document_and_another_version_are_refused_by_name() {
        let bytes = encode(&upload());
        let error = decode::<Decisions>(&bytes).expect_err("an upload is no decisions file");
        assert!(error.to_string().contains("sortinghat.upload/1"), "{error}");
    }
}
