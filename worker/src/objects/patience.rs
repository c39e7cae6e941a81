//! Waiting for a store that does not answer. A task waits instead of failing, because another attempt would begin anew.

use std::{fmt, sync::Arc, time::Duration};

use sortinghat_objects::Patience;
use tokio::time::{Instant, sleep};

use super::{ObjectError, Stopped, TenantObjects};

/// One request and its retries, which the library makes by itself.
pub(super) const REQUESTS: Patience =
    Patience { request: Duration::from_secs(30), retries: 2, retry_for: Duration::from_secs(10) };
/// How long a task waits for the store. After that the task fails, and the coordinator tries it again somewhere else.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// How often a task that waits is asked whether to go on.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What a task does while it waits for the store: it shows that it is alive, and stops if it is told to.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Option<Arc<dyn Fn() -> Result<(), Stopped> + Send + Sync>>);

impl Waiting {
    /// Calls `look` several times a second while the task waits. The task stops if that returns an error.
    pub(crate) fn looking(look: impl Fn() -> Result<(), Stopped> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(look)))
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.0.is_some()).finish()
    }
}

impl TenantObjects {
    /// Makes a call again while the store does not answer. Without a task the first error is returned.
    pub(super) fn persist<T>(&self, call: impl Fn() -> Result<T, ObjectError>) -> Result<T, ObjectError> {
        let since = Instant::now();
        loop {
            match (call(), &self.waiting.0) {
                (Err(error), Some(look)) if error.is_transient() && since.elapsed() < LONGEST_WAIT => {
                    let until = Instant::now() + PAUSE;
                    while Instant::now() < until {
                        look().map_err(ObjectError::Stopped)?;
                        self.block_on(sleep(LOOK_INTERVAL));
                    }
                }
                (result, _) => return result,
            }
        }
    }
}
