//! The ledger of a simulation: what its hosts believe, and checks that these beliefs agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use sortinghat_proto::{
    ObjectRef,
    v1::{self, AttemptOutcome, JobState, job_event::Event},
};

use crate::TICK;

/// The ledger. All hosts of the simulation share it, which real hosts could not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Beliefs>>);

#[derive(Debug, Default)]
struct Beliefs {
    /// Which worker believes that it holds a task, under which epoch, and until when.
    held: BTreeMap<String, Held>,
    /// The greatest epoch that any worker was given, by task.
    epochs: BTreeMap<String, u64>,
    /// The outputs of workers, by job and epoch.
    outputs: BTreeMap<(String, u64), ObjectRef>,
    /// Acknowledged jobs, by idempotency key.
    jobs: BTreeMap<String, String>,
    /// The names of committed outputs.
    names: BTreeSet<String>,
    attempts: usize,
    outcomes: BTreeMap<&'static str, usize>,
}

#[derive(Debug)]
struct Held {
    worker: String,
    epoch: u64,
    until: Duration,
}

impl Ledger {
    fn beliefs(&self) -> MutexGuard<'_, Beliefs> {
        self.0.lock()
    }

    /// Notes that a worker believes to hold a task until a time. No other worker may believe that it holds the task then.
    pub(crate) fn hold(&self, task: &str, epoch: u64, worker: &str, now: Duration, until: Duration) {
        let mut beliefs = self.beliefs();
        if let Some(other) = beliefs.held.get(task).filter(|held| held.worker != worker || held.epoch != epoch) {
            // Hosts take turns within a tick, so their clocks differ by one.
            assert!(
                other.until <= now + TICK,
                "invariant 4: {worker} holds {task} under {epoch} at {now:?}, and so does {other:?}"
            );
        }
        let last = beliefs.epochs.get(task).copied().unwrap_or_default();
        assert!(epoch >= last, "invariant 3: {worker} holds {task} under {epoch} after {last}");
        if epoch > last {
            beliefs.epochs.insert(task.to_owned(), epoch);
            beliefs.attempts += 1;
        }
        let held = Held { worker: worker.to_owned(), epoch, until };
        beliefs.held.insert(task.to_owned(), held);
    }

    /// Notes that a worker does not hold a task any more.
    pub(crate) fn let_go(&self, task: &str, epoch: u64) {
        let mut beliefs = self.beliefs();
        if beliefs.held.get(task).is_some_and(|held| held.epoch == epoch) {
            beliefs.held.remove(task);
        }
    }

    /// Notes the output of a worker.
    pub(crate) fn made(&self, job: &str, epoch: u64, output: ObjectRef) {
        self.beliefs().outputs.insert((job.to_owned(), epoch), output);
    }

    /// Notes that a job was acknowledged. The same key must be the same job.
    pub(crate) fn accepted(&self, key: &str, job: &str) {
        let mut beliefs = self.beliefs();
        let before = beliefs.jobs.insert(key.to_owned(), job.to_owned());
        assert!(before.is_none_or(|before| before == job), "invariant 6: the key {key} is two jobs");
    }

    /// Checks a job that has ended against its history and against the outputs of workers.
    pub(crate) fn check(&self, job: &v1::Job, history: &[v1::JobEvent]) {
        let mut beliefs = self.beliefs();
        let committed = check_history(history);
        assert_eq!(job.state() == JobState::Succeeded, committed.is_some(), "invariant 2: one commit, one output");
        if let Some(epoch) = committed {
            let output = job.output.clone().expect("it succeeded");
            let made = beliefs.outputs.get(&(job.id.clone(), epoch)).cloned().map(Into::into);
            assert_eq!(output.manifest, made, "the output is that of the committed attempt");
            assert!(beliefs.names.insert(output.name.clone()), "{} was given twice", output.name);
        }
        *beliefs.outcomes.entry(job.state().as_str_name()).or_default() += 1;
    }

    /// Checks that exactly these names were given.
    pub(crate) fn check_names(&self, names: BTreeSet<String>) {
        assert_eq!(names, self.beliefs().names, "a name belongs to a job that succeeded");
    }

    /// A summary, which differs as soon as any event differs.
    pub(crate) fn summary(&self) -> String {
        let beliefs = self.beliefs();
        let epochs = beliefs.epochs.values().fold(0_u64, |sum, epoch| sum.rotate_left(5) ^ epoch);
        let jobs = beliefs.jobs.len();
        format!("{jobs} jobs {:?}, {} attempts, epochs {epochs:x}", beliefs.outcomes, beliefs.attempts)
    }
}

/// Checks the invariants in a job's history: it has no gap, one end, one commit, one attempt at a time, and epochs that grow. Returns the
/// committed epoch.
fn check_history(history: &[v1::JobEvent]) -> Option<u64> {
    let (mut ends, mut committed, mut last_epoch, mut running) = (0, None, 0, None);
    for (number, event) in history.iter().enumerate() {
        assert_eq!(event.sequence, number as u64 + 1, "a watcher misses no event");
        match event.event.as_ref().expect("an event") {
            Event::StateChanged(changed) => {
                let is_end = matches!(changed.state(), JobState::Succeeded | JobState::Failed | JobState::Cancelled);
                ends += usize::from(is_end);
            }
            Event::AttemptStarted(attempt) => {
                assert_eq!(running.replace(attempt.epoch), None, "invariant 4: two attempts at a time");
                assert!(attempt.epoch > last_epoch, "invariant 3: epochs grow");
                last_epoch = attempt.epoch;
            }
            Event::AttemptEnded(attempt) => {
                assert_eq!(running.take(), Some(attempt.epoch), "only the running attempt can end");
                if attempt.outcome() == AttemptOutcome::Succeeded {
                    assert_eq!(committed.replace(attempt.epoch), None, "invariant 2: two commits");
                }
            }
            Event::EpochFinished(_) | Event::Notice(_) | Event::Log(_) => {
                assert!(running.is_some(), "only a running attempt reports events");
            }
        }
    }
    assert_eq!((ends, running), (1, None), "invariant 1: exactly one end");
    committed
}
