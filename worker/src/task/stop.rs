//! How a running task is told to stop.

use std::sync::atomic::{AtomicU8, Ordering};

use super::error::JobError;

const GO_ON: u8 = 0;
const HAND_BACK: u8 = 1;
const CANCEL: u8 = 2;

/// Whether a task goes on. The thread that reads the worker's commands sets it, and the threads of the job ask it.
#[derive(Debug, Default)]
pub struct StopSignal(AtomicU8);

impl StopSignal {
    /// Tells the task to stop unfinished, and to keep what a later attempt needs to go on.
    pub fn hand_back(&self) {
        self.0.fetch_max(HAND_BACK, Ordering::Relaxed);
    }

    /// Tells the task to stop for good, whatever it was told before: nothing of it is needed any more.
    pub fn cancel(&self) {
        self.0.fetch_max(CANCEL, Ordering::Relaxed);
    }

    /// Returns an error if the task should stop.
    ///
    /// # Errors
    /// [`JobError::HandedBack`] or [`JobError::Cancelled`].
    pub(crate) fn check(&self) -> Result<(), JobError> {
        match self.0.load(Ordering::Relaxed) {
            GO_ON => Ok(()),
            HAND_BACK => Err(JobError::HandedBack),
            _ => Err(JobError::Cancelled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_outweighs_a_hand_back_whichever_came_first() {
        let signal = StopSignal::default();
        assert!(signal.check().is_ok());
        signal.hand_back();
        assert!(matches!(signal.check(), Err(JobError::HandedBack)));
        signal.cancel();
        signal.hand_back();
        assert!(matches!(signal.check(), Err(JobError::Cancelled)));
    }
}
