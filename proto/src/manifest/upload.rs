use serde::{Deserialize, Serialize};

use super::Document;
use crate::ObjectRef;

/// What a client uploaded: files by relative path, in the order in which results are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadManifest {
    /// The files; each path once.
    pub files: Vec<UploadedFile>,
}

impl Document for UploadManifest {
    const FORMAT: &'static str = "sortinghat.upload/1";
}

/// One uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedFile {
    /// Relative, with `/` between parts; never used as a path of a file system.
    pub path: String,
    /// The content as it was uploaded.
    #[serde(flatten)]
    pub object: ObjectRef,
}
