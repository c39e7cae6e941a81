//! Identifiers that cannot be malformed.

use std::{fmt, str::FromStr};

use serde_with::{DeserializeFromStr, SerializeDisplay};
use sha2::{Digest as _, Sha256};

use crate::{Refusal, limits, words};

/// Implements what every validated string has in common: access to its text.
macro_rules! validated_string {
    ($type:ident) => {
        impl $type {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }
    };
}

/// The id of a job: a ULID, 26 characters of Crockford's base 32 in lower case. Ids are ordered by the time of submission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub struct JobId([u8; JOB_ID_DIGITS]);

const JOB_ID_DIGITS: usize = 26;
const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl JobId {
    /// The id made of a time in milliseconds since 1970 (48 bits) and 80 random bits.
    pub fn new(unix_ms: u64, random: u128) -> Self {
        let bits = (u128::from(unix_ms) & ((1 << 48) - 1)) << 80 | random & ((1 << 80) - 1);
        let digit = |place: usize| CROCKFORD[(bits >> (5 * (JOB_ID_DIGITS - 1 - place)) & 31) as usize];
        Self(std::array::from_fn(digit))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobId {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z');
        match <[u8; JOB_ID_DIGITS]>::try_from(text.as_bytes()) {
            // 26 digits of 5 bits hold 130 bits and the id has 128, so that the first digit has only three.
            Ok(digits @ [b'0'..=b'7', ..]) if digits.iter().all(is_digit) => Ok(Self(digits)),
            _ => Err(Refusal::invalid(
                "job_id",
                format!("{} is not a job id, which has 26 characters", words::quoted(text)),
            )),
        }
    }
}

/// The id of a task: the job's id, a dot, and the task's index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub struct TaskId {
    job: JobId,
    index: u32,
}

impl TaskId {
    /// The id of the task of `job` with this index.
    pub fn new(job: JobId, index: u32) -> Self {
        Self { job, index }
    }

    /// The job that the task belongs to.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// The index of the task within its job, counted from 0.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

impl FromStr for TaskId {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = || Refusal::invalid("task_id", format!("{} is not a task id", words::quoted(text)));
        let (job, index) = text.split_once('.').ok_or_else(malformed)?;
        // Each id has one spelling, so that ids can be compared as text. "+1" and "01" parse as numbers too.
        if index != "0" && index.starts_with(['0', '+']) {
            return Err(malformed());
        }
        Ok(Self { job: job.parse()?, index: index.parse().map_err(|_| malformed())? })
    }
}

/// The id of a worker process. A worker that is started again has another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub struct WorkerId(String);

validated_string!(WorkerId);

impl FromStr for WorkerId {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        if is_slug(text, limits::MAX_NAME_BYTES) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refusal::invalid(
            "worker_id",
            format!("{} is not a worker id: use 1 to 63 of a-z, 0-9, '-', '_'", words::quoted(text)),
        ))
    }
}

/// The owner of jobs and objects. No tenant sees those of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub struct Tenant(String);

validated_string!(Tenant);

impl Tenant {
    /// The only tenant of a coordinator without credentials, which serves on loopback.
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

impl FromStr for Tenant {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        if is_slug(text, limits::MAX_NAME_BYTES) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refusal::invalid(
            "tenant",
            format!("{} is not a tenant: use 1 to 63 of a-z, 0-9, '-', '_'", words::quoted(text)),
        ))
    }
}

/// Whether `text` consists of lower-case letters, digits, '-' and '_' and does not start with a sign: such a text is safe in a file
/// name, a URL and a key.
pub(crate) fn is_slug(text: &str, max_bytes: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=max_bytes).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with(['-', '_'])
}

/// The SHA-256 of an object's content: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub struct Digest(String);

validated_string!(Digest);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(content)))
    }

    /// The digest of the content that `hasher` was given piece by piece.
    pub fn from_hasher(hasher: Sha256) -> Self {
        Self(hex::encode(hasher.finalize()))
    }

    /// The key of the object in the object store, below its root: `t/<tenant>/sha256/<first 2 digits>/<all 64 digits>`.
    pub fn object_key(&self, tenant: &Tenant) -> String {
        format!("t/{tenant}/sha256/{}/{}", &self.0[..2], self.0)
    }

    /// The first eight bytes as a big-endian number, which serves as a seed.
    pub fn to_u64(&self) -> u64 {
        u64::from_str_radix(&self.0[..16], 16).expect("a digest is hexadecimal")
    }
}

impl FromStr for Digest {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let well_formed = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Err(Refusal::invalid(
                "digest",
                format!("{} is not a SHA-256 digest (64 lower-case hex digits)", words::quoted(text)),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_sort_by_time_and_parse_back() {
        let (early, late) = (JobId::new(1_000, u128::MAX), JobId::new(1_001, 0));
        assert!(early < late);
        assert_eq!(early.as_str().parse::<JobId>(), Ok(early));
    }

    #[test]
    fn ids_that_look_nearly_right_are_refused() {
        let job = JobId::new(1, 2);
        for text in ["", "01", "8zzzzzzzzzzzzzzzzzzzzzzzzz", "0123456789ABCDEFGHJKMNPQRS"] {
            assert!(text.parse::<JobId>().is_err(), "{text:?}");
        }
        for index in ["", "+1", "01", "-1", "4294967296"] {
            assert!(format!("{job}.{index}").parse::<TaskId>().is_err(), "{index:?}");
        }
        for tenant in ["", "A", "a/b", "..", "-a", &"a".repeat(64)] {
            assert!(tenant.parse::<Tenant>().is_err(), "{tenant:?}");
        }
    }

    #[test]
    fn an_object_key_holds_tenant_and_digest_only() {
        let digest = Digest::of(b"");
        let key = digest.object_key(&Tenant::local());
        assert_eq!(key, "t/local/sha256/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
