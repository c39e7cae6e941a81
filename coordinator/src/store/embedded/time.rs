//! The time of the store.

use std::sync::Arc;

use parking_lot::Mutex;
use sortinghat_proto::time::UnixMs;

use crate::store::{Clock, clock::QueueTime};

/// Reports a time that never goes back. Every commit stores the greatest time that was reported; a time that no commit followed has had no
/// lasting effect.
#[derive(Debug)]
pub(super) struct MonotoneTime {
    clock: Arc<dyn Clock>,
    time: Mutex<QueueTime>,
}

impl MonotoneTime {
    /// Goes on from the greatest time that was reported before, in milliseconds since 1970 UTC.
    pub(super) fn from(greatest: u64, clock: Arc<dyn Clock>) -> Self {
        let mut time = QueueTime::default();
        time.note_told(greatest);
        Self { clock, time: Mutex::new(time) }
    }

    pub(super) fn now(&self) -> UnixMs {
        UnixMs(self.time.lock().at(self.clock.now().0))
    }
}
