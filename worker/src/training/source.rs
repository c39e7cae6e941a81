//! What training needs from whoever decodes the photos.

use std::fmt;

use sortinghat_proto::Digest;

use crate::prediction::batch::{Crop, PixelBatch};

/// One labelled photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The digest of its original; names its random draws.
    pub digest: Digest,
    /// Index of its class.
    pub label: usize,
}

/// Which list of examples the indices of a plan point into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// The training examples.
    Training,
    /// The held-out examples.
    Validation,
}

/// The batches that will be asked for, in order, so that they can be decoded ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// How each photo is cut.
    pub crop: Crop,
    /// Indices into the set, batch by batch.
    pub indices: Vec<Vec<usize>>,
}

/// A photo could not be read or decoded; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError(pub String);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}

/// The batches of one plan, in its order.
pub type BatchStream<'a> = Box<dyn Iterator<Item = Result<PixelBatch, SourceError>> + 'a>;

/// Decodes photos. It may decode ahead on threads of its own; what it returns must not depend on them.
pub trait PhotoSource {
    /// The batches of `plan`, one item each.
    fn batches<'a>(&'a self, set: Set, plan: BatchPlan) -> BatchStream<'a>;
}
