//! A filter for jobs: by state, kind and age.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sortinghat_proto::{JobKind, Labels, Refusal, time::UnixMs, v1::JobState};

use super::stored::JobRecord;
use crate::queue::wire;

/// A job matches if it matches every part that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobFilter {
    /// Only these states, as the contract numbers them; empty for all states. Bulk cancellations keep the filter in a record that every
    /// claim reads, so a request that names a state many times must not make the record longer. Hence this is a set.
    pub(crate) states: BTreeSet<i32>,
    /// Only this kind.
    pub(crate) kind: Option<JobKind>,
    /// Only jobs that were accepted before this time.
    pub(crate) before: Option<UnixMs>,
    /// Only jobs that were accepted at this time or later.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub(crate) from: Option<UnixMs>,
    /// Only jobs that have all of these labels.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub(crate) labels: Labels,
}

impl JobFilter {
    /// Parses the filter of a request: the numbers of states, and a kind or an empty string.
    pub(crate) fn parse(states: &[i32], kind: &str) -> Result<Self, Refusal> {
        let known = |state: &i32| match JobState::try_from(*state) {
            Ok(state) => Ok(state.into()),
            Err(_) => Err(Refusal::invalid("states", format!("{state} is not a job state"))),
        };
        let states = states.iter().map(known).collect::<Result<_, Refusal>>()?;
        let kind = if kind.is_empty() { None } else { Some(kind.parse()?) };
        Ok(Self { states, kind, ..Self::default() })
    }

    /// The states that the filter names; empty for all states.
    pub(crate) fn states(&self) -> impl Iterator<Item = JobState> {
        self.states.iter().filter_map(|state| JobState::try_from(*state).ok())
    }

    /// Whether the filter restricts nothing but the state.
    pub(crate) fn is_by_state_only(&self) -> bool {
        Self { states: self.states.clone(), ..Self::default() } == *self
    }

    /// Whether a job in this state can match.
    pub(crate) fn admits_state(&self, state: JobState) -> bool {
        self.states.is_empty() || self.states.contains(&i32::from(state))
    }

    /// Whether this job matches the filter.
    pub(crate) fn admits(&self, job: &JobRecord) -> bool {
        self.admits_state(job.state())
            && self.kind.is_none_or(|kind| kind == job.kind)
            && self.before.is_none_or(|before| job.created < before)
            && self.from.is_none_or(|from| job.created >= from)
            && job.request.labels.include(&self.labels)
    }
}
