//! A store that lets something happen just before it applies a batch.

use std::sync::Mutex;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sortinghat_coordinator::store::{Batch, MemoryStore, Store, StoreError, Verdict};

use crate::unsure::Applying;

/// What happens before a batch that changes a record whose name begins like this.
struct Interruption {
    key: &'static str,
    happening: BoxFuture<'static, ()>,
}

/// Lets it happen.
#[derive(Default)]
pub(crate) struct Interrupted(Mutex<Option<Interruption>>);

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupted").finish_non_exhaustive()
    }
}

impl Interrupted {
    /// Lets something happen before the next batch that writes or deletes a record whose name begins with `key`.
    pub(crate) fn before(&self, key: &'static str, happening: impl Future<Output = ()> + Send + 'static) {
        let next = Interruption { key, happening: Box::pin(happening) };
        *self.0.lock().expect("no holder panics") = Some(next);
    }

    /// Whether what was to happen has happened.
    pub(crate) fn is_calm(&self) -> bool {
        self.0.lock().expect("no holder panics").is_none()
    }
}

fn changes(batch: &Batch, key: &str) -> bool {
    batch.writes.iter().map(|(written, _)| written).chain(&batch.deletes).any(|changed| changed.starts_with(key))
}

#[async_trait]
impl Applying for Interrupted {
    async fn apply(&self, store: &MemoryStore, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        let is_it = |next: &mut Interruption| batches.iter().any(|batch| changes(batch, next.key));
        let interruption = self.0.lock().expect("no holder panics").take_if(is_it);
        if let Some(interruption) = interruption {
            interruption.happening.await;
        }
        store.apply(batches).await
    }
}
