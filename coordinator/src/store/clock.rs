//! Where the stores take the time from.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use sortinghat_proto::time::UnixMs;

/// A source of time. Stores make it monotone over restarts. No rule of the coordinator reads a clock in another way.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> UnixMs;
}

/// Reads the machine's wall clock once, and its steady clock from then on. So a wall clock that is set forward or back neither ends leases
/// nor prolongs them.
#[derive(Debug)]
pub struct SystemClock {
    started_at: UnixMs,
    started: Instant,
}

impl SystemClock {
    /// Starts at the time of the wall clock.
    #[expect(clippy::disallowed_methods, reason = "this is where the coordinator's time comes from")]
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

/// If the clock is set back by at most this much, the queue's time stands still until the clock has caught up.
const STANDSTILL_MS: u64 = 1_000;
/// The queue's time loses one millisecond in this many while it is ahead of its clock.
const SLOWING: u64 = 10;

/// The queue's time, which never goes back.
///
/// After a clock was set back, the queue's time is ahead of it. If the queue's time stood still until the clock has caught up, no lease would
/// end; if it stayed ahead, start times and deadlines would be off for ever. So it runs a little slower than the clock until both agree.
#[derive(Debug, Default)]
pub(super) struct QueueTime {
    /// The greatest time that was ever reported.
    told_ms: u64,
    /// How far the queue's time was ahead when the clock showed `since_ms`.
    lead_ms: u64,
    since_ms: u64,
}

impl QueueTime {
    /// The greatest time that was ever reported, in milliseconds since 1970 UTC.
    pub(super) fn told_ms(&self) -> u64 {
        self.told_ms
    }

    /// Notes a time that another process has reported, or this one before its last start.
    pub(super) fn note_told(&mut self, told_ms: u64) {
        self.told_ms = self.told_ms.max(told_ms);
    }

    /// The queue's time when the clock shows `clock_ms`.
    pub(super) fn at(&mut self, clock_ms: u64) -> u64 {
        if self.told_ms.saturating_sub(clock_ms) > self.lead_at(clock_ms) + STANDSTILL_MS {
            (self.lead_ms, self.since_ms) = (self.told_ms - clock_ms, clock_ms);
        }
        self.note_told(clock_ms + self.lead_at(clock_ms));
        self.told_ms
    }

    fn lead_at(&self, clock_ms: u64) -> u64 {
        self.lead_ms.saturating_sub(clock_ms.saturating_sub(self.since_ms) / SLOWING)
    }
}

/// A clock that moves only on demand, for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: UnixMs) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves the clock forward.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the clock to `now`, which may be in its past.
    pub fn set(&self, now: UnixMs) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMs {
        UnixMs(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn time_runs_slower_after_a_clock_was_set_back_until_both_agree() {
        let mut time = QueueTime::default();
        assert_eq!(time.at(100 * MINUTE_MS), 100 * MINUTE_MS);
        assert_eq!(time.at(95 * MINUTE_MS), 100 * MINUTE_MS, "the time does not go back");
        assert_eq!(time.at(105 * MINUTE_MS), 109 * MINUTE_MS, "it gains nine minutes in ten");
        // The clock is set back once more while the time is ahead.
        assert_eq!(time.at(104 * MINUTE_MS), 109 * MINUTE_MS);
        assert_eq!(time.at(154 * MINUTE_MS), 154 * MINUTE_MS);
        assert_eq!(time.at(155 * MINUTE_MS), 155 * MINUTE_MS);
    }

    #[test]
    fn a_time_that_another_process_told_a_moment_ago_does_not_look_like_a_clock_that_was_set_back() {
        let mut time = QueueTime::default();
        time.at(MINUTE_MS);
        time.note_told(MINUTE_MS + STANDSTILL_MS);
        assert_eq!(time.at(MINUTE_MS + 1), MINUTE_MS + STANDSTILL_MS);
        assert_eq!(time.at(MINUTE_MS + STANDSTILL_MS + 1), MINUTE_MS + STANDSTILL_MS + 1);
    }
}
