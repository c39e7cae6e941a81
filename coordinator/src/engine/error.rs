//! The error of the engine.

use sortinghat_proto::{Refusal, v1::ErrorCode};
use thiserror::Error;

use crate::{queue::Rejection, store::StoreError};

/// Why a command of the engine failed. The engine branches on the variant; the API turns every variant into a [`Refusal`], in one place.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum EngineError {
    /// The queue's store does not answer, or must not be used. No other command can succeed now either.
    #[error("{0}")]
    StoreUnavailable(String),
    /// The command lost the race for its records in every one of many tries. The caller should try again later.
    #[error("{what} is being changed by too many commands at once; try again")]
    Contended {
        /// What is being changed.
        what: String,
    },
    /// Another operation excludes this command for a moment. The caller should try again soon.
    #[error("{0}")]
    Busy(String),
    /// A stored record is damaged, or a newer version of the software wrote it.
    #[error("record {key} cannot be read: {reason}")]
    Unreadable {
        /// The name of the record.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A defect of this software, which was found before it could become durable.
    #[error("{0}")]
    Defect(String),
    /// The request is refused, for this reason. The failure of an object store that could not be asked is a refusal, too.
    #[error("{0}")]
    Refused(Refusal),
}

impl EngineError {
    /// The error of a command that lost every race for the records that it changes.
    pub(crate) fn contended(what: impl ToString) -> Self {
        metrics::counter!("sortinghat_contended_commands_total").increment(1);
        Self::Contended { what: what.to_string() }
    }

    /// A refusal with this code.
    pub(crate) fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }

    /// Names the field of the request that a refusal is about.
    pub(crate) fn in_field(self, field: impl Into<String>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(refusal.at(field)),
            other => other,
        }
    }

    /// The code that a caller of the API sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::StoreUnavailable(_) | Self::Contended { .. } | Self::Busy(_) => ErrorCode::StorageUnavailable,
            Self::Unreadable { .. } | Self::Defect(_) => ErrorCode::Internal,
            Self::Refused(refusal) => refusal.code,
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Malformed { .. } => Self::Defect(error.to_string()),
            StoreError::Unavailable { .. } | StoreError::Unsafe { .. } | StoreError::Closed => {
                Self::StoreUnavailable(error.to_string())
            }
        }
    }
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The engine sends an event to the rules only if every state has an answer to it, so a rejection that arrives here is a defect.
impl From<Rejection> for EngineError {
    fn from(rejection: Rejection) -> Self {
        Self::Defect(rejection.to_string())
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused(refusal) => refusal,
            other => Self::new(other.code(), other.to_string()),
        }
    }
}
