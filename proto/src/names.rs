//! Names of artifacts: `stamps@1` is a dataset, `stamps/1` is a model, and a bare `stamps` is the newest version of either.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{JobId, JobKind, Refusal, ids::is_slug, limits, words};

/// The kinds of artifacts that have names. [`JobKind::makes`] says which jobs make them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactKind {
    /// Labelled photos; written `name@version`.
    Dataset,
    /// A trained network; written `name/version`.
    Model,
}

impl ArtifactKind {
    /// The sign between a name and its version.
    pub fn separator(self) -> char {
        match self {
            Self::Dataset => '@',
            Self::Model => '/',
        }
    }

    /// The word for it, in the singular.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Model => "model",
        }
    }

    /// The kinds of jobs that make artifacts of this kind: "finetune".
    pub fn makers(self) -> String {
        let makers = JobKind::ALL.iter().filter(|kind| kind.makes() == Some(self)).map(|kind| kind.as_str());
        words::any_of(&makers.collect::<Vec<_>>())
    }

    fn other(self) -> Self {
        match self {
            Self::Dataset => Self::Model,
            Self::Model => Self::Dataset,
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A dataset's or model's name without a version: 1 to 63 of a-z, 0-9, '-', '_', starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        if is_slug(text, limits::MAX_NAME_BYTES) {
            return Ok(Self(text.to_owned()));
        }
        let message =
            format!("{} is not a name: use 1 to {} of a-z, 0-9, '-', '_'", words::quoted(text), limits::MAX_NAME_BYTES);
        Err(Refusal::invalid("name", message))
    }
}

impl TryFrom<String> for Name {
    type Error = Refusal;
    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

/// One immutable artifact: `stamps@1` or `stamps/1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionedName {
    /// Dataset or model.
    pub kind: ArtifactKind,
    /// The name without the version.
    pub name: Name,
    /// Versions of a name are counted from 1.
    pub version: u32,
}

impl fmt::Display for VersionedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.kind.separator(), self.version)
    }
}

/// A reference to an artifact, in a spec or a command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reference {
    /// `stamps`: the newest version.
    Newest(Name),
    /// `stamps@1`.
    Version(VersionedName),
    /// `job:ID`: the artifact that this job will make.
    Job(JobId),
}

impl Reference {
    fn parse(text: &str, kind: ArtifactKind, field: &str) -> Result<Self, Refusal> {
        let at_field = |refusal: Refusal| refusal.at(field);
        if text.is_empty() {
            return Err(Refusal::invalid(
                field,
                format!("which {kind}? A job of the kind {} makes one", kind.makers()),
            ));
        }
        if let Some(job) = text.strip_prefix("job:") {
            return job.parse().map(Self::Job).map_err(at_field);
        }
        let other = kind.other();
        if text.contains(other.separator()) {
            let maker = kind.makers();
            let message = format!(
                "{} names a {other}, but a {kind} is wanted here: a job of the kind {maker} makes one",
                words::quoted(text)
            );
            return Err(Refusal::invalid(field, message));
        }
        let Some((name, version)) = text.split_once(kind.separator()) else {
            return text.parse().map(Self::Newest).map_err(at_field);
        };
        let name: Name = name.parse().map_err(at_field)?;
        match version.parse::<u32>() {
            // A version has one spelling: "01" and "+1" parse as numbers too.
            Ok(number) if number > 0 && number.to_string() == version => {
                Ok(Self::Version(VersionedName { kind, name, version: number }))
            }
            _ => Err(Refusal::invalid(
                field,
                format!("{} is not a version of {kind} {name}: use 1, 2, 3, ...", words::quoted(version)),
            )),
        }
    }
}

/// Defines the public type of references to one kind of artifact. The types differ in nothing but the kind.
macro_rules! reference_type {
    ($(#[$doc:meta])* $type:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $type {
            /// The newest version of this name.
            Newest(Name),
            /// This version.
            Version(VersionedName),
            /// The artifact that this job will make (`job:ID`).
            Job(JobId),
        }

        impl $type {
            /// Parses `text`.
            ///
            /// # Errors
            /// A [`Refusal`] that names `field`. If `text` names the other kind of artifact, the refusal also says which kind of
            /// job makes the right one.
            pub fn parse(text: &str, field: &str) -> Result<Self, Refusal> {
                Ok(match Reference::parse(text, $kind, field)? {
                    Reference::Newest(name) => Self::Newest(name),
                    Reference::Version(version) => Self::Version(version),
                    Reference::Job(job) => Self::Job(job),
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Newest(name) => name.fmt(f),
                    Self::Version(version) => version.fmt(f),
                    Self::Job(job) => write!(f, "job:{job}"),
                }
            }
        }
    };
}

reference_type!(
    /// A reference to a dataset: `stamps@1`, `stamps` or `job:ID`.
    DatasetRef,
    ArtifactKind::Dataset
);
reference_type!(
    /// A reference to a model: `stamps/1`, `stamps` or `job:ID`.
    ModelRef,
    ArtifactKind::Model
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_name_a_dataset_is_shown_as_it_was_written() {
        for text in ["stamps", "stamps@12", "job:00000000000000000000000000"] {
            assert_eq!(DatasetRef::parse(text, "dataset").expect(text).to_string(), text);
        }
    }

    #[test]
    fn the_wrong_kind_of_name_is_refused_with_the_kind_of_job_that_makes_the_right_one() {
        let refusal = ModelRef::parse("stamps@1", "classify.model").expect_err("a dataset is no model");
        assert_eq!(refusal.field, "classify.model");
        assert!(refusal.message.contains("finetune"), "{}", refusal.message);
    }

    #[test]
    fn versions_have_one_spelling() {
        for text in ["a@0", "a@01", "a@+1", "a@", "a@1@2", "@1"] {
            assert!(DatasetRef::parse(text, "dataset").is_err(), "{text}");
        }
    }
}
