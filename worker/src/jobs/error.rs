//! How a job fails, and the one mapping of it to what the coordinator is told.

use std::io;

use sortinghat_proto::{Refusal, v1};
use v1::ErrorCode;

use super::{Done, JobOutput};
use crate::{objects::ObjectError, out_of_memory};

/// Why a job did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The request or its data is at fault; it fails at once and says which field or file.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An object could not be read or written.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The cancellation was carried out.
    #[error("cancelled")]
    Cancelled,
    /// It stopped unfinished because the worker asked for it; another attempt goes on.
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

    fn into_refusal(self) -> Refusal {
        let message = self.to_string();
        let code = match self {
            Self::Refused(refusal) => return refusal,
            Self::Object(error) => error.code(),
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

/// What the coordinator is told of a task that ran to its end.
pub(crate) fn outcome_of(result: Result<Done, JobError>) -> v1::TaskOutcome {
    use v1::task_outcome::Outcome;
    let outcome = match result {
        Ok(Done::Made(JobOutput { manifest, summary })) => {
            Outcome::Succeeded(v1::TaskSucceeded { manifest: Some(manifest.into()), summary })
        }
        Ok(Done::Counted { items }) => Outcome::Divided(v1::TaskDivided { items }),
        Err(JobError::Cancelled) => Outcome::Cancelled(v1::TaskCancelled {}),
        Err(JobError::HandedBack) => Outcome::Returned("the worker asked for it".to_owned()),
        Err(error) => Outcome::Failed(error.into_refusal().into()),
    };
    v1::TaskOutcome { outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::{FailureClass, task_outcome::Outcome};

    fn failure(error: JobError) -> v1::Failure {
        match outcome_of(Err(error)).outcome {
            Some(Outcome::Failed(failure)) => failure,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    #[test]
    fn the_field_at_fault_reaches_the_user() {
        let failure = failure(Refusal::invalid("finetune.fold", "fold 7 of 5").into());
        assert_eq!((failure.failure_class(), failure.field.as_str()), (FailureClass::User, "finetune.fold"));
    }

    #[test]
    fn a_full_disk_is_not_the_users_fault() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let failure = failure(JobError::Machine { action: "write a shard".into(), source });
        assert_eq!(failure.failure_class(), FailureClass::Infrastructure);
    }

    #[test]
    fn libtorchs_ways_to_say_out_of_memory_are_understood_and_its_stack_is_left_out() {
        for message in [
            "CUDA out of memory. Tried to allocate 2.00 GiB\nException raised from malloc",
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        ] {
            let failure = failure(JobError::of_panic(message));
            assert_eq!(failure.code(), ErrorCode::OutOfMemory, "{message}");
            assert_eq!(failure.failure_class(), FailureClass::OutOfMemory);
            assert!(!failure.message.contains("Exception raised"), "{}", failure.message);
        }
    }
}
