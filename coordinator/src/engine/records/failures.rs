//! Doing all that can be done of independent things, and still reporting what could not be done.

use crate::engine::error::EngineError;

/// The failures among independent things that are done in turn.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    first: Option<EngineError>,
}

impl Failures {
    /// The result of one thing, or nothing if it failed: a failure keeps none of the other things from being done. Only a store that is
    /// unavailable is passed on at once, since no other thing would work either.
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

    /// The first failure, or else what all of them came to.
    pub(crate) fn or<T>(self, all: T) -> Result<T, EngineError> {
        self.first.map_or(Ok(all), Err)
    }
}
