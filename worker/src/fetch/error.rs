//! Why a URL was not fetched.

use std::time::Duration;

use http::StatusCode;

/// Why a URL was not fetched. The message is for the user whose job it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// It is no URL that can be fetched.
    #[error("the URL cannot be fetched: {0}")]
    BadUrl(String),
    /// It is fetched over https only.
    #[error("the URL is http, which anybody on the way can read and change, and the job allows https only")]
    Insecure,
    /// The host's address is not of the public internet.
    #[error("{host} is not on the public internet, so nothing was sent to it")]
    NotPublic {
        /// The host as the URL names it.
        host: String,
    },
    /// The host's name has no address.
    #[error("the name {host} has no address: {reason}")]
    Unresolved {
        /// The host.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// No connection, or none that can be trusted.
    #[error("{host} could not be connected to: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The host does not speak HTTP as it should, or ended its answer early.
    #[error("the answer of {host} cannot be used: {reason}")]
    Broken {
        /// The host.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The host answered with an error.
    #[error("the host answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
    },
    /// The host asks to be left alone for longer than a task waits.
    #[error("the host asks to be left alone for {} s", pause.as_secs())]
    Busy {
        /// For how long.
        pause: Duration,
    },
    /// The host has not answered for a while.
    #[error("{host} has not answered as it should several times, so it is left alone for a while")]
    GivenUp {
        /// The host.
        host: String,
    },
    /// It took too long.
    #[error("there was no whole answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// It is too large.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// How large it may be.
        limit: u64,
    },
    /// It is somewhere else, again and again.
    #[error("there were more than {0} redirects")]
    TooManyRedirects(usize),
    /// The rules for robots of the host forbid it.
    #[error("robots.txt of {host} forbids it")]
    Robots {
        /// The host.
        host: String,
    },
    /// There is something else.
    #[error("{0}")]
    NotAPhoto(String),
}

impl FetchError {
    /// Whether another try, later, may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unresolved { .. } | Self::Unreachable { .. } | Self::Broken { .. } | Self::Slow(_) => true,
            Self::Busy { .. } | Self::GivenUp { .. } => true,
            Self::Status { status } => is_transient(*status),
            Self::BadUrl(_)
            | Self::Insecure
            | Self::NotPublic { .. }
            | Self::TooLarge { .. }
            | Self::TooManyRedirects(_)
            | Self::Robots { .. }
            | Self::NotAPhoto(_) => false,
        }
    }
}

/// Whether a host that answers so may answer otherwise later.
pub(super) fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}
