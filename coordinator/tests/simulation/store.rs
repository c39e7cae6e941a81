//! The store that all coordinators share. A call may reach it late, or not at all, or its answer may be lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sortinghat_coordinator::store::{Batch, Clock, Hints, MemoryStore, Range, Record, Store, StoreError, Verdict};
use sortinghat_proto::time::UnixMs;

const START: UnixMs = UnixMs(1_700_000_000_000);

/// [`now`] as a clock.
#[derive(Debug)]
struct SimulatedClock;

impl Clock for SimulatedClock {
    fn now(&self) -> UnixMs {
        now()
    }
}

/// The time of the simulation, as the store tells it.
pub(crate) fn now() -> UnixMs {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    START.plus_ms(u64::try_from(elapsed.as_millis()).expect("a simulation ends"))
}

/// The shared store, which outlives every coordinator.
#[derive(Debug, Clone)]
pub(crate) struct SharedStore {
    contents: Arc<MemoryStore>,
    /// Whether no coordinator can reach the store.
    is_away: Arc<AtomicBool>,
    /// Whether single calls may fail.
    is_flaky: Arc<AtomicBool>,
}

impl SharedStore {
    pub(crate) fn new() -> Self {
        Self {
            contents: Arc::new(MemoryStore::new(Arc::new(SimulatedClock))),
            is_away: Arc::default(),
            is_flaky: Arc::new(AtomicBool::new(true)),
        }
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Lets the store work from now on.
    pub(crate) fn heal(&self) {
        self.set_away(false);
        self.is_flaky.store(false, Ordering::SeqCst);
    }

    /// The store behind the failing connection of one coordinator.
    pub(crate) fn faulty(&self, seed: u64) -> FaultyStore {
        FaultyStore { shared: self.clone(), dice: Mutex::new(StdRng::seed_from_u64(seed)) }
    }
}

/// The store behind a connection that fails.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    shared: SharedStore,
    dice: Mutex<StdRng>,
}

impl FaultyStore {
    /// Returns true in this many of a thousand calls, while single calls may fail.
    fn fails(&self, permille: u32) -> bool {
        let fails = self.dice.lock().random_range(0..1_000) < permille;
        fails && self.shared.is_flaky.load(Ordering::SeqCst)
    }

    /// Delays a call, and fails if the store cannot be reached.
    async fn reach(&self) -> Result<(), StoreError> {
        let late_ms = self.dice.lock().random_range(0..40_u64).saturating_sub(30);
        tokio::time::sleep(Duration::from_millis(late_ms)).await;
        if self.shared.is_away.load(Ordering::SeqCst) || self.fails(2) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Err(StoreError::Unavailable { action: "answer", reason: "it is away".to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError> {
        self.reach().await?;
        self.shared.contents.read(keys).await
    }

    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError> {
        self.reach().await?;
        self.shared.contents.counters(keys).await
    }

    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError> {
        self.reach().await?;
        self.shared.contents.range(range).await
    }

    async fn now(&self) -> Result<UnixMs, StoreError> {
        self.reach().await?;
        self.shared.contents.now().await
    }

    async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        self.reach().await?;
        let unknown = vec![Verdict::Unknown; batches.len()];
        if self.fails(10) {
            return Ok(unknown);
        }
        let verdicts = self.shared.contents.apply(batches).await?;
        Ok(if self.fails(10) { unknown } else { verdicts })
    }

    fn hints(&self) -> &Arc<Hints> {
        self.shared.contents.hints()
    }
}
