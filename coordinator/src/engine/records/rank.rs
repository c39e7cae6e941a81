//! The rank of a task: the queue in which it waits when it is ready, and its place in that queue.

use std::{fmt, str::FromStr};

use sortinghat_proto::{JobKind, Lane, Refusal, Requirements, Tenant, time::UnixMs};

/// The milliseconds of waiting that one step of priority is worth: a job of priority 1 goes before jobs of priority 0 that are up to a
/// minute older.
const PRIORITY_STEP_MS: i64 = 60_000;
/// Keeps the sort key positive for every priority.
const READY_BIAS: i64 = 1 << 40;

/// What a worker must meet to run a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand<'a> {
    /// The worker must serve this tenant.
    pub(crate) tenant: &'a Tenant,
    /// The worker must have this.
    pub(crate) requirements: &'a Requirements,
}

/// The name of a ready queue. It spells out the requirements, so that a claim can tell from the name alone whether a worker meets them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct QueueName {
    pub(crate) lane: Lane,
    pub(crate) tenant: Tenant,
    pub(crate) requirements: Requirements,
}

impl QueueName {
    /// Index of the claimable tasks of the queue, the next one first.
    pub(crate) fn index(&self) -> String {
        format!("ready:{self}")
    }

    /// Index of the tasks that belong to the queue but are not claimable yet. They keep the queue open, so that it counts against the bound
    /// of its tenant.
    pub(crate) fn reservations(&self) -> String {
        format!("later:{self}")
    }

    /// What a worker must meet to run the tasks of the queue.
    pub(crate) fn demand(&self) -> Demand<'_> {
        Demand { tenant: &self.tenant, requirements: &self.requirements }
    }

    /// Whether the number of such queues of a tenant is bounded, as it is for queues with requirements.
    pub(crate) fn is_bounded(&self) -> bool {
        !self.requirements.is_empty()
    }

    /// The start and the end of the names of a tenant's queues of one lane in [`OPEN_QUEUES`](super::keys::OPEN_QUEUES). ';' is the
    /// character after ':'.
    pub(crate) fn bounds(lane: Lane, tenant: &Tenant) -> (String, String) {
        (format!("{lane}:{tenant}:"), format!("{lane}:{tenant};"))
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lane, tenant, requirements } = self;
        write!(f, "{lane}:{tenant}:{requirements}")
    }
}

impl FromStr for QueueName {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self { lane: part().parse()?, tenant: part().parse()?, requirements: part().parse()? })
    }
}

/// What decides in which queue and at which place a ready task waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) queue: QueueName,
    /// When the job was accepted.
    pub(crate) enqueued: UnixMs,
    pub(crate) priority: i32,
    pub(crate) kind: JobKind,
}

impl Rank {
    /// By how many steps of priority this rank is more urgent than another one, with ageing; negative if it is less urgent.
    pub(crate) fn steps_before(&self, other: &Self) -> i64 {
        (other.order() - self.order()) / PRIORITY_STEP_MS
    }

    /// The sort key in the queue. It is fixed at submission, so no task is ever rescored. A task rises because newer tasks sort behind it.
    pub(crate) fn order(&self) -> i64 {
        let enqueued = i64::try_from(self.enqueued.0).unwrap_or(i64::MAX - READY_BIAS - PRIORITY_STEP_MS * 100);
        READY_BIAS + enqueued - i64::from(self.priority) * PRIORITY_STEP_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_queue_says_the_tenant_and_the_requirements_of_its_tasks() {
        let queue: QueueName = "bulk:local:device=cuda,label.zone=eu".parse().expect("a queue's name");
        assert_eq!((queue.lane, queue.tenant.as_str()), (Lane::Bulk, "local"));
        assert_eq!(queue.requirements.to_string(), "device=cuda,label.zone=eu");
        assert_eq!(queue.index(), "ready:bulk:local:device=cuda,label.zone=eu");
        let (from, until) = QueueName::bounds(Lane::Bulk, &queue.tenant);
        assert!((from.as_str()..until.as_str()).contains(&queue.to_string().as_str()));
        let other = QueueName { tenant: "local-2".parse().expect("a tenant"), ..queue };
        assert!(!(from.as_str()..until.as_str()).contains(&other.to_string().as_str()));
    }
}
