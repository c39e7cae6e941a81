//! The place of a task in the indexes and counters, and its move from one place to another.

use crate::{
    engine::records::{JobRecord, QueueName, keys},
    queue::{Phase, Task},
    store::Batch,
};

use sortinghat_proto::time::UnixMs;

/// Moves the task's index entries and counts, and sends hints to the workers that wait for such a change.
pub(super) fn place(batch: &mut Batch, job: &JobRecord, was: &Task, is: &Task, now: UnixMs) {
    let rank = job.rank();
    let (old, new) = (keys::placement(was, &rank), keys::placement(is, &rank));
    batch.removals.extend(old.iter().filter(|entry| !new.contains(entry)).cloned());
    batch.insertions.extend(new.into_iter().filter(|entry| !old.contains(entry)));
    if !was.is_claimable() && is.is_claimable() {
        open_queue(batch, &rank.queue);
    } else if !was.waits() && is.waits() {
        reserve_queue(batch, &rank.queue);
    }
    let (from, to) = (Phase::from(&was.state), Phase::from(&is.state));
    if from != to {
        batch.increments.push((keys::tasks_in(from), -1));
        batch.increments.push((keys::tasks_in(to), 1));
        let leased = i64::from(to == Phase::Leased) - i64::from(from == Phase::Leased);
        if leased != 0 {
            batch.increments.push((keys::leased_of(&job.tenant), leased));
        }
    }
    let asked_to_stop = is.cancel_requested && !was.cancel_requested;
    let asked_to_give_way = is.lease().is_some_and(|lease| lease.preempted == Some(now));
    if let Some(lease) = was.lease()
        && (asked_to_stop || asked_to_give_way || from != to)
    {
        batch.topics.push(keys::worker_topic(&lease.token.worker).as_str().into());
    }
}

/// Opens a queue, so that claims look at it, in the batch that puts a claimable task into it.
pub(crate) fn open_queue(batch: &mut Batch, queue: &QueueName) {
    batch.insertions.push((keys::OPEN_QUEUES.to_owned(), queue.to_string()));
    batch.topics.push(keys::READY.into());
}

/// Opens a queue with requirements in the batch that puts a task into it which is not claimable yet, so that the queue counts against the
/// bound of its tenant.
pub(crate) fn reserve_queue(batch: &mut Batch, queue: &QueueName) {
    if queue.is_bounded() {
        batch.insertions.push((keys::OPEN_QUEUES.to_owned(), queue.to_string()));
    }
}
