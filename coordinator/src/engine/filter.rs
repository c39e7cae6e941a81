//! Which jobs are meant: by state, kind and age.

use serde::{Deserialize, Serialize};
use sortinghat_proto::{JobKind, Refusal, time::UnixMs, v1::JobState};

use super::records::JobRecord;

/// Jobs that match every part that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobFilter {
    /// Only these states, as the contract numbers them; empty for all.
    pub(super) states: Vec<i32>,
    /// Only this kind.
    pub(super) kind: Option<JobKind>,
    /// Only jobs that were accepted before.
    pub(super) before: Option<UnixMs>,
}

impl JobFilter {
    /// The filter of a request: states by number, and a kind or nothing.
    pub(super) fn parse(states: &[i32], kind: &str) -> Result<Self, Refusal> {
        for state in states {
            JobState::try_from(*state)
                .map_err(|_| Refusal::invalid("states", format!("{state} is not a job state")))?;
        }
        let kind = if kind.is_empty() { None } else { Some(kind.parse()?) };
        Ok(Self { states: states.to_vec(), kind, before: None })
    }

    /// The states that it names; empty for all.
    pub(super) fn states(&self) -> impl Iterator<Item = JobState> {
        self.states.iter().filter_map(|state| JobState::try_from(*state).ok())
    }

    /// Whether it looks at nothing but the state.
    pub(super) fn is_by_state_only(&self) -> bool {
        self.kind.is_none() && self.before.is_none()
    }

    /// Whether a job in this state can match.
    pub(super) fn admits_state(&self, state: JobState) -> bool {
        self.states.is_empty() || self.states.contains(&state.into())
    }

    /// Whether this job matches.
    pub(super) fn admits(&self, job: &JobRecord) -> bool {
        self.admits_state(job.state())
            && self.kind.is_none_or(|kind| kind == job.kind)
            && self.before.is_none_or(|before| job.created < before)
    }
}
