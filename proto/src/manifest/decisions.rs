use serde::{Deserialize, Serialize};

use super::Document;
use crate::Digest;

/// What a person decided about photos while reading a report. The report saves the decisions, and `--decisions` reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Decisions {
    /// The decisions, at most one for each photo.
    pub decisions: Vec<Decision>,
}

impl Document for Decisions {
    const FORMAT: &'static str = "sortinghat.decisions/1";
}

/// What a person decided about one photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Decision {
    /// The digest of the photo as it was uploaded.
    pub digest: Digest,
    /// The photo's path in the upload, for people; `None` in a file that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What shall be done with it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What shall be done with a photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The photo's label is right.
    Keep,
    /// The photo belongs to no class.
    Exclude,
    /// The photo belongs to another class.
    Relabel {
        /// The class that the photo belongs to.
        class: String,
    },
}
