//! Values of settings, which cannot hold nonsense. Each is written and read as text.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use sortinghat_proto::secrets::without_secrets;
use tracing_subscriber::EnvFilter;
use url::Url;

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} {reason}")]
pub struct ValueError {
    /// The value as it was given, or the part of it that holds no secret.
    pub value: String,
    /// What is wrong with the value, and what is allowed.
    pub reason: String,
}

fn refuse<T>(value: impl ToString, reason: impl ToString) -> Result<T, ValueError> {
    Err(ValueError { value: without_secrets(&value.to_string()).into_owned(), reason: reason.to_string() })
}

/// Implements the conversions that serialise a type as the text that it is parsed from.
macro_rules! as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

/// The store of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StoreUrl {
    /// `embedded:FILE`: one file, for one coordinator.
    Embedded(PathBuf),
    /// `redis://HOST`: a Redis, for many coordinators.
    Redis(RedisUrl),
    /// `memory:`: lost with the process. For tests.
    Memory,
}

as_text!(StoreUrl);

impl FromStr for StoreUrl {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            Some(("embedded", path)) if !path.is_empty() => Ok(Self::Embedded(path.into())),
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("redis" | "rediss", _)) => Ok(Self::Redis(text.parse()?)),
            _ => refuse(text, "is not a store: use embedded:FILE, redis://HOST, or memory: for tests"),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
            Self::Redis(url) => url.fmt(f),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// A Redis: `redis://[USER@]HOST[:PORT][/DATABASE]`, or `rediss://` for TLS. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl(Url);

impl RedisUrl {
    /// The URL.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for RedisUrl {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        const FORM: &str = "is not a Redis: use redis://HOST:6379, or rediss:// for TLS";
        let Ok(url) = Url::parse(text) else { return refuse(text, FORM) };
        if url.password().is_some() {
            return refuse(
                text,
                "holds a password: put the password in a file, and name the file with --store-password-file",
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse(text, "has options, which would be ignored");
        }
        let database = url.path().trim_start_matches('/');
        let is_database = database.is_empty() || database.parse::<u32>().is_ok();
        match url.host_str() {
            Some(host) if !host.is_empty() && is_database && matches!(url.scheme(), "redis" | "rediss") => {
                Ok(Self(url))
            }
            _ => refuse(text, FORM),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A duration with its unit, such as `30s` or `1m 30s`, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

as_text!(Span);

impl Span {
    const SHORTEST_LEASE: Duration = Duration::from_millis(100);
    const LONGEST_LEASE: Duration = Duration::from_secs(3600);
    const LEASES_PER_OBJECT_GRACE: u32 = 10;

    /// A span of this duration.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// The duration in the standard library's type.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// The duration in milliseconds.
    pub fn as_ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Checks that a lease can be this long.
    pub(super) fn checked_as_lease(self) -> Result<Self, ValueError> {
        if (Self::SHORTEST_LEASE..=Self::LONGEST_LEASE).contains(&self.0) {
            return Ok(self);
        }
        refuse(self, "is not a useful duration of a lease: use 100ms to 1h")
    }

    /// Checks that this is long enough to keep objects that nothing refers to, beside leases of the given duration.
    pub(super) fn checked_as_object_grace(self, lease: Self) -> Result<Self, ValueError> {
        let least = Self(lease.0 * Self::LEASES_PER_OBJECT_GRACE);
        if self >= least {
            return Ok(self);
        }
        refuse(
            self,
            format!("is too short, as a task may not have reported yet which objects it made: use {least} or more"),
        )
    }
}

impl FromStr for Span {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match humantime::parse_duration(text) {
            Ok(duration) => Ok(Self(duration)),
            Err(_) => refuse(text, "is not a duration: write 500ms, 30s or 2m"),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The filter of log lines, in the syntax of `tracing`: `info`, `sortinghat_coordinator=debug,warn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

as_text!(LogFilter);

impl LogFilter {
    /// The filter in the subscriber's type.
    pub fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => refuse(text, format!("is not a log filter: {error}")),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
