//! The checks of every acknowledged job, once all jobs have ended.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, stream};
use sortinghat_client::{Client, JobFilter, Update};
use sortinghat_proto::{
    Digest, Tenant,
    v1::{Attempt, AttemptOutcome, ErrorCode, Job, JobEvent, JobState, job_event::Event},
};

use crate::{
    Failure,
    jobs::{Entry, Sort, list_all},
    workforce,
};

/// How many jobs are checked at a time.
const CHECKS_AT_A_TIME: usize = 16;

/// The results of a round's jobs.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What is wrong, with the job that it is wrong with.
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    pub(crate) wrong: Vec<String>,
    pub(crate) succeeded: u64,
    pub(crate) poisoned: u64,
    pub(crate) cancelled: u64,
    /// All attempts in the jobs' histories.
    pub(crate) attempts: Vec<Run>,
}

/// One attempt of a task, and the time at which the next one began.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) attempt: Attempt,
    /// In milliseconds since 1970 UTC; `None` for the last attempt.
    pub(crate) next_started_unix_ms: Option<i64>,
}

impl Findings {
    pub(crate) fn is_good(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.wrong.is_empty()
    }

    pub(crate) fn print(&self) {
        for (what, findings) in [("lost", &self.lost), ("doubled", &self.doubled), ("wrong", &self.wrong)] {
            findings.iter().take(20).for_each(|finding| println!("  {what}: {finding}"));
        }
    }
}

/// A job, its ledger entry and its history.
struct History {
    job: Job,
    events: Vec<JobEvent>,
}

/// Checks the jobs of a ledger, all of which have ended.
pub(crate) async fn check(client: &Client, ledger: &[Entry], objects: &Path) -> Result<Findings, Failure> {
    let histories = ledger.iter().map(|entry| async move { (entry, history(client, &entry.id).await) });
    let histories: Vec<_> = stream::iter(histories).buffered(CHECKS_AT_A_TIME).collect().await;
    let mut findings = Findings::default();
    let mut names = HashMap::new();
    for (entry, history) in histories {
        let history = match history {
            Ok(history) => history,
            Err(error) => {
                findings.lost.push(format!("{}: {error}", entry.id));
                continue;
            }
        };
        check_job(entry, &history, objects, &mut findings);
        let name = history.job.output.map(|output| output.name).filter(|name| !name.is_empty());
        if let Some(name) = name
            && let Some(other) = names.insert(name.clone(), entry.id.clone())
        {
            findings.doubled.push(format!("{name} was committed by {} and {other}", entry.id));
        }
    }
    Ok(findings)
}

async fn history(client: &Client, id: &str) -> Result<History, Failure> {
    let mut watch = client.watch(id, 0);
    let mut events = Vec::new();
    while let Some(update) = watch.next().await? {
        if let Update::Event(event) = update {
            events.push(event);
        }
    }
    Ok(History { job: client.get_job(id).await?, events })
}

fn check_job(entry: &Entry, history: &History, objects: &Path, findings: &mut Findings) {
    let History { job, events } = history;
    let mut wrong = |what: String| findings.wrong.push(format!("{} ({}): {what}", job.id, job.idempotency_key));
    if events.iter().zip(1..).any(|(event, sequence)| event.sequence != sequence) {
        wrong("its events have gaps".to_owned());
    }
    let is_end =
        |event: &&JobEvent| matches!(&event.event, Some(Event::StateChanged(change)) if is_final(change.state()));
    let ends = events.iter().filter(is_end).count();
    let attempts = runs(events);
    if !attempts.iter().is_sorted_by(|one, other| one.attempt.epoch < other.attempt.epoch) {
        wrong("epochs do not increase".to_owned());
    }
    if attempts.iter().any(|run| run.attempt.outcome() == AttemptOutcome::Unspecified) {
        wrong("an attempt has no end".to_owned());
    }
    let successes: Vec<&Attempt> =
        attempts.iter().map(|run| &run.attempt).filter(|run| run.outcome() == AttemptOutcome::Succeeded).collect();
    match job.state() {
        JobState::Succeeded => {
            findings.succeeded += 1;
            if let Err(problem) = check_output(entry, job, successes.first().map(|run| run.epoch), objects) {
                wrong(problem);
            }
        }
        JobState::Failed if code(job) == ErrorCode::Poison => findings.poisoned += 1,
        JobState::Cancelled => findings.cancelled += 1,
        _ => wrong(format!("it ended as {:?} because of {:?}", job.state(), job.failure)),
    }
    if ends == 0 {
        findings.lost.push(format!("{} has no end", job.id));
    }
    if ends > 1 || successes.len() > 1 {
        findings.doubled.push(format!("{} ended {ends} times and succeeded {} times", job.id, successes.len()));
    }
    findings.attempts.extend(attempts);
}

fn is_final(state: JobState) -> bool {
    sortinghat_client::is_final(state)
}

fn code(job: &Job) -> ErrorCode {
    job.failure.as_ref().map_or(ErrorCode::Unspecified, |failure| failure.code())
}

/// The attempts in a history. An attempt that never ended has no outcome.
fn runs(events: &[JobEvent]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for event in events {
        match &event.event {
            Some(Event::AttemptStarted(attempt)) => {
                if let Some(last) = runs.last_mut() {
                    last.next_started_unix_ms = Some(event.time_unix_ms);
                }
                runs.push(Run { attempt: attempt.clone(), next_started_unix_ms: None });
            }
            Some(Event::AttemptEnded(attempt)) => {
                let of_epoch = |run: &&mut Run| run.attempt.epoch == attempt.epoch;
                runs.iter_mut().filter(of_epoch).for_each(|run| run.attempt = attempt.clone());
            }
            _ => {}
        }
    }
    runs
}

/// Checks that the manifest exists, matches its digest, and belongs to the attempt that succeeded.
fn check_output(entry: &Entry, job: &Job, epoch: Option<u64>, objects: &Path) -> Result<(), String> {
    let epoch = epoch.ok_or("it succeeded without an attempt that did")?;
    let manifest = job.output.as_ref().and_then(|output| output.manifest.as_ref()).ok_or("it has no manifest")?;
    let digest: Digest = manifest.digest.parse().map_err(|_| "its manifest has no digest")?;
    let path: PathBuf = objects.join(digest.object_key(&Tenant::local()));
    let content = fs::read(&path).map_err(|error| format!("its manifest {}: {error}", path.display()))?;
    if Digest::of(&content) != digest {
        return Err(format!("its manifest {} is not what its digest says", path.display()));
    }
    let task = format!("{}.0", job.id);
    if entry.sort == Sort::Simulated && !workforce::is_manifest_of(&content, &task, epoch) {
        return Err(format!("its manifest is another attempt's: {}", String::from_utf8_lossy(&content)));
    }
    Ok(())
}

/// Jobs that the coordinator knows and the ledger does not: a repeated submission has created a second job.
pub(crate) async fn strangers(client: &Client, known: &HashSet<String>) -> Result<(Vec<String>, Vec<String>), Failure> {
    let listed: HashSet<String> =
        list_all(client, &JobFilter::default()).await?.into_iter().map(|job| job.id).collect();
    let stranger = listed.difference(known).cloned().collect();
    let missing = known.difference(&listed).cloned().collect();
    Ok((stranger, missing))
}
