//! Doing all that can be done of independent things, and still saying what could not.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sortinghat_proto::{Refusal, v1::ErrorCode};
use tokio::time::Instant;

/// How long what was said is not said again.
const SAID_AGAIN: Duration = Duration::from_secs(60);

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

/// What was said of things that fail whenever they are met, so that each is said once in a while and not every time.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<HashMap<String, Instant>>);

impl Said {
    /// Tells people what a failure comes to, unless that was said of the same failure a short while ago.
    pub(super) fn error(&self, refusal: &Refusal, consequence: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| at.elapsed() < SAID_AGAIN);
        if let Entry::Vacant(unsaid) = said.entry(format!("{consequence}: {}", refusal.message)) {
            tracing::error!(%refusal, "{consequence}");
            unsaid.insert(Instant::now());
        }
    }
}
