//! The names of records, indexes, counters and topics. No other file spells such a name.
//!
//! The separators of a key cannot occur in its parts: ids, names and tenants are slugs, and an idempotency key always comes last.

use std::fmt;

use sortinghat_proto::{
    ArtifactKind, Digest, JobId, Label, Lane, Name, Retention, TaskId, Tenant, VersionedName, WorkerId, time::UnixMs,
    v1::JobState,
};

use super::{rank::Rank, stored::JobRecord};
use crate::queue::{Phase, State, Task};

/// Topic: tasks have become claimable.
pub(crate) const READY: &str = "ready";
/// Index of the ready queues that may hold tasks, by name. Claims look only at these queues.
pub(crate) const OPEN_QUEUES: &str = "open-queues";
/// Index of the ready queues that were just closed and must be checked once more.
pub(crate) const CLOSING_QUEUES: &str = "closing-queues";
/// Record that changes whenever queues are closed, so that two coordinators cannot close queues at the same time.
pub(crate) const QUEUE_CLOSING: &str = "queue-closing";
/// Index of tasks that become claimable later, by the time.
pub(crate) const DELAYED: &str = "delayed";
/// Index of leased tasks, by the deadline of the lease.
pub(crate) const LEASES: &str = "leases";
/// Index of leased tasks that can be preempted, the least urgent task last.
pub(crate) const GIVING_WAY: &str = "giving-way";
/// Index of the changes of shards that are not in their jobs' records yet; see [`unsettled`] and [`unsettled_event`]. Also the topic of new
/// entries in this index.
pub(crate) const UNSETTLED: &str = "unsettled";
/// Index of the open jobs that have a deadline and are not being stopped, by the deadline.
pub(crate) const DEADLINES: &str = "deadlines";
/// Index of jobs that have ended, by the time of their end. Retention reads it.
pub(crate) const ENDED_JOBS: &str = "ended-jobs";
/// Index of jobs that have ended and name the time of their retention themselves, by the time at which they are forgotten.
pub(crate) const EXPIRING_JOBS: &str = "expiring-jobs";
/// Index of forgotten jobs that have left records behind; see [`remains`].
pub(crate) const REMAINS: &str = "remains";
/// Index of tenants with bulk cancellations under way.
pub(crate) const CANCELLING: &str = "cancelling";
/// Index of jobs that have ended, but whose children have not all been told of that.
pub(crate) const ENDED_PARENTS: &str = "ended-parents";

/// Index of checkpoints that no attempt goes on from any more; see [`discarded`]. Also the topic of new entries in this index.
pub(crate) const DISCARDED: &str = "discarded";
/// Record that changes whenever entries of [`DISCARDED`] are removed.
pub(crate) const DISCARDING: &str = "discarding";

/// Index of the sessions of workers, by the time of their end.
pub(crate) const SESSIONS: &str = "sessions";

/// Record of the random id of the whole queue.
pub(crate) const QUEUE_ID: &str = "queue-id";

/// Record of a job; also the topic of its events.
pub(crate) fn job(id: &JobId) -> String {
    format!("job:{id}")
}

/// Record of a shard's task. Every other task is a part of its job's record.
pub(crate) fn shard(id: &TaskId) -> String {
    format!("task:{id}")
}

/// Record that all shards of a job share.
pub(crate) fn shards(job: &JobId) -> String {
    format!("shards:{job}")
}

/// Counter of a job's shards in a phase: leased, succeeded, failed or cancelled.
pub(crate) fn shards_in(job: &JobId, phase: Phase) -> String {
    format!("shards:{job}:{phase:?}")
}

/// Counter of a job's shards that have ended.
pub(crate) fn shards_ended(job: &JobId) -> String {
    format!("shards:{job}:ended")
}

/// Counter of the items in a job's shards that have succeeded.
pub(crate) fn items_done(job: &JobId) -> String {
    format!("shards:{job}:items")
}

/// All counters of a job's shards.
pub(crate) fn shard_counters(job: &JobId) -> Vec<String> {
    let phases = [Phase::Leased, Phase::Succeeded, Phase::Failed, Phase::Cancelled];
    let by_phase = phases.into_iter().map(|phase| shards_in(job, phase));
    by_phase.chain([shards_ended(job), items_done(job)]).collect()
}

/// Record of which records a forgotten job may have left behind.
pub(crate) fn remains(job: &JobId) -> String {
    format!("remains:{job}")
}

/// Entry of [`UNSETTLED`]: shards of this job must be created or stopped. It sorts before the events of the job's shards.
pub(crate) fn unsettled(job: &JobId) -> String {
    format!("{job}:")
}

/// Entry of [`UNSETTLED`]: an event of a shard. The entries of a job sort in the order in which the events happened. The record of the
/// event has the same name behind a prefix; see [`waiting_event`].
pub(crate) fn unsettled_event(shard: &TaskId, time: UnixMs, number: u64) -> String {
    format!("{}:{:020}:{:010}:{number:010}", shard.job(), time.0, shard.index())
}

/// Record of an event of a shard that waits to be appended to the job's history.
pub(crate) fn waiting_event(entry: &str) -> String {
    format!("waiting:{entry}")
}

/// The job that an entry of [`UNSETTLED`] belongs to.
pub(crate) fn job_of_unsettled(entry: &str) -> Option<JobId> {
    entry.split(':').next()?.parse().ok()
}

/// The end of a job's entries in [`UNSETTLED`].
pub(crate) fn after_unsettled(job: &JobId) -> String {
    // ';' is the character after ':'.
    format!("{job};")
}

/// Record of a page of a job's history: successive events up to and including this sequence.
pub(crate) fn history(job: &JobId, last: u64) -> String {
    format!("history:{job}:{last:012}")
}

/// Record of the job that was accepted under an idempotency key.
pub(crate) fn idempotency(tenant: &Tenant, key: &str) -> String {
    format!("key:{tenant}:{key}")
}

/// Record of one artifact.
pub(crate) fn artifact(tenant: &Tenant, name: &VersionedName) -> String {
    format!("{}:{tenant}:{}:{}", name.kind, name.name, name.version)
}

/// Record of the newest version of a name. It is never deleted, so that no version is given twice.
pub(crate) fn last_version(tenant: &Tenant, kind: ArtifactKind, name: &Name) -> String {
    format!("last-{kind}:{tenant}:{name}")
}

/// Index of a tenant's artifacts, by name, the newest version first.
pub(crate) fn artifacts(tenant: &Tenant, kind: ArtifactKind) -> String {
    format!("{kind}s:{tenant}")
}

/// Entry of [`artifacts`]. '!' sorts before every character of a name, so that `a` comes before `a-b`.
pub(crate) fn artifact_entry(name: &VersionedName) -> String {
    format!("{}!{:010}", name.name, u32::MAX - name.version)
}

/// The artifact that an entry of [`artifacts`] stands for.
pub(crate) fn artifact_of_entry(kind: ArtifactKind, entry: &str) -> Option<VersionedName> {
    let (name, inverted) = entry.split_once('!')?;
    let version = u32::MAX - inverted.parse::<u32>().ok()?;
    Some(VersionedName { kind, name: name.parse().ok()?, version })
}

/// The start and the end of one name's entries in [`artifacts`].
pub(crate) fn artifact_bounds(name: &Name) -> (String, String) {
    (format!("{name}!"), format!("{name}\""))
}

/// Index of a tenant's jobs, by id, and so by the time of their submission.
pub(crate) fn jobs(tenant: &Tenant) -> String {
    format!("jobs:{tenant}")
}

/// Index of a tenant's jobs with a label, by id.
pub(crate) fn labelled(tenant: &Tenant, name: &Label, value: &Label) -> String {
    format!("labelled:{tenant}:{name}={value}")
}

/// The entries of a job in the indexes of its labels.
pub(crate) fn label_entries(job: &JobRecord) -> impl Iterator<Item = (String, String)> {
    let labels = job.request.labels.iter();
    labels.map(|(name, value)| (labelled(&job.tenant, name, value), job.id.to_string()))
}

/// Index of a tenant's open jobs, which are those that have not ended, by id, and so by the time of their submission.
pub(crate) fn open_jobs(tenant: &Tenant) -> String {
    format!("open:{tenant}")
}

/// Counter of a tenant's jobs in a state.
pub(crate) fn jobs_in(tenant: &Tenant, state: JobState) -> String {
    format!("jobs:{tenant}:{}", state.as_str_name())
}

/// Record that says whether a tenant's objects are being collected, and which objects are being removed.
pub(crate) fn collection(tenant: &Tenant) -> String {
    format!("collection:{tenant}")
}

/// Record of a wish that a tenant's objects are removed soon: a pass is due whatever its time is.
pub(crate) fn erasure(tenant: &Tenant) -> String {
    format!("erasure:{tenant}")
}

/// Record of a suspect: an object to which no reference was found.
pub(crate) fn suspect(tenant: &Tenant, digest: &Digest) -> String {
    format!("suspect:{tenant}:{digest}")
}

/// Index of a tenant's suspects, by the time at which they became suspects.
pub(crate) fn suspects(tenant: &Tenant) -> String {
    format!("suspects:{tenant}")
}

/// Entry of [`suspects`].
pub(crate) fn suspect_entry(since: UnixMs, digest: &Digest) -> String {
    at_time(since, digest)
}

/// The object that an entry of [`suspects`] stands for.
pub(crate) fn suspect_of_entry(entry: &str) -> Option<Digest> {
    entry.split_once(':')?.1.parse().ok()
}

/// Entry of [`DISCARDED`]: a checkpoint, and the job that has made it.
pub(crate) fn discarded(tenant: &Tenant, job: &JobId, checkpoint: &Digest) -> String {
    format!("{tenant}:{job}:{checkpoint}")
}

/// The checkpoint that an entry of [`DISCARDED`] stands for.
pub(crate) fn checkpoint_of_entry(entry: &str) -> Option<(Tenant, JobId, Digest)> {
    let mut parts = entry.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A key that sorts directly after an entry of an index, to read on from there. '!' sorts before every character of an id or a digest.
pub(crate) fn after_entry(entry: &str) -> String {
    format!("{entry}!")
}

/// Record of the gate of a tenant's queue: whether it is paused, and its bulk cancellations.
pub(crate) fn queue(tenant: &Tenant) -> String {
    format!("queue:{tenant}")
}

/// Index of the jobs that wait for this job.
pub(crate) fn children(job: &JobId) -> String {
    format!("children:{job}")
}

/// Index of the tasks that a worker holds.
pub(crate) fn held(worker: &WorkerId) -> String {
    format!("held:{worker}")
}

/// Record of whom a worker's session belongs to.
pub(crate) fn session(worker: &WorkerId) -> String {
    format!("session:{worker}")
}

/// Entry of [`SESSIONS`].
pub(crate) fn session_entry(until: UnixMs, worker: &WorkerId) -> String {
    at_time(until, worker)
}

/// The worker that an entry of [`SESSIONS`] stands for.
pub(crate) fn worker_of_entry(entry: &str) -> Option<WorkerId> {
    entry.rsplit(':').next()?.parse().ok()
}

/// Topic: what a worker should be doing has changed.
pub(crate) fn worker_topic(worker: &WorkerId) -> String {
    format!("worker:{worker}")
}

/// Counter of a tenant's leased tasks.
pub(crate) fn leased_of(tenant: &Tenant) -> String {
    format!("leased:{tenant}")
}

/// Counter of the tasks in a phase, over all tenants.
pub(crate) fn tasks_in(phase: Phase) -> String {
    format!("tasks:{phase:?}")
}

/// The index entries that a task has in its state.
pub(crate) fn placement(task: &Task, rank: &Rank) -> Vec<(String, String)> {
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

/// The index entries of a job in its state, except its entries in [`jobs`] and [`labelled`].
pub(crate) fn job_entries(job: &JobRecord) -> Vec<(String, String)> {
    if job.has_ended() {
        let finished = job.progress.finished.unwrap_or_default();
        let entry = match job.request.retention {
            _ if job.progress.deleted => Some((EXPIRING_JOBS, UnixMs::default())),
            Retention::Usual => Some((ENDED_JOBS, finished)),
            Retention::ForMs(ms) => Some((EXPIRING_JOBS, finished.plus_ms(ms))),
            Retention::UntilDeleted => None,
        };
        return entry.map(|(index, time)| (index.to_owned(), at_time(time, &job.id))).into_iter().collect();
    }
    let deadline = job.request.deadline.filter(|_| !job.progress.cancel_requested);
    let deadline = deadline.map(|deadline| (DEADLINES.to_owned(), at_time(deadline, &job.id)));
    [(open_jobs(&job.tenant), job.id.to_string())].into_iter().chain(deadline).collect()
}

/// The job that an entry of [`DEADLINES`], [`ENDED_JOBS`] or [`EXPIRING_JOBS`] stands for.
pub(crate) fn job_of_entry(entry: &str) -> Option<JobId> {
    entry.rsplit(':').next()?.parse().ok()
}

/// The end of the entries of [`DEADLINES`], [`ENDED_JOBS`], [`EXPIRING_JOBS`], [`DELAYED`] or [`LEASES`] up to and including a time.
pub(crate) fn after_time(time: UnixMs) -> String {
    format!("{:020}", time.0.saturating_add(1))
}

/// The task that an entry of a ready queue, [`DELAYED`], [`LEASES`], [`GIVING_WAY`] or [`held`] stands for.
pub(crate) fn task_of_entry(entry: &str) -> Option<TaskId> {
    entry.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::JobKind;

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
    fn a_step_of_priority_is_worth_a_minute_of_waiting_so_that_old_tasks_are_not_starved() {
        let ready = |enqueued, priority| {
            let task = Task::new(TaskId::new(JobId::new(1, 1), 0), false);
            placement(&task, &rank(enqueued, priority))[0].1.clone()
        };
        assert!(ready(1_000, 0) < ready(2_000, 0), "the older task of the same priority goes first");
        assert!(ready(60_000, 1) < ready(1_000, 0), "a higher priority goes before an older task");
        assert!(ready(1_000, 0) < ready(62_000, 1), "an old task is not overtaken for ever");
        assert!(ready(0, 10) < ready(0, -10));
    }
}
