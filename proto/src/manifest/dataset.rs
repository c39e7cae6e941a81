use serde::{Deserialize, Serialize};

use super::{Document, Gathered, Remark};
use crate::{Digest, ObjectRef};

/// An immutable set of labelled photos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatasetManifest {
    /// Class names, sorted. A label is an index into this list.
    pub classes: Vec<String>,
    /// Photos of each class, in the order of `classes`.
    pub class_counts: Vec<ClassCount>,
    /// How photos are held out.
    pub split: SplitKind,
    /// Seed of the split.
    pub seed: u64,
    /// The Parquet shards, in row order.
    pub shards: Vec<Shard>,
    /// Short side of the lossless derivative in pixels.
    pub derivative_short_side_px: u32,
    /// The upload that the dataset was made from.
    pub source: ObjectRef,
    /// What became of every uploaded file.
    pub counts: IngestCounts,
    /// Groups of near-duplicates with more than one photo. All photos of a group are on the same side of the split, unless a remark says
    /// otherwise.
    pub near_duplicate_groups: u64,
    /// The files that were not used and why: JSON, one [`Rejection`] a line. `None` if every file was used.
    pub rejections: Option<ObjectRef>,
    /// What the ingest noticed about the photos, each kind at most once. Empty for a dataset of an older version, which kept nothing of
    /// the kind.
    #[serde(default)]
    pub remarks: Vec<Remark>,
    /// How the photos were gathered from the web; `None` for photos that somebody uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gathered: Option<Gathered>,
}

impl Document for DatasetManifest {
    const FORMAT: &'static str = "sortinghat.dataset/1";
}

impl DatasetManifest {
    /// Photos in the dataset.
    pub fn photos(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// Whether every file and folder that the person named is in the dataset.
    pub fn uses_everything(&self) -> bool {
        self.rejections.is_none() && !self.remarks.iter().any(Remark::leaves_out)
    }
}

/// Photos of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClassCount {
    /// Photos to learn from; all photos of a dataset with folds.
    pub train: u64,
    /// Photos held out; 0 in a dataset with folds.
    pub valid: u64,
}

/// How photos are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SplitKind {
    /// The upload had a folder to learn from and one that is held out.
    Given,
    /// A stratified, seeded share of each class, in percent.
    ValidPercent(u32),
    /// Stratified, seeded folds, each of which can be held out.
    Folds(u32),
}

/// One Parquet file of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shard {
    /// The file.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// Photos in the file.
    pub rows: u64,
}

/// What became of the uploaded files. Always `inputs = accepted + duplicates + conflicting + quarantined + unsupported + ignored`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct IngestCounts {
    /// Files in the upload manifest.
    pub inputs: u64,
    /// Files whose photo is in the dataset.
    pub accepted: u64,
    /// Files with exactly the same content as an accepted one of the same class.
    pub duplicates: u64,
    /// Files whose content was uploaded under two labels; none of them is used.
    pub conflicting: u64,
    /// Files that should have been photos and cannot be read or decoded.
    pub quarantined: u64,
    /// Files in formats that are not supported (SVG, HEIC, ...).
    pub unsupported: u64,
    /// Files that are no photos, and files outside every class folder.
    pub ignored: u64,
}

impl IngestCounts {
    /// Whether every input is counted exactly once.
    pub fn balance(&self) -> bool {
        self.inputs
            == self.accepted + self.duplicates + self.conflicting + self.quarantined + self.unsupported + self.ignored
    }
}

/// A file that was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rejection {
    /// The path of the file in the upload.
    pub path: String,
    /// The digest of the file's content.
    pub digest: Digest,
    /// The reason, for programs.
    pub reason: RejectionReason,
    /// The reason, for people.
    pub message: String,
}

/// Why a file was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RejectionReason {
    /// The file is empty.
    Empty,
    /// The file ends too early.
    Truncated,
    /// The photo cannot be decoded.
    Corrupt,
    /// The photo exceeds a limit that is checked before decoding.
    OverLimit,
    /// The picture has a format that is not supported.
    Unsupported,
    /// The file is no picture.
    NotAPhoto,
    /// The file is outside every class folder.
    NoClass,
    /// The file is in a folder beside those of the split, or in a test folder that is not held out.
    BesideSplit,
    /// The same content is in the dataset already.
    Duplicate,
    /// The same content was uploaded under two labels.
    Conflicting,
    /// The client could not read the file.
    Unreadable,
    /// A reason that only a newer version knows.
    #[serde(other)]
    Other,
}

impl RejectionReason {
    /// The reason as it is written after a number: "3 in a format that is not supported".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Truncated => "truncated",
            Self::Corrupt => "cannot be decoded",
            Self::OverLimit => "over a limit",
            Self::Unsupported => "in a format that is not supported",
            Self::Duplicate => "exact duplicate",
            Self::Conflicting => "under two labels",
            Self::NotAPhoto => "no photo",
            Self::NoClass => "in no class folder",
            Self::BesideSplit => "beside the folders of the split",
            Self::Unreadable => "cannot be read",
            Self::Other => "for a reason that only a newer version knows",
        }
    }
}
