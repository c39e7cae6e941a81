//! Several users who call `hat` all the time, independently of each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::Value;
use sortinghat_tests::{Hat, wait_until};

/// A training that goes on until it is cancelled.
const TRAIN: [&str; 14] = [
    "finetune",
    "shapes@1",
    "--backbone",
    "resnet18",
    "--weights",
    "none",
    "--size",
    "32",
    "--epochs",
    "1000",
    "--batch-size",
    "4",
    "--lr",
    "0.001",
];

/// Three users: one trains, one submits small jobs one after another, and one looks at the queue.
pub(crate) struct Commands {
    hat: Hat,
    training: String,
    stop: Arc<AtomicBool>,
    callers: Vec<Caller>,
}

struct Caller {
    turns: Arc<AtomicUsize>,
    /// The thread returns the jobs that it has submitted and followed to their end.
    thread: JoinHandle<Vec<String>>,
}

impl Commands {
    /// Starts all users, and returns when the training makes progress.
    pub(crate) fn start(hat: &Hat) -> Self {
        let training = submit(hat, &TRAIN);
        let stop = Arc::new(AtomicBool::new(false));
        let callers = [ingest, look].map(|turn| Caller::start(hat.clone(), stop.clone(), turn));
        let commands = Self { hat: hat.clone(), training, stop, callers: callers.into() };
        wait_until("the training to make progress", || {
            show(hat, &commands.training)["progress"]["done"].as_u64().filter(|done| *done > 0)
        });
        commands
    }

    /// Waits until every user has completed a command that began after this call.
    pub(crate) fn go_on(&self) {
        for caller in &self.callers {
            // One command may be under way already.
            let enough = caller.turns.load(Ordering::Relaxed) + 2;
            let is_enough = || caller.turns.load(Ordering::Relaxed) >= enough || caller.thread.is_finished();
            wait_until("commands to go on", || is_enough().then_some(()));
        }
    }

    /// Cancels the training, waits until all jobs have ended, and checks them.
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let callers = self.callers.into_iter().flat_map(|caller| caller.thread.join().expect("no command fails"));
        let jobs: Vec<String> = callers.collect();
        for job in &jobs {
            handed_back(&show(&self.hat, job), "succeeded");
        }
        self.hat.ok(["jobs", "cancel", &self.training]);
        assert_eq!(self.hat.run(["jobs", "watch", &self.training]).code, 5, "cancelled");
        let training = show(&self.hat, &self.training);
        assert!(handed_back(&training, "cancelled") > 0, "its worker was replaced in the middle: {training}");
        println!("{} small jobs beside the training", jobs.len());
    }
}

impl Caller {
    fn start(hat: Hat, stop: Arc<AtomicBool>, turn: fn(&Hat) -> Option<String>) -> Self {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let thread = thread::spawn(move || {
            let mut jobs = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                jobs.extend(turn(&hat));
                counted.fetch_add(1, Ordering::Relaxed);
            }
            jobs
        });
        Self { turns, thread }
    }
}

fn ingest(hat: &Hat) -> Option<String> {
    let job = submit(hat, &["ingest", "again", "photos"]);
    hat.ok(["jobs", "watch", &job]);
    Some(job)
}

fn look(hat: &Hat) -> Option<String> {
    hat.ok(["jobs"]);
    hat.ok(["queue"]);
    hat.ok(["workers"]);
    hat.ok(["datasets", "show", "shapes@1"]);
    None
}

/// Checks how a job has ended, and that draining workers were the only reason for further attempts. Returns how many attempts they gave back.
fn handed_back(job: &Value, end: &str) -> usize {
    assert_eq!(job["state"], end, "{job}");
    let attempts = job["attempts"].as_array().expect("attempts are listed");
    let (last, earlier) = attempts.split_last().expect("it was run");
    assert_eq!(last["outcome"], end, "{job}");
    assert!(earlier.iter().all(|attempt| attempt["outcome"] == "returned"), "{job}");
    earlier.len()
}

/// Submits a job and returns its id.
fn submit(hat: &Hat, arguments: &[&str]) -> String {
    let lines = hat.json(["--detach"].iter().chain(arguments));
    lines[0]["id"].as_str().expect("a submitted job has an id").to_owned()
}

fn show(hat: &Hat, job: &str) -> Value {
    hat.json(["jobs", "show", job]).remove(0)
}
