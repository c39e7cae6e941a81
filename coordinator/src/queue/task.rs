//! A task, its states, and the events that can happen to it.

use serde::{Deserialize, Serialize};
use sortinghat_proto::{ObjectRef, TaskId, WorkerId, time::UnixMs, v1};

use super::wire;

/// A schedulable part of a job, in its stored form.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The task's id.
    #[serde_with(skip_apply)]
    pub id: TaskId,
    /// The task's state.
    #[serde_with(skip_apply)]
    pub state: State,
    /// The greatest epoch that any lease of the task had; 0 before the first lease.
    pub last_epoch: u64,
    /// How many attempts were started.
    pub attempts: u32,
    /// How many attempts died since the task last made progress.
    pub deaths: u32,
    /// How many attempts ran out of memory since the task last made progress.
    pub memory_failures: u32,
    /// How many attempts failed because of infrastructure since the task last made progress.
    pub transient_failures: u32,
    /// When the first of these attempts failed. The time budget for retries begins there.
    pub failing_since: Option<UnixMs>,
    /// How many times in a row a worker gave the task back as soon as it had received it.
    pub returns: u32,
    /// The epoch of the last attempt whose outcome was reported by its worker; 0 if there is none.
    pub reported_epoch: u64,
    /// The newest checkpoint of any attempt.
    pub checkpoint: Option<ObjectRef>,
    /// Whether the worker is told to stop the task, because of the user or of the deadline.
    pub cancel_requested: bool,
    /// The earliest time at which the user wants the task to start.
    pub not_before: Option<UnixMs>,
    /// Whether the deadline passed before anybody else wanted the task to stop.
    pub overdue: bool,
}

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The task waits for its job's parents.
    Blocked,
    /// The task waits for a worker.
    Ready {
        /// The task may not be claimed before this time; `None` once it may be claimed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<UnixMs>,
    },
    /// A worker holds the task's lease and may run it.
    Leased(Lease),
    /// The task ended well.
    Succeeded {
        /// The epoch under which the output was committed.
        epoch: u64,
        /// The output.
        output: Output,
    },
    /// The task ended badly.
    Failed {
        /// Why.
        #[serde(with = "wire")]
        failure: v1::Failure,
    },
    /// The task ended because somebody wanted it to stop.
    Cancelled {
        /// Who wanted that, and why.
        #[serde(with = "wire")]
        failure: v1::Failure,
    },
}

impl State {
    /// Whether the task has ended, so that nothing can happen to it any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }
}

/// The right of one worker to run a task until a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The holder of the lease, and its epoch.
    pub token: Token,
    /// When the lease ends unless it is renewed.
    pub deadline: UnixMs,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// When the lease was given.
    pub started: UnixMs,
    /// When the worker was asked to store a checkpoint and give the task back; `None` if it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempted: Option<UnixMs>,
}

/// The proof that a worker holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The epoch, which is greater than that of every earlier lease of the task.
    pub epoch: u64,
    /// The worker. A worker has a new id after each start.
    pub worker: WorkerId,
}

/// The output of a successful attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Output {
    /// The attempt made objects.
    Made {
        /// The manifest that names the objects.
        manifest: ObjectRef,
        /// One line for people.
        summary: String,
    },
    /// The attempt only counted the job's items, which are too many for one task.
    Counted {
        /// How many items there are.
        items: u64,
    },
}

/// The end of an attempt, as its worker reports it.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The attempt has stored its output, or has counted the items of a job that must be divided.
    Succeeded(Output),
    /// The attempt failed. The class of the failure decides what follows.
    Failed(v1::Failure),
    /// The attempt's process died. Holds the cause, for people.
    Crashed(String),
    /// The worker gave the task back. Holds the reason, for people.
    Returned(String),
    /// The attempt stopped because it was told to stop.
    Cancelled,
}

/// An event that can happen to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Every parent of the job has succeeded.
    ParentsSucceeded,
    /// A parent of the job failed or was cancelled. Holds the parent, for people.
    ParentFailed(String),
    /// The time before which the task could not be claimed has come.
    Due,
    /// A worker claims the task.
    Claim(WorkerId),
    /// The worker goes on and renews the lease.
    Renew {
        /// The lease.
        token: Token,
        /// Milliseconds since the attempt last showed progress.
        idle_ms: u64,
        /// How many milliseconds without progress the kind of the job allows.
        stall_bound_ms: u64,
    },
    /// The attempt has stored a checkpoint, from which a later attempt can go on.
    Checkpoint(Token, ObjectRef),
    /// The attempt ended, as its worker reports.
    End(Token, Outcome),
    /// The lease expired.
    Expire {
        /// Whether the store or all coordinators were unavailable in the meantime, so that the worker is not to blame.
        after_outage: bool,
    },
    /// The user wants the task to stop.
    Cancel,
    /// The job's deadline has passed.
    Overdue,
    /// A more urgent task needs the slot.
    Preempt,
}

impl Task {
    /// A new task, which waits for parents or for a worker.
    pub fn new(id: TaskId, has_parents: bool) -> Self {
        let state = if has_parents { State::Blocked } else { State::Ready { not_before: None } };
        Self {
            id,
            state,
            last_epoch: 0,
            attempts: 0,
            deaths: 0,
            memory_failures: 0,
            transient_failures: 0,
            failing_since: None,
            returns: 0,
            reported_epoch: 0,
            checkpoint: None,
            cancel_requested: false,
            not_before: None,
            overdue: false,
        }
    }

    /// Whether a worker may claim the task now.
    pub fn is_claimable(&self) -> bool {
        matches!(self.state, State::Ready { not_before: None })
    }

    /// Whether the task waits for its parents or for a worker.
    pub fn waits(&self) -> bool {
        matches!(self.state, State::Blocked | State::Ready { .. })
    }

    /// This new task, which may not be claimed before the given time.
    #[must_use]
    pub fn not_before(mut self, not_before: Option<UnixMs>, now: UnixMs) -> Self {
        self.not_before = not_before;
        if matches!(self.state, State::Ready { .. }) {
            self.state = self.when_ready(now);
        }
        self
    }

    /// The state of the task once its parents have succeeded: ready, perhaps not before the user's time.
    pub(super) fn when_ready(&self, now: UnixMs) -> State {
        State::Ready { not_before: self.not_before.filter(|at| *at > now) }
    }

    /// The lease, if a worker holds it.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Leased(lease) => Some(lease),
            State::Blocked
            | State::Ready { .. }
            | State::Succeeded { .. }
            | State::Failed { .. }
            | State::Cancelled { .. } => None,
        }
    }
}
