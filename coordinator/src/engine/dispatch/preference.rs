//! Preference: a worker leaves a task to a better worker for a moment. A better worker has the task's inputs in its cache, or runs on
//! another machine than the one on which the task has just died.
//!
//! The moment is bounded. It begins when a worker leaves the task for the first time, so that a task which has waited long in a queue has
//! its moment, too, and no task is delayed twice. Only workers that talk to this process count. If there is no better worker, the task is
//! not delayed.

use std::collections::HashMap;

use parking_lot::Mutex;
use sortinghat_proto::{
    Digest, TaskId, WorkerId,
    time::UnixMs,
    v1::{self, AttemptOutcome},
};

use super::Dispatch;
use crate::engine::{
    changes::Loaded,
    error::EngineError,
    records::{Failures, Input, JobRecord, keys},
    workers::Claimant,
};

/// For how long a deferred task is remembered, in milliseconds, so that it is not deferred again.
const REMEMBERED_MS: u64 = 600_000;

/// Since when tasks have been deferred to better workers.
#[derive(Debug, Default)]
pub(super) struct DeferredTasks(Mutex<HashMap<TaskId, UnixMs>>);

impl DeferredTasks {
    /// Whether a task may still be deferred, which is so for `bound_ms` from the first time on, and whether this is the first time.
    fn may_defer(&self, task: &TaskId, now: UnixMs, bound_ms: u64) -> (bool, bool) {
        let mut tasks = self.0.lock();
        let is_first = !tasks.contains_key(task);
        let since = *tasks.entry(task.clone()).or_insert(now);
        (now.ms_since(since) < bound_ms, is_first)
    }

    /// Forgets a task that a worker has taken.
    pub(crate) fn taken(&self, task: &TaskId) {
        self.0.lock().remove(task);
    }

    /// Forgets tasks that were deferred long ago. Another coordinator has given them to a worker.
    pub(crate) fn forget(&self, now: UnixMs) {
        self.0.lock().retain(|_, since| now.ms_since(*since) <= REMEMBERED_MS);
    }
}

/// The manifests of a task's dataset and model. A worker that has them in its cache can start the task at once.
type Inputs = Vec<Digest>;

impl Dispatch {
    /// The inputs of tasks, in the order of the tasks, as far as they are known. The outputs of parents are read in one call.
    pub(crate) async fn inputs(&self, tasks: &[Loaded]) -> Result<Vec<Inputs>, EngineError> {
        let inputs = |loaded: &Loaded| {
            let job = &loaded.job.value;
            job.request.dataset.iter().chain(&job.request.model).cloned().collect::<Vec<Input>>()
        };
        let inputs: Vec<Vec<Input>> = tasks.iter().map(inputs).collect();
        let parents = inputs.iter().flatten().filter_map(|input| match input {
            Input::Parent(job) => Some(keys::job(job)),
            Input::Artifact { .. } => None,
        });
        let parents: Vec<String> = parents.collect();
        let made = match parents.as_slice() {
            [] => Vec::new(),
            parents => self.records.read_readable::<JobRecord>(parents, &mut Failures::default()).await?,
        };
        let mut made = made.into_iter();
        let mut manifest = |input: Input| match input {
            Input::Artifact { manifest, .. } => Some(manifest.digest),
            Input::Parent(_) => made.next().flatten()?.value.progress.output?.manifest?.digest.parse().ok(),
        };
        Ok(inputs.into_iter().map(|inputs| inputs.into_iter().filter_map(&mut manifest).collect()).collect())
    }

    /// Whether a worker should leave a task that it could take, because there is a better worker. The better worker is woken only once,
    /// since two workers may each be better than the other, and would wake each other for ever.
    pub(super) fn is_deferred(&self, claimant: &Claimant, loaded: &Loaded, inputs: &Inputs, now: UnixMs) -> bool {
        let task = loaded.id();
        let demand = loaded.job.value.demand();
        let is_idle = |worker: &WorkerId| self.workers.sessions.is_idle(worker, demand, now, self.context.polling_ms());
        if let Some(better) = self.workers.caches.another_with(&claimant.id, inputs, is_idle)
            && let (true, is_first) = self.deferred.may_defer(task, now, self.context.settings.affinity_ms)
        {
            if is_first {
                self.workers.waiting.wake_worker(&better);
            }
            return true;
        }
        if host_of_death(loaded).is_some_and(|host| host == claimant.host)
            && self.workers.sessions.runs_elsewhere(&claimant.host, demand, now, self.context.polling_ms())
            && let (true, is_first) = self.deferred.may_defer(task, now, self.context.settings.other_machine_ms)
        {
            if is_first {
                self.workers.waiting.wake_elsewhere(&claimant.host, demand);
            }
            return true;
        }
        false
    }
}

/// The host on which the last attempt of a task has died; `None` if that attempt did not die.
fn host_of_death(loaded: &Loaded) -> Option<&str> {
    let epoch = loaded.task().task.last_epoch;
    let attempts = &loaded.job.value.progress.attempts;
    let last: &v1::Attempt = &attempts.iter().rfind(|attempt| attempt.0.epoch == epoch)?.0;
    let died = matches!(last.outcome(), AttemptOutcome::Crashed | AttemptOutcome::Lost);
    died.then_some(last.host.as_str())
}
