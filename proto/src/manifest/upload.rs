use serde::{Deserialize, Serialize};

use super::Document;
use crate::ObjectRef;

/// The files that a client uploaded, by relative path, in the order in which the client wants results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UploadManifest {
    /// The files. No two files have the same path.
    pub files: Vec<UploadedFile>,
    /// What the client found beside the files and left out, grouped by reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

impl Document for UploadManifest {
    const FORMAT: &'static str = "sortinghat.upload/1";
}

impl UploadManifest {
    /// An upload of these files, from which nothing was left out.
    pub fn of(files: Vec<UploadedFile>) -> Self {
        Self { files, left_out: Vec::new() }
    }
}

/// One uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UploadedFile {
    /// The relative path, with `/` between its parts, none of which is empty, `.` or `..`. It is never used as a path of a file system.
    pub path: String,
    /// The content. The empty object if the client could not read the file.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// The path by which the person who uploaded the file finds it, if that is not `path`: `../x.png`. Results name the file by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_as: Option<String>,
    /// Why the client could not read the file. The file is then an input like any other and ends as an error or a rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

impl UploadedFile {
    /// A file that was read whole.
    pub fn new(path: impl Into<String>, object: ObjectRef) -> Self {
        Self { path: path.into(), object, shown_as: None, unread: None }
    }

    /// The path by which results name the file.
    pub fn shown(&self) -> &str {
        self.shown_as.as_deref().unwrap_or(&self.path)
    }
}

/// The entries of a folder that a client left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftOut {
    /// The reason.
    pub reason: LeftOutReason,
    /// How many entries there are. A folder counts as one, because nobody has looked into it.
    pub entries: u64,
    /// The relative paths of the first [`limits::MAX_LEFT_OUT_PATHS`](crate::limits::MAX_LEFT_OUT_PATHS) entries, those of folders with a
    /// `/` at their end.
    pub paths: Vec<String>,
}

/// Why a client left out an entry of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LeftOutReason {
    /// A symbolic link that leads out of the folder.
    OutsideLink,
    /// A symbolic link that leads nowhere, with the name of a folder. One with the name of a file is a file that cannot be read.
    BrokenLink,
    /// A symbolic link that leads back to a folder in which it lies.
    CircularLink,
    /// A folder that the client cannot list.
    UnreadableFolder,
    /// The name is not UTF-8.
    NotUtf8,
    /// The relative path is too long.
    PathTooLong,
    /// Neither a file nor a folder.
    Special,
    /// The name starts with a dot.
    Hidden,
    /// What programs and systems leave behind: thumbnails, bins, notes of their own.
    Litter,
    /// A folder without any file.
    EmptyFolder,
    /// A reason that only a newer version knows.
    #[serde(other)]
    Other,
}

impl LeftOutReason {
    /// The reason in words, of one entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutsideLink => "a symbolic link that leads out of the folder",
            Self::BrokenLink => "a symbolic link that leads nowhere",
            Self::CircularLink => "a symbolic link that leads back to its own folder",
            Self::UnreadableFolder => "a folder that cannot be read",
            Self::NotUtf8 => "a name that is not UTF-8",
            Self::PathTooLong => "a path that is too long",
            Self::Special => "neither a file nor a folder",
            Self::Hidden => "hidden",
            Self::Litter => "thumbnails, bins and other files of systems",
            Self::EmptyFolder => "an empty folder",
            Self::Other => "for a reason that only a newer version knows",
        }
    }

    /// Whether a photo that the person wants may have been left out.
    pub fn may_be_missed(self) -> bool {
        match self {
            Self::OutsideLink | Self::BrokenLink | Self::CircularLink | Self::UnreadableFolder => true,
            Self::NotUtf8 | Self::PathTooLong | Self::Special | Self::Other => true,
            Self::Hidden | Self::Litter | Self::EmptyFolder => false,
        }
    }
}
