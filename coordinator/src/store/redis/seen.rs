//! What this process has seen of the store.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::store::clock::QueueTime;

/// The greatest version and time that this process has seen. Both only grow, unless a loss of data is allowed and has happened.
#[derive(Debug, Default)]
pub(super) struct Seen {
    version: AtomicU64,
    time: Mutex<QueueTime>,
}

impl Seen {
    /// The greatest version.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Notes a version that the store has given.
    pub(super) fn note_version(&self, version: u64) {
        self.version.fetch_max(version, Ordering::SeqCst);
    }

    /// Goes on from a version after the store has lost the later ones.
    pub(super) fn reset_version(&self, version: u64) {
        self.version.store(version, Ordering::SeqCst);
    }

    /// The greatest time that was reported, in milliseconds since 1970 UTC.
    pub(super) fn time_ms(&self) -> u64 {
        self.time.lock().told_ms()
    }

    /// The time when the server's clock shows `clock_ms` and the greatest time that commits carried is `committed_ms`.
    pub(super) fn time_at(&self, clock_ms: u64, committed_ms: u64) -> u64 {
        let mut time = self.time.lock();
        time.note_told(committed_ms);
        time.at(clock_ms)
    }
}
