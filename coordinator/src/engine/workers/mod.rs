//! What this process knows of the workers that poll it. It may all be lost at any moment: workers report everything again.

mod caches;
mod claimant;
mod durations;
mod progress;
mod sessions;
mod waiting;

use caches::CacheBoard;
use durations::Durations;
use progress::ProgressBoard;
use sessions::Sessions;
use waiting::WaitingWorkers;

pub(crate) use claimant::Claimant;
pub(crate) use sessions::{Instruction, LeaseName, Standing};

/// The tables about workers, each with a lock of its own.
#[derive(Default)]
pub(crate) struct Workers {
    pub(crate) sessions: Sessions,
    pub(crate) waiting: WaitingWorkers,
    pub(crate) caches: CacheBoard,
    pub(crate) progress: ProgressBoard,
    pub(crate) durations: Durations,
}
