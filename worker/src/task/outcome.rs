//! How a task ends, and the one mapping of that to what is reported to the coordinator.

use sortinghat_proto::{ObjectRef, v1};

use super::error::JobError;

/// How a task ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The task made something.
    Made(JobOutput),
    /// The job has more items than one task should do. The task has done nothing else.
    Counted {
        /// How many.
        items: u64,
    },
}

/// What a successful job made, or a shard of one. Everything that the manifest names is in the object store already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOutput {
    /// The manifest.
    pub manifest: ObjectRef,
    /// One line for people: "713 photos in 8 classes".
    pub summary: String,
}

/// The report to the coordinator of a task that ran to its end.
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
    use std::io;

    use sortinghat_proto::{Digest, Refusal};
    use v1::{ErrorCode, FailureClass, task_outcome::Outcome};

    use super::*;
    use crate::objects::ObjectError;

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
    fn a_missing_object_is_named_so_that_the_coordinator_can_look_for_it_too() {
        let digest = Digest::of(b"a photo");
        let failure = failure(ObjectError::Missing { digest: digest.clone() }.into());
        assert_eq!((failure.code(), failure.field), (ErrorCode::CorruptObject, digest.to_string()));
    }

    #[test]
    fn a_full_disk_is_not_the_users_fault() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let failure = failure(JobError::Machine { action: "write a shard".into(), source });
        assert_eq!(failure.failure_class(), FailureClass::Infrastructure);
    }

    #[test]
    fn libtorchs_messages_about_memory_are_recognised_and_its_stack_is_left_out() {
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
