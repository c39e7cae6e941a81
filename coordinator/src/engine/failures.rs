//! Doing all that can be done of independent things, and still saying what could not.

use sortinghat_proto::{Refusal, v1::ErrorCode};

/// What went wrong with independent things that are done in turn.
#[derive(Debug, Default)]
pub(super) struct Failures {
    first: Option<Refusal>,
}

impl Failures {
    /// The result of one of them, and nothing if it failed: that keeps none of the others from being done. Only without the store no
    /// other would work either.
    pub(super) fn pass<T: Default>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        match result {
            Err(refusal) if refusal.code != ErrorCode::StorageUnavailable => {
                self.first.get_or_insert(refusal);
                Ok(T::default())
            }
            result => result,
        }
    }

    /// The first failure, or else what all of them came to.
    pub(super) fn or<T>(self, all: T) -> Result<T, Refusal> {
        self.first.map_or(Ok(all), Err)
    }
}
