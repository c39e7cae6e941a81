//! A store that lets something happen just before it applies a batch.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::BoxFuture;
use sortinghat_coordinator::store::{Batch, Hints, MemoryStore, Range, Record, Store, StoreError, Verdict};
use sortinghat_proto::time::UnixMs;

/// What happens before a batch that changes a record whose name begins like this.
struct Interruption {
    key: &'static str,
    happening: BoxFuture<'static, ()>,
}

/// The store.
pub(crate) struct Interrupted {
    store: MemoryStore,
    next: Mutex<Option<Interruption>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupted").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Interrupted {
    pub(crate) fn new(store: MemoryStore) -> Self {
        Self { store, next: Mutex::default() }
    }

    /// Lets something happen before the next batch that writes or deletes a record whose name begins with `key`.
    pub(crate) fn before(&self, key: &'static str, happening: impl Future<Output = ()> + Send + 'static) {
        let next = Interruption { key, happening: Box::pin(happening) };
        *self.next.lock().expect("no holder panics") = Some(next);
    }

    /// Whether what was to happen has happened.
    pub(crate) fn is_calm(&self) -> bool {
        self.next.lock().expect("no holder panics").is_none()
    }
}

fn changes(batch: &Batch, key: &str) -> bool {
    batch.writes.iter().map(|(written, _)| written).chain(&batch.deletes).any(|changed| changed.starts_with(key))
}

#[async_trait]
impl Store for Interrupted {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError> {
        self.store.read(keys).await
    }

    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError> {
        self.store.counters(keys).await
    }

    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError> {
        self.store.range(range).await
    }

    async fn now(&self) -> Result<UnixMs, StoreError> {
        self.store.now().await
    }

    async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        let is_it = |next: &mut Interruption| batches.iter().any(|batch| changes(batch, next.key));
        let interruption = self.next.lock().expect("no holder panics").take_if(is_it);
        if let Some(interruption) = interruption {
            interruption.happening.await;
        }
        self.store.apply(batches).await
    }

    fn hints(&self) -> &Arc<Hints> {
        self.store.hints()
    }
}
