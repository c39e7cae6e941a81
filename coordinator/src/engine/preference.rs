//! Leaving a task to a better worker for a moment: to one that has its inputs already, or, after a crash, to another machine.
//!
//! The moment is bounded and begins when a worker first leaves the task, so that a task which waited long in a queue is not
//! refused this, and none waits for it twice. Only workers that this process hears of count: where there is no better one,
//! nothing is delayed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sortinghat_proto::{
    Digest, Refusal, TaskId, WorkerId,
    time::UnixMs,
    v1::{self, AttemptOutcome},
};

use super::{
    Shared,
    claim::Claimant,
    failures::Failures,
    keys,
    load::Loaded,
    records::{Input, JobRecord},
};

/// How long a task that was left is remembered, in milliseconds, so that it is not left again.
const REMEMBERED_MS: u64 = 600_000;

/// Since when tasks are left to better workers.
#[derive(Debug, Default)]
pub(super) struct LeftTasks(Mutex<HashMap<TaskId, UnixMs>>);

impl LeftTasks {
    /// Whether a task may still be left, at most for `bound_ms` from the first time on, and whether this is the first time.
    fn may_leave(&self, task: &TaskId, now: UnixMs, bound_ms: u64) -> (bool, bool) {
        let mut tasks = self.tasks();
        let is_first = !tasks.contains_key(task);
        let since = *tasks.entry(task.clone()).or_insert(now);
        (now.ms_since(since) < bound_ms, is_first)
    }

    /// Forgets a task that somebody has taken.
    pub(super) fn taken(&self, task: &TaskId) {
        self.tasks().remove(task);
    }

    /// Forgets tasks that were left long ago: another coordinator has given them away.
    pub(super) fn forget(&self, now: UnixMs) {
        self.tasks().retain(|_, since| now.ms_since(*since) <= REMEMBERED_MS);
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<TaskId, UnixMs>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which worker has the content of which manifests at hand.
#[derive(Debug, Default)]
pub(super) struct CacheBoard(Mutex<Board>);

#[derive(Debug, Default)]
struct Board {
    /// As each worker said it last.
    said: HashMap<WorkerId, Vec<String>>,
    holders: HashMap<String, HashSet<WorkerId>>,
}

impl CacheBoard {
    /// Notes what a worker says.
    pub(super) fn note(&self, worker: &WorkerId, cached: &[String]) {
        let mut board = self.board();
        if board.said.get(worker).map_or(&[][..], Vec::as_slice) == cached {
            return;
        }
        board.forget(worker);
        for manifest in cached {
            board.holders.entry(manifest.clone()).or_default().insert(worker.clone());
        }
        board.said.insert(worker.clone(), cached.to_vec());
    }

    /// Forgets the workers for which `is_known` is false.
    pub(super) fn keep(&self, is_known: impl Fn(&WorkerId) -> bool) {
        let mut board = self.board();
        let gone: Vec<WorkerId> = board.said.keys().filter(|worker| !is_known(worker)).cloned().collect();
        gone.iter().for_each(|worker| board.forget(worker));
    }

    /// Another worker that has all of these and passes a test; `None` also if this one has them itself.
    fn another_with(&self, own: &WorkerId, manifests: &[Digest], test: impl Fn(&WorkerId) -> bool) -> Option<WorkerId> {
        let board = self.board();
        let holders: Option<Vec<_>> = manifests.iter().map(|manifest| board.holders.get(manifest.as_str())).collect();
        let [first, others @ ..] = holders.as_deref()? else { return None };
        let has_all = |worker: &WorkerId| others.iter().all(|holders| holders.contains(worker));
        if first.contains(own) && has_all(own) {
            return None;
        }
        first.iter().find(|worker| has_all(worker) && test(worker)).cloned()
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn forget(&mut self, worker: &WorkerId) {
        for manifest in self.said.remove(worker).unwrap_or_default() {
            if let Some(holders) = self.holders.get_mut(&manifest) {
                holders.remove(worker);
                if holders.is_empty() {
                    self.holders.remove(&manifest);
                }
            }
        }
    }
}

/// What a worker would need to have for a task to start at once: the manifests of its dataset and its model.
pub(super) type Inputs = Vec<Digest>;

impl Shared {
    /// The inputs of tasks, in their order, as far as they are known. Reads what parents have made, all at once, where there are any.
    pub(super) async fn inputs(&self, tasks: &[Loaded]) -> Result<Vec<Inputs>, Refusal> {
        let inputs = |loaded: &Loaded| {
            let job = &loaded.job.value;
            job.dataset.iter().chain(&job.model).cloned().collect::<Vec<Input>>()
        };
        let inputs: Vec<Vec<Input>> = tasks.iter().map(inputs).collect();
        let parents = inputs.iter().flatten().filter_map(|input| match input {
            Input::Parent(job) => Some(keys::job(job)),
            Input::Artifact { .. } => None,
        });
        let parents: Vec<String> = parents.collect();
        let made = match parents.as_slice() {
            [] => Vec::new(),
            parents => self.read_readable::<JobRecord>(parents, &mut Failures::default()).await?,
        };
        let mut made = made.into_iter();
        let mut manifest = |input: Input| match input {
            Input::Artifact { manifest, .. } => Some(manifest.digest),
            Input::Parent(_) => made.next().flatten()?.value.output?.manifest?.digest.parse().ok(),
        };
        Ok(inputs.into_iter().map(|inputs| inputs.into_iter().filter_map(&mut manifest).collect()).collect())
    }

    /// Whether a worker should leave a task that it could take, because a better one is there. That one is woken, but only once: two
    /// workers may each hold the other for better.
    pub(super) fn is_left(&self, claimant: &Claimant, loaded: &Loaded, inputs: &Inputs, now: UnixMs) -> bool {
        let task = loaded.id();
        let requirements = &loaded.job.value.requirements;
        let is_idle = |worker: &WorkerId| self.sessions.is_idle(worker, requirements, now, self.polling_ms());
        if let Some(better) = self.cached.another_with(&claimant.id, inputs, is_idle)
            && let (true, is_first) = self.left.may_leave(task, now, self.settings.affinity_ms)
        {
            if is_first {
                self.waiting.wake_worker(&better);
            }
            return true;
        }
        if host_of_death(loaded).is_some_and(|host| host == claimant.host)
            && self.sessions.runs_elsewhere(&claimant.host, requirements, now, self.polling_ms())
            && let (true, is_first) = self.left.may_leave(task, now, self.settings.other_machine_ms)
        {
            if is_first {
                self.waiting.wake_elsewhere(&claimant.host, requirements);
            }
            return true;
        }
        false
    }

    /// Whoever was heard of within this time polls, in milliseconds: a call is held for a third of a lease at most.
    pub(super) fn polling_ms(&self) -> u64 {
        self.rules.lease_ttl_ms / 2
    }
}

/// The machine on which a task's last attempt died, if that is how it ended.
fn host_of_death(loaded: &Loaded) -> Option<&str> {
    let epoch = loaded.task().task.last_epoch;
    let attempts = &loaded.job.value.attempts;
    let last: &v1::Attempt = &attempts.iter().rfind(|attempt| attempt.0.epoch == epoch)?.0;
    let died = matches!(last.outcome(), AttemptOutcome::Crashed | AttemptOutcome::Lost);
    died.then_some(last.host.as_str())
}
