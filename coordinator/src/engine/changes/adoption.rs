//! Taking over what a job had finished when it failed or was cancelled: its retry does not compute these shards again.
//!
//! The division of a job follows from its spec, its inputs and the number of its items. If all of these are the same, a shard of the retry
//! would make the same object, which is still stored, since the old job refers to it.

use std::{collections::BTreeMap, ops::Range};

use sortinghat_proto::{
    JobId, TaskId,
    v1::{self, ErrorCode, job_event},
};

use super::settle::Settling;
use crate::{
    engine::{
        error::EngineError,
        records::{JobRecord, TaskRecord, keys},
    },
    queue::{Output, State, Task},
    store::Expectation,
};

/// Some shards of an old job that its retry takes over.
pub(super) struct Adopted {
    old: JobId,
    /// The shards that have succeeded, by their number.
    shards: BTreeMap<u32, State>,
    /// The check that the old job still exists and keeps what its shards have made.
    pub(super) check: (String, Expectation),
}

impl Adopted {
    /// The task of a shard: ended already if it is taken over, else new.
    pub(super) fn task(adopted: &Option<Self>, shard: u32, id: TaskId) -> Task {
        let new = Task::new(id, false);
        match adopted.as_ref().and_then(|adopted| adopted.shards.get(&shard)) {
            Some(state @ State::Succeeded { epoch, .. }) => {
                Task { state: state.clone(), last_epoch: *epoch, reported_epoch: *epoch, ..new }
            }
            _ => new,
        }
    }

    /// What the user is told of it.
    pub(super) fn notice(&self) -> job_event::Event {
        let parts =
            if self.shards.len() == 1 { "1 part is".to_owned() } else { format!("{} parts are", self.shards.len()) };
        let message = format!("{parts} taken over from job {}, which had finished them", self.old);
        job_event::Event::Notice(v1::Notice { level: v1::NoticeLevel::Info.into(), message })
    }
}

impl Settling {
    /// Which of these shards, which a job is about to get, the job takes over from the one of which it is a retry. `None` if it takes over
    /// none.
    pub(super) async fn adoptable(&self, job: &JobRecord, next: Range<u32>) -> Result<Option<Adopted>, EngineError> {
        let (Some(old), Some(division)) = (&job.links.retry_of, job.division()) else { return Ok(None) };
        let Some(old) =
            self.records.read::<JobRecord>(keys::job(old)).await?.filter(|old| is_same_work(&old.value, job))
        else {
            return Ok(None);
        };
        let id = &old.value.id;
        let tasks = next.clone().map(|shard| TaskId::new(id.clone(), division.shard_index(shard)));
        let tasks: Vec<String> = tasks.map(|task| keys::shard(&task)).collect();
        let found = next.zip(self.records.read_all::<TaskRecord>(&tasks).await?);
        let succeeded = found.filter_map(|(shard, record)| match record?.value.task.state {
            state @ State::Succeeded { output: Output::Made { .. }, .. } => Some((shard, state)),
            _ => None,
        });
        let shards: BTreeMap<u32, State> = succeeded.collect();
        let check = (keys::job(id), old.expectation());
        Ok((!shards.is_empty()).then(|| Adopted { old: id.clone(), shards, check }))
    }
}

/// Whether the shards of both jobs make the same. A job that was deleted is not used any more.
fn is_same_work(old: &JobRecord, new: &JobRecord) -> bool {
    has_sound_shards(old)
        && !old.progress.deleted
        && old.division() == new.division()
        && old.request.spec == new.request.spec
        && (&old.request.dataset, &old.request.model) == (&new.request.dataset, &new.request.model)
}

/// Whether nothing speaks against what the job's shards have made. It does if the job failed because an object was lost or damaged, and if
/// their outputs could not be joined although all shards had succeeded.
fn has_sound_shards(old: &JobRecord) -> bool {
    let Some(failure) = &old.progress.failure else { return true };
    let stage = old.progress.shards.as_ref();
    let have_all = stage.is_some_and(|stage| stage.tally.succeeded == stage.division.shards());
    match failure.code() {
        ErrorCode::CorruptObject => false,
        ErrorCode::Internal => !have_all,
        _ => true,
    }
}
