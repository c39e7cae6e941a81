//! A store that runs a given future just before it applies a certain batch.

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sortinghat_coordinator::store::{Batch, MemoryStore, Store, StoreError, Verdict};

use crate::unsure::Applying;

/// A future that runs before the next batch that changes a record whose key begins with `key`.
struct Interruption {
    key: &'static str,
    happening: BoxFuture<'static, ()>,
}

/// Runs the interruption, if there is one.
#[derive(Default)]
pub(crate) struct Interrupted(Mutex<Option<Interruption>>);

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupted").finish_non_exhaustive()
    }
}

impl Interrupted {
    /// Sets the future that runs before the next batch that writes or deletes a record whose key begins with `key`.
    pub(crate) fn before(&self, key: &'static str, happening: impl Future<Output = ()> + Send + 'static) {
        let next = Interruption { key, happening: Box::pin(happening) };
        *self.0.lock() = Some(next);
    }

    /// Whether the interruption has happened.
    pub(crate) fn is_calm(&self) -> bool {
        self.0.lock().is_none()
    }
}

fn changes(batch: &Batch, key: &str) -> bool {
    batch.writes.iter().map(|(written, _)| written).chain(&batch.deletes).any(|changed| changed.starts_with(key))
}

#[async_trait]
impl Applying for Interrupted {
    async fn apply(&self, store: &MemoryStore, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        let is_it = |next: &mut Interruption| batches.iter().any(|batch| changes(batch, next.key));
        let interruption = self.0.lock().take_if(is_it);
        if let Some(interruption) = interruption {
            interruption.happening.await;
        }
        store.apply(batches).await
    }
}
