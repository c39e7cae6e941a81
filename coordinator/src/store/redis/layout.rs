//! The keys in Redis and the form of their values. Every key carries the deployment's hash tag, so that all keys are in one slot of a cluster.

use bytes::Bytes;
use sortinghat_proto::Name;

use crate::store::{Expectation, Record, StoreError};

/// The version of this layout; a deployment with another version is refused.
pub(super) const FORMAT_VERSION: u64 = 1;

/// The names of one deployment's keys.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// `{deployment}:`
    tag: String,
}

impl Layout {
    pub(super) fn new(deployment: &Name) -> Self {
        Self { tag: format!("{{{deployment}}}:") }
    }

    /// The key of a record: a string "version:value".
    pub(super) fn record(&self, key: &str) -> String {
        format!("{}r:{key}", self.tag)
    }

    /// The key of an index: a sorted set in which every score is 0, so that the entries are in the order of their bytes.
    pub(super) fn index(&self, index: &str) -> String {
        format!("{}i:{index}", self.tag)
    }

    /// The key of a counter: a string of digits.
    pub(super) fn counter(&self, key: &str) -> String {
        format!("{}c:{key}", self.tag)
    }

    /// The key of the last version that was given to a record.
    pub(super) fn version(&self) -> String {
        format!("{}version", self.tag)
    }

    /// The key of the greatest time that was reported before the last commit, in milliseconds since 1970 UTC.
    pub(super) fn time(&self) -> String {
        format!("{}time", self.tag)
    }

    /// The key of the layout's version.
    pub(super) fn format(&self) -> String {
        format!("{}format", self.tag)
    }

    /// The channel of hints. A message lists topics, one on each line.
    pub(super) fn hints(&self) -> String {
        format!("{}hints", self.tag)
    }
}

/// The text that the script compares with the beginning of a stored record.
pub(super) fn expected(expectation: Expectation) -> String {
    match expectation {
        Expectation::Absent => String::new(),
        Expectation::Version(version) => format!("{version}:"),
    }
}

/// Parses the stored form of a record.
pub(super) fn record(stored: Vec<u8>) -> Result<Record, StoreError> {
    let stored = Bytes::from(stored);
    let colon = stored.iter().position(|byte| *byte == b':');
    let version = colon.and_then(|colon| str::from_utf8(&stored[..colon]).ok()?.parse().ok());
    match (version, colon) {
        (Some(version), Some(colon)) => Ok(Record { version, value: stored.slice(colon + 1..) }),
        _ => Err(StoreError::Unavailable {
            action: "read",
            reason: "a record does not begin with a version: something else writes below this prefix".to_owned(),
        }),
    }
}
