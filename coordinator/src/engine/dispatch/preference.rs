//! Leaving a task to a better worker for a moment: to one that has its inputs already, or, after a crash, to another machine.
//!
//! The moment is bounded and begins when a worker first leaves the task, so that a task which waited long in a queue is not
//! refused this, and none waits for it twice. Only workers that this process hears of count: where there is no better one,
//! nothing is delayed.

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

/// How long a task that was left is remembered, in milliseconds, so that it is not left again.
const REMEMBERED_MS: u64 = 600_000;

/// Since when tasks are left to better workers.
#[derive(Debug, Default)]
pub(super) struct LeftTasks(Mutex<HashMap<TaskId, UnixMs>>);

impl LeftTasks {
    /// Whether a task may still be left, at most for `bound_ms` from the first time on, and whether this is the first time.
    fn may_leave(&self, task: &TaskId, now: UnixMs, bound_ms: u64) -> (bool, bool) {
        let mut tasks = self.0.lock();
        let is_first = !tasks.contains_key(task);
        let since = *tasks.entry(task.clone()).or_insert(now);
        (now.ms_since(since) < bound_ms, is_first)
    }

    /// Forgets a task that somebody has taken.
    pub(crate) fn taken(&self, task: &TaskId) {
        self.0.lock().remove(task);
    }

    /// Forgets tasks that were left long ago: another coordinator has given them away.
    pub(crate) fn forget(&self, now: UnixMs) {
        self.0.lock().retain(|_, since| now.ms_since(*since) <= REMEMBERED_MS);
    }
}

/// What a worker would need to have for a task to start at once: the manifests of its dataset and its model.
type Inputs = Vec<Digest>;

impl Dispatch {
    /// The inputs of tasks, in their order, as far as they are known. Reads what parents have made, all at once, where there are any.
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

    /// Whether a worker should leave a task that it could take, because a better worker is there. The better worker is woken, but only
    /// once: two workers may each take the other for better.
    pub(super) fn is_left(&self, claimant: &Claimant, loaded: &Loaded, inputs: &Inputs, now: UnixMs) -> bool {
        let task = loaded.id();
        let requirements = &loaded.job.value.request.requirements;
        let is_idle =
            |worker: &WorkerId| self.workers.sessions.is_idle(worker, requirements, now, self.context.polling_ms());
        if let Some(better) = self.workers.caches.another_with(&claimant.id, inputs, is_idle)
            && let (true, is_first) = self.left.may_leave(task, now, self.context.settings.affinity_ms)
        {
            if is_first {
                self.workers.waiting.wake_worker(&better);
            }
            return true;
        }
        if host_of_death(loaded).is_some_and(|host| host == claimant.host)
            && self.workers.sessions.runs_elsewhere(&claimant.host, requirements, now, self.context.polling_ms())
            && let (true, is_first) = self.left.may_leave(task, now, self.context.settings.other_machine_ms)
        {
            if is_first {
                self.workers.waiting.wake_elsewhere(&claimant.host, requirements);
            }
            return true;
        }
        false
    }
}

/// The machine on which a task's last attempt died, if that is how it ended.
fn host_of_death(loaded: &Loaded) -> Option<&str> {
    let epoch = loaded.task().task.last_epoch;
    let attempts = &loaded.job.value.progress.attempts;
    let last: &v1::Attempt = &attempts.iter().rfind(|attempt| attempt.0.epoch == epoch)?.0;
    let died = matches!(last.outcome(), AttemptOutcome::Crashed | AttemptOutcome::Lost);
    died.then_some(last.host.as_str())
}
