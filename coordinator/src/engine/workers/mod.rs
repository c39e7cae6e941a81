//! What this process knows about the workers that poll it: whom they belong to, their sessions, the calls that wait for tasks, their caches, the progress of
//! running tasks, and the durations of tasks.
//!
//! The room owns these six tables, each with a lock of its own, and reads nothing from the store. All of it may be lost at any moment,
//! since workers report everything again. Estimates then begin anew. Other rooms use the tables through [`Workers`].

mod bindings;
mod caches;
mod claimant;
mod durations;
mod progress;
mod sessions;
mod waiting;

use bindings::Bindings;
use caches::CacheBoard;
use durations::Durations;
use progress::ProgressBoard;
use sessions::Sessions;
use waiting::WaitingWorkers;

pub(crate) use bindings::{Binding, Bound};
pub(crate) use claimant::Claimant;
pub(crate) use sessions::{Instruction, LeaseName, Standing};

/// The tables about workers.
#[derive(Default)]
pub(crate) struct Workers {
    pub(crate) bindings: Bindings,
    pub(crate) sessions: Sessions,
    pub(crate) waiting: WaitingWorkers,
    pub(crate) caches: CacheBoard,
    pub(crate) progress: ProgressBoard,
    pub(crate) durations: Durations,
}
