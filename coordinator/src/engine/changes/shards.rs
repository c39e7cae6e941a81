//! What the change of a shard adds to its batch. Shards that end at the same moment must not conflict, so the change does not write the
//! job's record. It hands its events over, increments counters, and checks only the shards record, which changes at most once.

use sortinghat_proto::{JobId, time::UnixMs, v1};
use v1::job_event;

use super::loaded::LoadedShard;
use crate::{
    engine::records::{
        self, EventRecord, JobRecord, ShardStage, ShardTally, ShardsRecord, Stop, TaskRecord, Versioned, keys,
    },
    queue::{Division, Phase, Role, State, Task},
    store::{Batch, Expectation},
};

/// A shard that may be the last one of its job to end. The counters after the increments of its batch tell.
#[derive(Debug, Clone)]
pub(crate) struct LastShard {
    pub(crate) job: JobId,
    /// The place of the counter of ended shards among the batch's increments.
    increment: usize,
    shards: u32,
}

impl LastShard {
    /// Whether the shard was the last one, by the counters after the batch's increments.
    pub(crate) fn is_last(&self, counters: &[i64]) -> bool {
        counters.get(self.increment).is_some_and(|ended| *ended >= i64::from(self.shards))
    }
}

/// Divides a job. Settling creates the shards, some in each step.
pub(crate) fn begin(batch: &mut Batch, job: &mut JobRecord, division: Division) {
    job.progress.shards = Some(ShardStage { division, created: 0, told: 0, tally: ShardTally::default(), over: false });
    let key = keys::shards(&job.id);
    batch.checks.push((key.clone(), Expectation::Absent));
    batch.writes.push((key, records::encode(&ShardsRecord::default())));
    to_be_settled(batch, keys::unsettled(&job.id));
}

/// Counts a shard in its new phase, and orders the job to stop if the shard has failed or was cancelled. Returns the shard if it has ended.
pub(super) fn move_shard(batch: &mut Batch, job: &JobRecord, before: &LoadedShard, task: &Task) -> Option<LastShard> {
    let (key, shards_record) = (keys::shards(&job.id), &before.shards_record);
    batch.checks.push((key.clone(), Expectation::Version(shards_record.version)));
    let (from, to) = (Phase::from(&before.task.value.task.state), Phase::from(&task.state));
    if from == to {
        return None;
    }
    for (phase, amount) in [(from, -1), (to, 1)] {
        if !matches!(phase, Phase::Blocked | Phase::Ready) {
            batch.increments.push((keys::shards_in(&job.id, phase), amount));
        }
    }
    if !task.state.is_terminal() {
        return None;
    }
    let (division, Role::Shard(shard)) = (job.division()?, job.role(&task.id)) else { return None };
    match &task.state {
        State::Succeeded { .. } => {
            let range = division.range(shard);
            let items = i64::try_from(range.end - range.start).unwrap_or(i64::MAX);
            batch.increments.push((keys::items_done(&job.id), items));
        }
        State::Failed { failure } | State::Cancelled { failure } if shards_record.value.stop.is_none() => {
            let stop = ShardsRecord { stop: Some(Stop(failure.clone())) };
            batch.writes.push((key, records::encode(&stop)));
            to_be_settled(batch, keys::unsettled(&job.id));
        }
        State::Failed { .. } | State::Cancelled { .. } => {}
        State::Blocked | State::Ready { .. } | State::Leased(_) => {}
    }
    batch.increments.push((keys::shards_ended(&job.id), 1));
    Some(LastShard { job: job.id.clone(), increment: batch.increments.len() - 1, shards: division.shards() })
}

/// Counts shards that a job has from the beginning, because the one of which it is a retry had finished them.
pub(super) fn count_adopted(batch: &mut Batch, job: &JobRecord, shards: &[Task]) {
    let Some(division) = job.division().filter(|_| !shards.is_empty()) else { return };
    let number = i64::try_from(shards.len()).unwrap_or(i64::MAX);
    let items = shards.iter().map(|task| match job.role(&task.id) {
        Role::Shard(shard) => division.range(shard).end - division.range(shard).start,
        Role::Whole | Role::Finish => 0,
    });
    let items = i64::try_from(items.sum::<u64>()).unwrap_or(i64::MAX);
    batch.increments.extend([
        (keys::shards_in(&job.id, Phase::Succeeded), number),
        (keys::shards_ended(&job.id), number),
        (keys::items_done(&job.id), items),
        (keys::tasks_in(Phase::Succeeded), number),
    ]);
}

/// Writes a shard, and hands its events over; settling appends them to the job's history.
pub(crate) fn write(
    batch: &mut Batch,
    before: &LoadedShard,
    mut shard: Box<TaskRecord>,
    events: Vec<job_event::Event>,
    now: UnixMs,
) -> Box<TaskRecord> {
    for event in events {
        let handed_over = &mut shard.handed_over;
        handed_over.number += 1;
        handed_over.time = handed_over.time.max(now);
        let entry = keys::unsettled_event(&shard.task.id, handed_over.time, handed_over.number);
        let key = keys::waiting_event(&entry);
        let event = v1::JobEvent { sequence: 0, time_unix_ms: now.to_wire(), event: Some(event) };
        batch.checks.push((key.clone(), Expectation::Absent));
        batch.writes.push((key, records::encode(&EventRecord(event))));
        to_be_settled(batch, entry);
    }
    let key = keys::shard(&shard.task.id);
    batch.checks.push((key.clone(), Expectation::Version(before.task.version)));
    batch.writes.push((key, records::encode(&shard)));
    shard
}

/// Orders all shards of a job to stop, after which the job ends for this reason.
pub(crate) fn stop(batch: &mut Batch, job: &JobId, shards_record: &Versioned<ShardsRecord>, stop: Stop) {
    let key = keys::shards(job);
    batch.checks.push((key.clone(), Expectation::Version(shards_record.version)));
    batch.writes.push((key, records::encode(&ShardsRecord { stop: Some(stop) })));
    to_be_settled(batch, keys::unsettled(job));
}

fn to_be_settled(batch: &mut Batch, entry: String) {
    batch.insertions.push((keys::UNSETTLED.to_owned(), entry));
    if !batch.topics.iter().any(|topic| &**topic == keys::UNSETTLED) {
        batch.topics.push(keys::UNSETTLED.into());
    }
}
