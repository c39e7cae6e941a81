//! The invariants of one task, written once. Property tests, simulations and production check them with this code.

use sortinghat_proto::{
    limits::{MAX_DEATHS_WITHOUT_PROGRESS, MAX_MEMORY_FAILURES},
    time::UnixMs,
};

use super::{State, Task};

/// An invariant that a step broke, numbered like the promises in ARCHITECTURE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A task that had ended changed.
    #[error("invariant 1: a task that had ended changed")]
    EndedTwice,
    /// An output was committed without a lease.
    #[error("invariant 2: an output was committed without a lease of its epoch")]
    CommitWithoutLease,
    /// An epoch was given twice, or an epoch decreased.
    #[error("invariant 3: epochs do not strictly increase")]
    EpochNotGreater,
    /// A lease was given while another lease was held.
    #[error("invariant 4: two leases at a time")]
    TwoLeases,
    /// A lease was shortened, or had ended already when it was given.
    #[error("invariant 4: a lease was shortened")]
    LeaseShortened,
    /// A task goes on after more deaths than allowed, or an attempt was not counted.
    #[error("invariant 7: attempts or losses are unbounded")]
    Unbounded,
}

/// Checks one step of a task at the time `now`.
pub fn check_step(before: &Task, after: &Task, now: UnixMs) -> Result<(), Violation> {
    if before.state.is_terminal() && after.state != before.state {
        return Err(Violation::EndedTwice);
    }
    if after.last_epoch < before.last_epoch {
        return Err(Violation::EpochNotGreater);
    }
    let is_worn_out = after.deaths >= MAX_DEATHS_WITHOUT_PROGRESS || after.memory_failures >= MAX_MEMORY_FAILURES;
    if !after.state.is_terminal() && is_worn_out {
        return Err(Violation::Unbounded);
    }
    if let State::Succeeded { epoch, .. } = &after.state
        && !before.state.is_terminal()
        && before.lease().is_none_or(|lease| lease.token.epoch != *epoch)
    {
        return Err(Violation::CommitWithoutLease);
    }
    check_lease(before, after, now)
}

fn check_lease(before: &Task, after: &Task, now: UnixMs) -> Result<(), Violation> {
    let Some(lease) = after.lease() else { return Ok(()) };
    if lease.token.epoch != after.last_epoch {
        return Err(Violation::EpochNotGreater);
    }
    match before.lease() {
        Some(held) if held.token != lease.token => Err(Violation::TwoLeases),
        Some(held) if lease.deadline < held.deadline => Err(Violation::LeaseShortened),
        Some(_) => Ok(()),
        None if lease.token.epoch <= before.last_epoch => Err(Violation::EpochNotGreater),
        None if lease.deadline <= now => Err(Violation::LeaseShortened),
        None if after.attempts != before.attempts + 1 => Err(Violation::Unbounded),
        None => Ok(()),
    }
}
