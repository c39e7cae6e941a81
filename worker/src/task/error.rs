//! How a job fails.

use std::io;

use sortinghat_proto::{Refusal, v1::ErrorCode};

use crate::{
    objects::{ObjectError, Stopped},
    out_of_memory,
};

/// Why a job did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The request or its data is at fault. The job fails at once, and the refusal says which field or file is at fault.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An object could not be read or written.
    #[error(transparent)]
    Object(ObjectError),
    /// The cancellation was carried out.
    #[error("cancelled")]
    Cancelled,
    /// The task stopped unfinished because the worker asked it to. Another attempt goes on.
    #[error("handed back unfinished")]
    HandedBack,
    /// Memory ran out even with the smallest piece of work.
    #[error("out of memory while {doing}; use a smaller image size or a smaller network: {reason}")]
    OutOfMemory {
        /// What was being done, as in "out of memory while training".
        doing: String,
        /// What the allocator said.
        reason: String,
    },
    /// This machine failed in a way that another attempt may not: a full disk, a broken device.
    #[error("failed to {action}: {source}")]
    Machine {
        /// What was tried, as in "failed to write the shard".
        action: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A defect in this software, or a library that failed without a reason that the user could act on.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<ObjectError> for JobError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Stopped(Stopped::Cancelled) => Self::Cancelled,
            ObjectError::Stopped(Stopped::HandedBack) => Self::HandedBack,
            error => Self::Object(error),
        }
    }
}

impl JobError {
    /// An unexpected failure of libtorch while `doing` something; its out-of-memory messages become [`Self::OutOfMemory`].
    pub fn torch(doing: &str, error: &tch::TchError) -> Self {
        let message = error.to_string();
        Self::out_of_memory(doing, &message)
            .unwrap_or_else(|| Self::Internal(format!("libtorch failed while {doing}: {}", first_line(&message))))
    }

    /// A panic with this message, which is how tch's plain methods report libtorch's exceptions.
    pub(crate) fn of_panic(message: &str) -> Self {
        Self::out_of_memory("computing", message)
            .unwrap_or_else(|| Self::Internal(format!("a panic: {}", first_line(message))))
    }

    fn out_of_memory(doing: &str, message: &str) -> Option<Self> {
        out_of_memory::is_said_in(message)
            .then(|| Self::OutOfMemory { doing: doing.to_owned(), reason: first_line(message).to_owned() })
    }

    pub(super) fn into_refusal(self) -> Refusal {
        let message = self.to_string();
        let code = match self {
            Self::Refused(refusal) => return refusal,
            // The coordinator looks for a missing or damaged object, too, before it blames the user.
            Self::Object(error) => {
                let field = error.lost().map(ToString::to_string).unwrap_or_default();
                return Refusal::new(error.code(), message).at(field);
            }
            Self::Cancelled | Self::HandedBack => ErrorCode::Cancelled,
            Self::OutOfMemory { .. } => ErrorCode::OutOfMemory,
            Self::Machine { .. } => ErrorCode::ResourceExhausted,
            Self::Internal(_) => ErrorCode::Internal,
        };
        Refusal::new(code, message)
    }
}

/// libtorch appends its C++ stack after the first line.
fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}
