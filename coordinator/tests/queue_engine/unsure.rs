//! Stores that apply batches in unusual ways, among them a store whose answers get lost, with which every command must be safe to repeat.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use sortinghat_coordinator::store::{Batch, Hints, MemoryStore, Range, Record, Store, StoreError, Verdict};
use sortinghat_proto::time::UnixMs;

/// A random number generator with a seed (SplitMix64), so that every run can be repeated.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A way to apply batches that differs from the usual one.
#[async_trait]
pub(crate) trait Applying: Debug + Send + Sync + 'static {
    /// Applies the batches to the store, or does something else.
    async fn apply(&self, store: &MemoryStore, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError>;
}

/// A store that applies batches in its own way, and otherwise works like the store in memory.
#[derive(Debug)]
pub(crate) struct Odd<A> {
    store: MemoryStore,
    pub(crate) applying: A,
}

impl<A> Odd<A> {
    pub(crate) fn new(store: MemoryStore, applying: A) -> Self {
        Self { store, applying }
    }
}

#[async_trait]
impl<A: Applying> Store for Odd<A> {
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
        self.applying.apply(&self.store, batches).await
    }

    fn hints(&self) -> &Arc<Hints> {
        self.store.hints()
    }
}

/// One batch in ten has an unknown outcome. Half of those batches are applied.
#[derive(Debug)]
pub(crate) struct Unsure(Mutex<Dice>);

impl Unsure {
    /// Such a store over this one.
    pub(crate) fn over(store: MemoryStore, seed: u64) -> Odd<Self> {
        Odd::new(store, Self(Mutex::new(Dice(seed ^ 0x5eed))))
    }
}

#[async_trait]
impl Applying for Unsure {
    async fn apply(&self, store: &MemoryStore, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts = Vec::with_capacity(batches.len());
        for batch in batches {
            let thrown = self.0.lock().below(20);
            let verdict = match thrown {
                0 => None,
                _ => store.apply(vec![batch]).await?.pop(),
            };
            verdicts.push(verdict.filter(|_| thrown > 1).unwrap_or(Verdict::Unknown));
        }
        Ok(verdicts)
    }
}
