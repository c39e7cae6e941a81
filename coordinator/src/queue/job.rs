//! The state of a job, which is derived by counting the states of its tasks.

use serde::{Deserialize, Serialize};
use sortinghat_proto::v1::JobState;

use super::{State, wire};

/// How many tasks of a job are in each phase. The counts are written in the same batch as the tasks.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Tasks that wait for the job's parents.
    pub blocked: u32,
    /// Tasks that wait for a worker.
    pub ready: u32,
    /// Tasks that a worker holds.
    pub leased: u32,
    /// Tasks that ended well.
    pub succeeded: u32,
    /// Tasks that ended badly.
    pub failed: u32,
    /// Tasks that were stopped.
    pub cancelled: u32,
}

/// A task's state without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The task waits for the job's parents.
    Blocked,
    /// The task waits for a worker.
    Ready,
    /// A worker holds the task.
    Leased,
    /// The task ended well.
    Succeeded,
    /// The task ended badly.
    Failed,
    /// The task was stopped.
    Cancelled,
}

impl From<&State> for Phase {
    fn from(state: &State) -> Self {
        match state {
            State::Blocked => Self::Blocked,
            State::Ready { .. } => Self::Ready,
            State::Leased(_) => Self::Leased,
            State::Succeeded { .. } => Self::Succeeded,
            State::Failed { .. } => Self::Failed,
            State::Cancelled { .. } => Self::Cancelled,
        }
    }
}

impl TaskCounts {
    /// The counts of a job with one task in this phase.
    pub fn of_one(phase: Phase) -> Self {
        Self::default().and_one(phase)
    }

    /// The counts with one more task in this phase.
    pub fn and_one(mut self, phase: Phase) -> Self {
        *self.of(phase) += 1;
        self
    }

    /// The counts after one task has moved.
    pub fn moved(mut self, from: Phase, to: Phase) -> Self {
        let left = self.of(from);
        *left = left.saturating_sub(1);
        *self.of(to) += 1;
        self
    }

    /// The job's state: running while any task runs, ended when every task has ended, and then as bad as the worst task.
    pub fn job_state(self) -> JobState {
        if self.leased > 0 {
            JobState::Running
        } else if self.ready > 0 {
            JobState::Queued
        } else if self.blocked > 0 {
            JobState::Blocked
        } else if self.failed > 0 {
            JobState::Failed
        } else if self.cancelled > 0 {
            JobState::Cancelled
        } else {
            JobState::Succeeded
        }
    }

    fn of(&mut self, phase: Phase) -> &mut u32 {
        match phase {
            Phase::Blocked => &mut self.blocked,
            Phase::Ready => &mut self.ready,
            Phase::Leased => &mut self.leased,
            Phase::Succeeded => &mut self.succeeded,
            Phase::Failed => &mut self.failed,
            Phase::Cancelled => &mut self.cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_as_active_as_its_most_active_task_and_then_as_bad_as_its_worst() {
        let counts = TaskCounts { blocked: 1, ready: 1, leased: 1, succeeded: 1, failed: 1, cancelled: 1 };
        assert_eq!(counts.job_state(), JobState::Running);
        let counts = counts.moved(Phase::Leased, Phase::Succeeded);
        assert_eq!(counts.job_state(), JobState::Queued);
        let counts = counts.moved(Phase::Ready, Phase::Cancelled).moved(Phase::Blocked, Phase::Cancelled);
        assert_eq!(counts.job_state(), JobState::Failed);
        assert_eq!(TaskCounts { succeeded: 3, cancelled: 1, ..TaskCounts::default() }.job_state(), JobState::Cancelled);
        assert_eq!(TaskCounts { succeeded: 3, ..TaskCounts::default() }.job_state(), JobState::Succeeded);
    }
}
