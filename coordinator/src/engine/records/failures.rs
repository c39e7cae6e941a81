//! Processing independent items: one failure does not stop the others, and is still reported at the end.

use crate::engine::error::EngineError;

/// The failures among independent items that are processed one after the other.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    first: Option<EngineError>,
}

impl Failures {
    /// Returns the result of one item, or the default value if the item failed, so that the caller goes on with the next item. Only an
    /// unavailable store is an error at once, since no other item could be processed either.
    pub(crate) fn pass<T: Default>(&mut self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        match result {
            Err(unavailable @ EngineError::StoreUnavailable(_)) => Err(unavailable),
            Err(error) => {
                self.first.get_or_insert(error);
                Ok(T::default())
            }
            Ok(done) => Ok(done),
        }
    }

    /// Returns the first failure, or the result of all items if none has failed.
    pub(crate) fn or<T>(self, all: T) -> Result<T, EngineError> {
        self.first.map_or(Ok(all), Err)
    }
}
