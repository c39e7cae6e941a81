//! Waiting for a store that does not answer. A task waits instead of failing, because another attempt would begin anew.

use std::{fmt, sync::Arc, thread, time::Duration};

use tokio::time::Instant;

use super::{ObjectError, Stopped, TenantObjects};

/// How long a task waits for the store. After that the task fails, and the coordinator tries it again somewhere else.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// How often a task that waits is asked whether to go on.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The answer to a request, which may just be large.
    Answer,
    /// A store that has failed, to be tried again.
    Store,
}

/// What is asked of a task while it waits: whether it goes on.
type Look = dyn Fn(Wait) -> Result<(), Stopped> + Send + Sync;

/// What a task does while it waits for the store: it stops if it is told to, and shows that it is alive.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Option<Arc<Look>>);

impl Waiting {
    /// Calls `look` several times a second while the task waits. The task stops if that returns an error.
    pub(crate) fn looking(look: impl Fn(Wait) -> Result<(), Stopped> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(look)))
    }

    /// Returns an error if the task should not wait any longer.
    pub(super) fn look(&self, wait: Wait) -> Result<(), ObjectError> {
        self.0.as_ref().map_or(Ok(()), |look| look(wait).map_err(ObjectError::Stopped))
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.0.is_some()).finish()
    }
}

impl TenantObjects {
    /// Makes a call again while the store does not answer. Without a task the first error is returned.
    #[expect(clippy::disallowed_methods, reason = "a thread of a job waits, on which no async task runs")]
    pub(super) fn persist<T>(&self, call: impl Fn() -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        let since = Instant::now();
        loop {
            match call() {
                Err(error) if error.is_transient() && self.waiting.0.is_some() && since.elapsed() < LONGEST_WAIT => {
                    let until = Instant::now() + PAUSE;
                    while Instant::now() < until {
                        self.waiting.look(Wait::Store)?;
                        thread::sleep(LOOK_INTERVAL);
                    }
                }
                result => return result,
            }
        }
    }
}
