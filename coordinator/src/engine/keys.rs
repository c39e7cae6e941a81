//! The names of records, indexes, counters and topics. No other file spells one.
//!
//! Nothing in a key can hold its separators: ids, names and tenants are slugs, and an idempotency key comes last.

use sortinghat_proto::{ArtifactKind, JobId, Name, TaskId, Tenant, VersionedName, WorkerId, time::UnixMs};

use crate::queue::{Phase, State, Task};

/// Index of tasks that may be claimed, the next one first. Also the topic of changes to it.
pub(super) const READY: &str = "ready";
/// Index of tasks that may be claimed later, by the time.
pub(super) const DELAYED: &str = "delayed";
/// Index of leased tasks, by the end of the lease.
pub(super) const LEASES: &str = "leases";
/// Index of jobs that have ended and whose children were not all told.
pub(super) const ENDED_PARENTS: &str = "ended-parents";

/// Milliseconds that one step of priority is worth: a job of priority 1 goes before those up to a minute older.
const PRIORITY_STEP_MS: i64 = 60_000;
/// Keeps the ready key positive for every priority.
const READY_BIAS: i64 = 1 << 40;

/// Record of a job; also the topic of its events.
pub(super) fn job(id: &JobId) -> String {
    format!("job:{id}")
}

/// Record of a task.
pub(super) fn task(id: &TaskId) -> String {
    format!("task:{id}")
}

/// Record of one event of a job's history.
pub(super) fn event(job: &JobId, sequence: u64) -> String {
    format!("event:{job}:{sequence:012}")
}

/// Record of the job that was accepted under an idempotency key.
pub(super) fn idempotency(tenant: &Tenant, key: &str) -> String {
    format!("key:{tenant}:{key}")
}

/// Record of one artifact.
pub(super) fn artifact(tenant: &Tenant, name: &VersionedName) -> String {
    format!("{}:{tenant}:{}:{}", name.kind, name.name, name.version)
}

/// Record of the last version that was given under a name. Never deleted, so that no version is given twice.
pub(super) fn last_version(tenant: &Tenant, kind: ArtifactKind, name: &Name) -> String {
    format!("last-{kind}:{tenant}:{name}")
}

/// Index of a tenant's artifacts: by name, the newest version first.
pub(super) fn artifacts(tenant: &Tenant, kind: ArtifactKind) -> String {
    format!("{kind}s:{tenant}")
}

/// Entry of [`artifacts`]. '!' sorts before every character of a name, so that `a` comes before `a-b`.
pub(super) fn artifact_entry(name: &VersionedName) -> String {
    format!("{}!{:010}", name.name, u32::MAX - name.version)
}

/// The artifact that an entry of [`artifacts`] stands for.
pub(super) fn artifact_of_entry(kind: ArtifactKind, entry: &str) -> Option<VersionedName> {
    let (name, inverted) = entry.split_once('!')?;
    let version = u32::MAX - inverted.parse::<u32>().ok()?;
    Some(VersionedName { kind, name: name.parse().ok()?, version })
}

/// The least entry and the end of the entries of one name in [`artifacts`].
pub(super) fn artifact_bounds(name: &Name) -> (String, String) {
    (format!("{name}!"), format!("{name}\""))
}

/// Index of a tenant's jobs, by id and so by time.
pub(super) fn jobs(tenant: &Tenant) -> String {
    format!("jobs:{tenant}")
}

/// Index of the jobs that wait for this one.
pub(super) fn children(job: &JobId) -> String {
    format!("children:{job}")
}

/// Index of the tasks that a worker holds.
pub(super) fn held(worker: &WorkerId) -> String {
    format!("held:{worker}")
}

/// Topic of changes to what a worker should do.
pub(super) fn worker_topic(worker: &WorkerId) -> String {
    format!("worker:{worker}")
}

/// Counter of the tasks in a phase, over all tenants.
pub(super) fn tasks_in(phase: Phase) -> String {
    format!("tasks:{phase:?}")
}

/// The index entries that a task has in its state: the ready order is fixed at submission, so nothing is ever rescored.
pub(super) fn placement(task: &Task, enqueued: UnixMs, priority: i32) -> Vec<(String, String)> {
    let id = &task.id;
    match &task.state {
        State::Ready { not_before: None } => {
            let enqueued = i64::try_from(enqueued.0).unwrap_or(i64::MAX - READY_BIAS - PRIORITY_STEP_MS * 100);
            let order = READY_BIAS + enqueued - i64::from(priority) * PRIORITY_STEP_MS;
            vec![(READY.to_owned(), format!("{order:020}:{id}"))]
        }
        State::Ready { not_before: Some(at) } => vec![(DELAYED.to_owned(), at_time(*at, id))],
        State::Leased(lease) => {
            vec![(LEASES.to_owned(), at_time(lease.deadline, id)), (held(&lease.token.worker), id.to_string())]
        }
        State::Blocked | State::Succeeded { .. } | State::Failed { .. } | State::Cancelled { .. } => Vec::new(),
    }
}

fn at_time(time: UnixMs, id: &TaskId) -> String {
    format!("{:020}:{id}", time.0)
}

/// The end of the entries of [`DELAYED`] or [`LEASES`] up to and including a time.
pub(super) fn after_time(time: UnixMs) -> String {
    format!("{:020}", time.0.saturating_add(1))
}

/// The task of an entry of [`READY`], [`DELAYED`], [`LEASES`] or [`held`].
pub(super) fn task_of_entry(entry: &str) -> Option<TaskId> {
    entry.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_and_names_do_not_mix() {
        let entry = |text: &str, version| {
            let name = text.parse().expect("a name");
            artifact_entry(&VersionedName { kind: ArtifactKind::Model, name, version })
        };
        let mut entries = vec![entry("a-b", 1), entry("a", 1), entry("a", 10), entry("a", 2)];
        entries.sort();
        assert_eq!(entries, [entry("a", 10), entry("a", 2), entry("a", 1), entry("a-b", 1)]);
        let (from, until) = artifact_bounds(&"a".parse().expect("a name"));
        let of_a = entries.iter().filter(|entry| **entry >= from && **entry < until).count();
        assert_eq!(of_a, 3);
    }

    #[test]
    fn priority_is_worth_minutes_so_that_the_old_are_not_starved() {
        let ready = |enqueued, priority| {
            let id = TaskId::new(JobId::new(1, 1), 0);
            placement(&Task::new(id, false), UnixMs(enqueued), priority)[0].1.clone()
        };
        assert!(ready(1_000, 0) < ready(2_000, 0), "first come, first served");
        assert!(ready(60_000, 1) < ready(1_000, 0), "a higher priority goes before");
        assert!(ready(1_000, 0) < ready(62_000, 1), "but not for ever");
        assert!(ready(0, 10) < ready(0, -10));
    }
}
