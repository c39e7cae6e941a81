//! The names of records, indexes, counters and topics. No other file spells one.
//!
//! Nothing in a key can hold its separators: ids, names and tenants are slugs, and an idempotency key comes last.

use std::{fmt, str::FromStr};

use sortinghat_proto::{
    ArtifactKind, Digest, JobId, JobKind, Lane, Name, Refusal, Requirements, TaskId, Tenant, VersionedName, WorkerId,
    time::UnixMs, v1::JobState,
};

use super::records::JobRecord;
use crate::queue::{Phase, State, Task};

/// Topic of tasks that may be claimed from now on.
pub(super) const READY: &str = "ready";
/// Index of the ready queues that may hold tasks, by name: claims look nowhere else.
pub(super) const OPEN_QUEUES: &str = "open-queues";
/// Index of the ready queues that were closed and must be looked at once more.
pub(super) const CLOSING_QUEUES: &str = "closing-queues";
/// Record that changes whenever queues are closed, so that no two coordinators do it at once.
pub(super) const QUEUE_CLOSING: &str = "queue-closing";
/// Index of tasks that may be claimed later, by the time.
pub(super) const DELAYED: &str = "delayed";
/// Index of leased tasks, by the end of the lease.
pub(super) const LEASES: &str = "leases";
/// Index of leased tasks that can give way, the least urgent one last.
pub(super) const GIVING_WAY: &str = "giving-way";
/// Index of what happened to shards and is not in their jobs' records yet; see [`unsettled`] and [`unsettled_event`]. Also the
/// topic of changes to it.
pub(super) const UNSETTLED: &str = "unsettled";
/// Index of jobs that have a deadline, have not ended and are not being stopped, by the deadline.
pub(super) const DEADLINES: &str = "deadlines";
/// Index of jobs that have ended, by the time; what retention goes by.
pub(super) const ENDED_JOBS: &str = "ended-jobs";
/// Index of forgotten jobs of which something is left; see [`remains`].
pub(super) const REMAINS: &str = "remains";
/// Index of tenants with bulk cancellations under way.
pub(super) const CANCELLING: &str = "cancelling";
/// Index of jobs that have ended and whose children were not all told.
pub(super) const ENDED_PARENTS: &str = "ended-parents";

/// Record of the queue's name for itself.
pub(super) const QUEUE_ID: &str = "queue-id";

/// Milliseconds that one step of priority is worth: a job of priority 1 goes before those up to a minute older.
const PRIORITY_STEP_MS: i64 = 60_000;
/// Keeps the ready key positive for every priority.
const READY_BIAS: i64 = 1 << 40;

/// Record of a job; also the topic of its events.
pub(super) fn job(id: &JobId) -> String {
    format!("job:{id}")
}

/// Record of a shard's task; every other task is a part of its job's record.
pub(super) fn shard(id: &TaskId) -> String {
    format!("task:{id}")
}

/// Record of what all shards of a job go by.
pub(super) fn shards(job: &JobId) -> String {
    format!("shards:{job}")
}

/// Counters of a job's shards in a phase that has been begun.
pub(super) fn shards_in(job: &JobId, phase: Phase) -> String {
    format!("shards:{job}:{phase:?}")
}

/// Counter of a job's shards that have ended.
pub(super) fn shards_ended(job: &JobId) -> String {
    format!("shards:{job}:ended")
}

/// Counter of the items in a job's shards that have succeeded.
pub(super) fn items_done(job: &JobId) -> String {
    format!("shards:{job}:items")
}

/// All counters of a job's shards.
pub(super) fn shard_counters(job: &JobId) -> Vec<String> {
    let phases = [Phase::Leased, Phase::Succeeded, Phase::Failed, Phase::Cancelled];
    let by_phase = phases.into_iter().map(|phase| shards_in(job, phase));
    by_phase.chain([shards_ended(job), items_done(job)]).collect()
}

/// Record of what is left of a forgotten job.
pub(super) fn remains(job: &JobId) -> String {
    format!("remains:{job}")
}

/// Entry of [`UNSETTLED`]: shards of this job are to be created or stopped. Comes before its events.
pub(super) fn unsettled(job: &JobId) -> String {
    format!("{job}:")
}

/// Entry of [`UNSETTLED`]: an event of a shard, in the order in which they happened. Also the name of the event's record.
pub(super) fn unsettled_event(shard: &TaskId, time: UnixMs, number: u64) -> String {
    format!("{}:{:020}:{:010}:{number:010}", shard.job(), time.0, shard.index())
}

/// Record of an event of a shard that waits to be entered in the job's history.
pub(super) fn waiting_event(entry: &str) -> String {
    format!("waiting:{entry}")
}

/// The job of an entry of [`UNSETTLED`].
pub(super) fn job_of_unsettled(entry: &str) -> Option<JobId> {
    entry.split(':').next()?.parse().ok()
}

/// The end of the entries of [`UNSETTLED`] of a job.
pub(super) fn after_unsettled(job: &JobId) -> String {
    // The character after ':'.
    format!("{job};")
}

/// Record of successive events of a job's history that end with this one.
pub(super) fn history(job: &JobId, last: u64) -> String {
    format!("history:{job}:{last:012}")
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

/// Index of a tenant's jobs that have not ended, by id and so by time.
pub(super) fn open_jobs(tenant: &Tenant) -> String {
    format!("open:{tenant}")
}

/// Counter of a tenant's jobs in a state.
pub(super) fn jobs_in(tenant: &Tenant, state: JobState) -> String {
    format!("jobs:{tenant}:{}", state.as_str_name())
}

/// Record of whether a tenant's objects are being collected, and of those that are being removed.
pub(super) fn collection(tenant: &Tenant) -> String {
    format!("collection:{tenant}")
}

/// Record of an object that nothing was seen to refer to.
pub(super) fn suspect(tenant: &Tenant, digest: &Digest) -> String {
    format!("suspect:{tenant}:{digest}")
}

/// Index of such objects of a tenant, by the time since when.
pub(super) fn suspects(tenant: &Tenant) -> String {
    format!("suspects:{tenant}")
}

/// Entry of [`suspects`].
pub(super) fn suspect_entry(since: UnixMs, digest: &Digest) -> String {
    at_time(since, digest)
}

/// The object of an entry of [`suspects`].
pub(super) fn suspect_of_entry(entry: &str) -> Option<Digest> {
    entry.split_once(':')?.1.parse().ok()
}

/// Sorts after an entry of any index, and before every greater one. '!' sorts before every character of an id or a digest.
pub(super) fn after_entry(entry: &str) -> String {
    format!("{entry}!")
}

/// Record of what holds for all of a tenant's queue.
pub(super) fn queue(tenant: &Tenant) -> String {
    format!("queue:{tenant}")
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

/// Counter of a tenant's leased tasks.
pub(super) fn leased_of(tenant: &Tenant) -> String {
    format!("leased:{tenant}")
}

/// The queue that a ready task waits in. Its name is its text, so that a claim can tell from it whether a worker will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct QueueName {
    pub(super) lane: Lane,
    pub(super) tenant: Tenant,
    pub(super) requirements: Requirements,
}

impl QueueName {
    /// Index of the tasks that may be claimed, the next one first.
    pub(super) fn index(&self) -> String {
        format!("ready:{self}")
    }

    /// Index of the tasks that will wait in it and cannot be claimed yet. They keep it open, and so counted among those of its tenant.
    pub(super) fn reservations(&self) -> String {
        format!("later:{self}")
    }

    /// Whether a tenant may have only so many like it.
    pub(super) fn is_bounded(&self) -> bool {
        !self.requirements.is_empty()
    }

    /// The least name and the end of the names of a tenant's queues of one lane in [`OPEN_QUEUES`]. ';' follows ':'.
    pub(super) fn bounds(lane: Lane, tenant: &Tenant) -> (String, String) {
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
pub(super) struct Rank {
    pub(super) queue: QueueName,
    /// When its job was accepted.
    pub(super) enqueued: UnixMs,
    pub(super) priority: i32,
    pub(super) kind: JobKind,
}

impl Rank {
    /// By how many steps of priority this is more urgent than another one, ageing included; negative if it is less.
    pub(super) fn steps_before(&self, other: &Self) -> i64 {
        (other.order() - self.order()) / PRIORITY_STEP_MS
    }

    /// Sorts in the order of the queue. Fixed at submission, so that nothing is ever rescored: waiting is what makes a task rise.
    pub(super) fn order(&self) -> i64 {
        let enqueued = i64::try_from(self.enqueued.0).unwrap_or(i64::MAX - READY_BIAS - PRIORITY_STEP_MS * 100);
        READY_BIAS + enqueued - i64::from(self.priority) * PRIORITY_STEP_MS
    }
}

/// Counter of the tasks in a phase, over all tenants.
pub(super) fn tasks_in(phase: Phase) -> String {
    format!("tasks:{phase:?}")
}

/// The index entries that a task has in its state.
pub(super) fn placement(task: &Task, rank: &Rank) -> Vec<(String, String)> {
    let id = &task.id;
    let reservation = || rank.queue.is_bounded().then(|| (rank.queue.reservations(), id.to_string()));
    match &task.state {
        State::Blocked => reservation().into_iter().collect(),
        State::Ready { not_before: None } => vec![(rank.queue.index(), format!("{:020}:{id}", rank.order()))],
        State::Ready { not_before: Some(at) } => {
            [(DELAYED.to_owned(), at_time(*at, id))].into_iter().chain(reservation()).collect()
        }
        State::Leased(lease) => {
            let urgency = match rank.queue.lane {
                Lane::Interactive => 0,
                Lane::Bulk => 1,
            };
            let gives_way = (GIVING_WAY.to_owned(), format!("{urgency}:{:020}:{id}", rank.order()));
            let held = (held(&lease.token.worker), id.to_string());
            let leased = [(LEASES.to_owned(), at_time(lease.deadline, id)), held];
            leased.into_iter().chain(rank.kind.gives_way().then_some(gives_way)).collect()
        }
        State::Succeeded { .. } | State::Failed { .. } | State::Cancelled { .. } => Vec::new(),
    }
}

fn at_time(time: UnixMs, id: impl fmt::Display) -> String {
    format!("{:020}:{id}", time.0)
}

/// The index entries that a job has as it is, beside its place among all of its tenant.
pub(super) fn job_entries(job: &JobRecord) -> Vec<(String, String)> {
    if job.has_ended() {
        return vec![(ENDED_JOBS.to_owned(), at_time(job.finished.unwrap_or_default(), &job.id))];
    }
    let deadline = job.deadline.filter(|_| !job.cancel_requested);
    let deadline = deadline.map(|deadline| (DEADLINES.to_owned(), at_time(deadline, &job.id)));
    [(open_jobs(&job.tenant), job.id.to_string())].into_iter().chain(deadline).collect()
}

/// The job of an entry of [`DEADLINES`] or [`ENDED_JOBS`].
pub(super) fn job_of_entry(entry: &str) -> Option<JobId> {
    entry.rsplit(':').next()?.parse().ok()
}

/// The end of the entries of [`DEADLINES`], [`ENDED_JOBS`], [`DELAYED`] or [`LEASES`] up to and including a time.
pub(super) fn after_time(time: UnixMs) -> String {
    format!("{:020}", time.0.saturating_add(1))
}

/// The task of an entry of a ready queue, [`DELAYED`], [`LEASES`], [`GIVING_WAY`] or [`held`].
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

    fn rank(enqueued: u64, priority: i32) -> Rank {
        let queue = "bulk:local:device=cuda,label.zone=eu".parse().expect("a queue's name");
        Rank { queue, enqueued: UnixMs(enqueued), priority, kind: JobKind::Finetune }
    }

    #[test]
    fn priority_is_worth_minutes_so_that_the_old_are_not_starved() {
        let ready = |enqueued, priority| {
            let task = Task::new(TaskId::new(JobId::new(1, 1), 0), false);
            placement(&task, &rank(enqueued, priority))[0].1.clone()
        };
        assert!(ready(1_000, 0) < ready(2_000, 0), "first come, first served");
        assert!(ready(60_000, 1) < ready(1_000, 0), "a higher priority goes before");
        assert!(ready(1_000, 0) < ready(62_000, 1), "but not for ever");
        assert!(ready(0, 10) < ready(0, -10));
    }

    #[test]
    fn a_queues_name_says_what_its_tasks_require_and_whose_they_are() {
        let Rank { queue, .. } = rank(0, 0);
        assert_eq!((queue.lane, queue.tenant.as_str()), (Lane::Bulk, "local"));
        assert_eq!(queue.requirements.to_string(), "device=cuda,label.zone=eu");
        assert_eq!(queue.index(), "ready:bulk:local:device=cuda,label.zone=eu");
        let (from, until) = QueueName::bounds(Lane::Bulk, &queue.tenant);
        assert!((from.as_str()..until.as_str()).contains(&queue.to_string().as_str()));
        let other = QueueName { tenant: "local-2".parse().expect("a tenant"), ..queue };
        assert!(!(from.as_str()..until.as_str()).contains(&other.to_string().as_str()));
    }
}
