//! Whether new work is taken. It is not while a disk is full: then what is left is for the work that was taken before.

use parking_lot::Mutex;
use sortinghat_proto::Refusal;

use crate::engine::error::EngineError;

/// Open, or closed for a reason. They are open at first.
#[derive(Debug, Default)]
pub(crate) struct Doors(Mutex<Option<Refusal>>);

impl Doors {
    /// Refuses new work from now on for this reason, or takes it again.
    pub(crate) fn set(&self, closed: Option<Refusal>) {
        *self.0.lock() = closed;
    }

    /// Refuses while new work is not taken.
    pub(crate) fn pass(&self) -> Result<(), EngineError> {
        self.0.lock().clone().map_or(Ok(()), |refusal| Err(refusal.into()))
    }
}
