//! Where stores take the time from.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use sortinghat_proto::time::UnixMs;

/// A source of time. Stores make it monotone over restarts; nothing else in the coordinator reads a clock for its rules.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> UnixMs;
}

/// The machine's time at construction, and the steady clock from there on: a wall clock that is set, forward or back, neither
/// ends leases nor prolongs them.
#[derive(Debug)]
pub struct SystemClock {
    started_at: UnixMs,
    started: Instant,
}

impl SystemClock {
    /// Reads the wall clock, once.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_at: UnixMs(since_epoch.as_millis() as u64), started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixMs {
        self.started_at.plus_ms(self.started.elapsed().as_millis() as u64)
    }
}

/// A clock that moves only when it is told to, for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Starts at `now`.
    pub fn new(now: UnixMs) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves on.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Jumps to `now`, back as well.
    pub fn set(&self, now: UnixMs) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMs {
        UnixMs(self.0.load(Ordering::SeqCst))
    }
}
