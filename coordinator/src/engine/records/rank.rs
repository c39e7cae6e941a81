//! Which queue a ready task waits in, and where in the queue.

use std::{fmt, str::FromStr};

use sortinghat_proto::{JobKind, Lane, Refusal, Requirements, Tenant, time::UnixMs};

/// Milliseconds that one step of priority is worth: a job of priority 1 goes before those up to a minute older.
const PRIORITY_STEP_MS: i64 = 60_000;
/// Keeps the ready key positive for every priority.
const READY_BIAS: i64 = 1 << 40;

/// The queue that a ready task waits in. Its name is its text, so that a claim can tell from it whether a worker will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct QueueName {
    pub(crate) lane: Lane,
    pub(crate) tenant: Tenant,
    pub(crate) requirements: Requirements,
}

impl QueueName {
    /// Index of the tasks that may be claimed, the next one first.
    pub(crate) fn index(&self) -> String {
        format!("ready:{self}")
    }

    /// Index of the tasks that will wait in it and cannot be claimed yet. They keep it open, and so counted among those of its tenant.
    pub(crate) fn reservations(&self) -> String {
        format!("later:{self}")
    }

    /// Whether a tenant may have only so many like it.
    pub(crate) fn is_bounded(&self) -> bool {
        !self.requirements.is_empty()
    }

    /// The least name and the end of the names of a tenant's queues of one lane in [`OPEN_QUEUES`]. ';' follows ':'.
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

/// What decides where a ready task waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) queue: QueueName,
    /// When its job was accepted.
    pub(crate) enqueued: UnixMs,
    pub(crate) priority: i32,
    pub(crate) kind: JobKind,
}

impl Rank {
    /// By how many steps of priority this is more urgent than another one, ageing included; negative if it is less.
    pub(crate) fn steps_before(&self, other: &Self) -> i64 {
        (other.order() - self.order()) / PRIORITY_STEP_MS
    }

    /// Sorts in the order of the queue. Fixed at submission, so that nothing is ever rescored: waiting is what makes a task rise.
    pub(crate) fn order(&self) -> i64 {
        let enqueued = i64::try_from(self.enqueued.0).unwrap_or(i64::MAX - READY_BIAS - PRIORITY_STEP_MS * 100);
        READY_BIAS + enqueued - i64::from(self.priority) * PRIORITY_STEP_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queues_name_says_what_its_tasks_require_and_whose_they_are() {
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
