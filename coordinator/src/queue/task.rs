//! A task, its states, and what can happen to it.

use serde::{Deserialize, Serialize};
use sortinghat_proto::{ObjectRef, TaskId, WorkerId, time::UnixMs, v1};

use super::wire;

/// A schedulable part of a job, as it is stored.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Which.
    #[serde_with(skip_apply)]
    pub id: TaskId,
    /// Where it stands.
    #[serde_with(skip_apply)]
    pub state: State,
    /// The greatest epoch that any lease of it had; 0 before the first.
    pub last_epoch: u64,
    /// Attempts started.
    pub attempts: u32,
    /// Attempts that died since it last made progress.
    pub deaths: u32,
    /// Attempts that ran out of memory since it last made progress.
    pub memory_failures: u32,
    /// Attempts that failed through infrastructure since it last made progress.
    pub transient_failures: u32,
    /// When the first of these was; the time budget runs from there.
    pub failing_since: Option<UnixMs>,
    /// Times in a row that a worker gave it back as soon as it had it.
    pub returns: u32,
    /// The epoch of the last attempt whose outcome its worker reported; 0 if none.
    pub reported_epoch: u64,
    /// The newest checkpoint of any attempt.
    pub checkpoint: Option<ObjectRef>,
    /// Its worker is told to stop it: its user wants that, or its deadline has passed.
    pub cancel_requested: bool,
    /// Its user does not want it to start before.
    pub not_before: Option<UnixMs>,
    /// Its deadline passed before anybody else wanted it stopped.
    pub overdue: bool,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its job's parents.
    Blocked,
    /// Waits for a worker.
    Ready {
        /// May not be claimed before; `None` once it may.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<UnixMs>,
    },
    /// A worker may run it.
    Leased(Lease),
    /// Ended well.
    Succeeded {
        /// The epoch that it was committed under.
        epoch: u64,
        /// What it made.
        output: Output,
    },
    /// Ended badly.
    Failed {
        /// Why.
        #[serde(with = "wire")]
        failure: v1::Failure,
    },
    /// Ended because somebody said so.
    Cancelled {
        /// Who, and why.
        #[serde(with = "wire")]
        failure: v1::Failure,
    },
}

impl State {
    /// Nothing can happen to it any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }
}

/// The right of one worker to run a task for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it, and under which epoch.
    pub token: Token,
    /// When it ends unless it is renewed.
    pub deadline: UnixMs,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// When it was given.
    pub started: UnixMs,
    /// When its worker was asked to checkpoint and to give the task back; `None` if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempted: Option<UnixMs>,
}

/// What a worker shows to prove that it holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Greater than that of every earlier lease of the task.
    pub epoch: u64,
    /// The worker's incarnation.
    pub worker: WorkerId,
}

/// What a successful attempt made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Output {
    /// Objects.
    Made {
        /// The manifest that names them.
        manifest: ObjectRef,
        /// One line for people.
        summary: String,
    },
    /// Nothing yet: it counted the job's items, and they are too many for one task.
    Counted {
        /// How many there are.
        items: u64,
    },
}

/// How a worker says that an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Its output is in the object store, or it has found how the job is to go on.
    Succeeded(Output),
    /// It failed and knows why; the failure's class decides what follows.
    Failed(v1::Failure),
    /// Its process died; the cause, for people.
    Crashed(String),
    /// The worker could not run it now; the reason, for people.
    Returned(String),
    /// It stopped because it was told to.
    Cancelled,
}

/// What can happen to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Every parent of its job has succeeded.
    ParentsSucceeded,
    /// A parent of its job failed or was cancelled; which, for people.
    ParentFailed(String),
    /// The time before which it could not be claimed has come.
    Due,
    /// A worker takes it.
    Claim(WorkerId),
    /// Its worker goes on.
    Renew {
        /// The lease.
        token: Token,
        /// Milliseconds since the attempt last showed progress.
        idle_ms: u64,
        /// How many of these its kind allows.
        stall_bound_ms: u64,
    },
    /// A later attempt can go on from here.
    Checkpoint(Token, ObjectRef),
    /// The attempt ended.
    End(Token, Outcome),
    /// Its lease ran out.
    Expire {
        /// The store or all coordinators were away meanwhile, so that the worker is not to blame.
        after_outage: bool,
    },
    /// Its user wants it stopped.
    Cancel,
    /// Its job's deadline has passed.
    Overdue,
    /// A more urgent task waits for its slot.
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

    /// A worker may take it now.
    pub fn is_claimable(&self) -> bool {
        matches!(self.state, State::Ready { not_before: None })
    }

    /// Whether a worker may have it now or later, and none has.
    pub fn waits(&self) -> bool {
        matches!(self.state, State::Blocked | State::Ready { .. })
    }

    /// The same new task, which may not be claimed before a time.
    #[must_use]
    pub fn not_before(mut self, not_before: Option<UnixMs>, now: UnixMs) -> Self {
        self.not_before = not_before;
        if matches!(self.state, State::Ready { .. }) {
            self.state = self.when_ready(now);
        }
        self
    }

    /// The state of one that waits for nothing any more but its user's time, if that is to come.
    pub(super) fn when_ready(&self, now: UnixMs) -> State {
        State::Ready { not_before: self.not_before.filter(|at| *at > now) }
    }

    /// The lease that somebody holds.
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
