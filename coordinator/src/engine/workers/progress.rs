//! The progress of running attempts. It is kept in memory only, and the newest report replaces the one before.

use std::collections::{BTreeMap, HashMap};

use parking_lot::{Mutex, MutexGuard};
use sortinghat_proto::{JobId, TaskId, time::UnixMs, v1};
use tokio::sync::watch;

use crate::{
    engine::records::{JobRecord, ShardStage},
    queue::Role,
};

/// The newest progress and the time of its report, by job and by the index of the task.
type Tasks = HashMap<JobId, BTreeMap<u32, (v1::Progress, UnixMs)>>;

/// The newest progress of each running task.
#[derive(Debug)]
pub(crate) struct ProgressBoard {
    tasks: Mutex<Tasks>,
    /// The number of changes. Watchers wake when it changes.
    revision: watch::Sender<u64>,
}

impl Default for ProgressBoard {
    fn default() -> Self {
        Self { tasks: Mutex::default(), revision: watch::channel(0).0 }
    }
}

impl ProgressBoard {
    /// Replaces a task's progress.
    pub(crate) fn set(&self, task: &TaskId, progress: v1::Progress, now: UnixMs) {
        let said = (progress.clone(), now);
        let before = self.tasks().entry(task.job().clone()).or_default().insert(task.index(), said);
        if before.is_none_or(|(before, _)| before != progress) {
            self.revision.send_modify(|count| *count += 1);
        }
    }

    /// Forgets a task whose attempt has ended.
    pub(crate) fn clear(&self, task: &TaskId) {
        let mut tasks = self.tasks();
        if let Some(of_job) = tasks.get_mut(task.job()) {
            of_job.remove(&task.index());
            if of_job.is_empty() {
                tasks.remove(task.job());
            }
        }
    }

    /// Forgets tasks whose progress was not reported for `silence_ms`. Their workers talk to another coordinator, or are gone.
    pub(crate) fn forget(&self, now: UnixMs, silence_ms: u64) {
        self.tasks().retain(|_, of_job| {
            of_job.retain(|_, (_, said)| now.ms_since(*said) < silence_ms);
            !of_job.is_empty()
        });
    }

    /// The newest progress of a job: that of its running task, or the sum over its shards.
    pub(crate) fn of(&self, job: &JobRecord) -> Option<v1::Progress> {
        let tasks = self.tasks();
        let running = tasks.get(&job.id)?;
        match job.open_shards() {
            Some(stage) => sum(stage, running),
            None => running.get(&job.progress.task.task.id.index()).map(|(progress, _)| progress.clone()),
        }
    }

    /// A receiver that changes whenever any progress changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock()
    }
}

/// The items of all shards that are done: all items of succeeded shards, and the done items of running shards whose current phase counts
/// items.
fn sum(stage: &ShardStage, running: &BTreeMap<u32, (v1::Progress, UnixMs)>) -> Option<v1::Progress> {
    let counts_items = |(index, progress): &(&u32, &v1::Progress)| match Role::of(**index, Some(stage.division)) {
        Role::Shard(shard) => {
            let items = stage.division.range(shard);
            progress.total == items.end - items.start
        }
        Role::Whole | Role::Finish => false,
    };
    let running = running.iter().map(|(index, (progress, _))| (index, progress));
    let counting: Vec<&v1::Progress> = running.filter(counts_items).map(|(_, progress)| progress).collect();
    let newest = counting.last()?;
    let total = stage.division.items();
    let done = counting.iter().fold(stage.tally.items, |sum, progress| sum.saturating_add(progress.done));
    Some(v1::Progress { phase: newest.phase.clone(), done: done.min(total), total, unit: newest.unit.clone() })
}
