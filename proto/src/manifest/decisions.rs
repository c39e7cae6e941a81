use serde::{Deserialize, Serialize};

use super::Document;
use crate::Digest;

/// What a person decided about photos while reading a report; the report saves it, `--decisions` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    /// At most one for each photo.
    pub decisions: Vec<Decision>,
}

impl Document for Decisions {
    const FORMAT: &'static str = "sortinghat.decisions/1";
}

/// What a person decided about one photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The photo's original.
    pub digest: Digest,
    /// What shall be done with it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What shall be done with a photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Its label is right.
    Keep,
    /// It belongs to no class.
    Exclude,
    /// It belongs to another class.
    Relabel {
        /// The class it belongs to.
        class: String,
    },
}
