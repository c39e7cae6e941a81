//! Why a request of an executor fails, and what the executor is told.

use std::{io, path::PathBuf};

use sortinghat_objects::{Trouble, is_missing};
use sortinghat_proto::{
    executor::v1::{ObjectFailure, object_failure::Kind},
    limits::MAX_TEXT_BYTES,
};

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The store does not have the object.
    #[error("it is not in the object store")]
    Missing,
    /// The store's copy is not the object.
    #[error("{0}")]
    Corrupt(String),
    /// The store failed. The message is for tenants; what the store said, the worker finds out by itself and tells operators.
    #[error("{}", Trouble::of(.0).in_words())]
    Store(object_store::Error),
    /// The cache's folder failed. The message is for tenants; the log says which folder.
    #[error("the worker failed to use its cache: {source}")]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// This machine failed.
    #[error("{0}")]
    Machine(#[from] io::Error),
    /// There are no such weights: why, and whom to ask.
    #[error("{0}")]
    NoWeights(String),
    /// The operator does not allow the tenant to gather.
    #[error("{0}")]
    NotAllowed(String),
    /// A provider cannot be asked.
    #[error("{0}")]
    ProviderUnusable(String),
    /// A provider does not answer now.
    #[error("{0}")]
    ProviderUnavailable(String),
    /// The executor may not have this, or nobody waits for it any more.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// What the store's error means for an object.
    pub(super) fn of_store(error: object_store::Error) -> Self {
        if is_missing(&error) { Self::Missing } else { Self::Store(error) }
    }

    /// What the executor is told, and so the tenant.
    pub(super) fn into_message(self) -> ObjectFailure {
        if let Self::Cache { path, source } = &self {
            tracing::error!(path = %path.display(), error = %source, "failed to use the cache");
        }
        let kind = match &self {
            Self::Missing => Kind::Missing,
            Self::Corrupt(_) => Kind::Corrupt,
            Self::Store(error) if Trouble::of(error) == Trouble::Unavailable => Kind::Unavailable,
            Self::Store(_) => Kind::Unusable,
            Self::Cache { .. } | Self::Machine(_) => Kind::Machine,
            Self::NoWeights(_) => Kind::NoWeights,
            Self::NotAllowed(_) => Kind::NotAllowed,
            Self::ProviderUnusable(_) => Kind::ProviderUnusable,
            Self::ProviderUnavailable(_) => Kind::ProviderUnavailable,
            Self::Refused(_) => Kind::Refused,
        };
        let mut reason = self.to_string();
        reason.truncate(reason.floor_char_boundary(MAX_TEXT_BYTES));
        ObjectFailure { kind: kind.into(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_told_what_happened_to_the_cache_and_not_where_it_is() {
        let failure = Failure::Cache { path: "/srv/cache/t".into(), source: io::ErrorKind::StorageFull.into() };
        let told = failure.into_message();
        assert_eq!(told.kind(), Kind::Machine);
        assert_eq!(told.reason, "the worker failed to use its cache: no storage space");
    }
}
