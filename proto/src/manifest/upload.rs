use serde::{Deserialize, Serialize};

use super::Document;
use crate::ObjectRef;

/// The files that a client uploaded, by relative path, in the order in which the client wants results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadManifest {
    /// The files. No two files have the same path.
    pub files: Vec<UploadedFile>,
}

impl Document for UploadManifest {
    const FORMAT: &'static str = "sortinghat.upload/1";
}

/// One uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedFile {
    /// The relative path, with `/` between its parts. It is never used as a path of a file system.
    pub path: String,
    /// The content.
    #[serde(flatten)]
    pub object: ObjectRef,
}
