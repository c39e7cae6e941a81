use serde::{Deserialize, Serialize};

use super::Document;
use crate::ObjectRef;

/// Columns of a predictions Parquet file, in order. `path` utf8 (as uploaded), `digest` utf8, `predicted` utf8 (null on error),
/// `probability` f32 (null on error), `top` list of struct{class utf8, probability f32} (most probable first, empty on
/// error), `error` utf8 (null on success), `unlike` bool (whether the photo resembles none of the classes), `unlike_score` f32 (by how
/// much: above 0 if it resembles none), `status` utf8 (`ok`, `unsure`, `undecodable` or `over-limit`). `unlike` and `unlike_score` are null
/// on error and of a model that cannot tell. Older files lack the last columns, and a row that was copied from one has null there.
pub const PREDICTION_COLUMNS: [&str; 9] =
    ["path", "digest", "predicted", "probability", "top", "error", "unlike", "unlike_score", "status"];

/// The predicted classes of uploaded photos: one row or one error per file, in the order of the upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PredictionsManifest {
    /// The name of the model when the photos were classified: "stamps/1".
    pub model: String,
    /// The model's manifest.
    pub model_manifest: ObjectRef,
    /// The dataset that the model learned from: "stamps@1". Older predictions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The version of this software that classified the photos. Older predictions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// The upload's manifest.
    pub source: ObjectRef,
    /// Class names of the model.
    pub classes: Vec<String>,
    /// Parquet files with the columns [`PREDICTION_COLUMNS`], in row order.
    pub parts: Vec<ObjectRef>,
    /// What became of every file.
    pub counts: PredictionCounts,
}

impl Document for PredictionsManifest {
    const FORMAT: &'static str = "sortinghat.predictions/1";
}

/// What became of every file. Always `inputs = results + errors`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PredictionCounts {
    /// Files in the upload.
    pub inputs: u64,
    /// Files with a prediction.
    pub results: u64,
    /// Files with an error.
    pub errors: u64,
}
