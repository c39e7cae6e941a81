//! One run: rounds of faults and jobs, each of which ends with a check.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sortinghat_client::JobFilter;
use sortinghat_proto::v1::{Attempt, AttemptOutcome, JobState};
use sortinghat_tests::{Dice, SIMULATED_HOST};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    Failure, PATIENCE,
    check::{self, Findings},
    cluster::{Cluster, LEASE, REAL_WORKERS},
    faults::{Abilities, Fault},
    jobs::{Jobs, Probe, Sort, list_all},
    rogue::Rogue,
    settings::{Progress, Round, Settings, StoreKind},
    strike::{AFTER_DEATH, Death, Strike},
    watching::Vigil,
    workforce::Workforce,
};

/// A chain of four real jobs is submitted at one step in this many.
const STEPS_PER_CHAIN: u32 = 3;
/// A size between that of a model's weights in this run and that of a checkpoint, which also holds the optimiser's moments, in bytes.
const LARGEST_WEIGHTS_BYTES: u64 = 25 << 20;
/// How often a coordinator is started again while a backlog waits.
const BACKLOG_RESTARTS: u32 = 5;

/// A run in progress.
pub(crate) struct Run {
    seed: u64,
    store: StoreKind,
    able: Abilities,
    folder: PathBuf,
    cluster: Cluster,
    workforce: Workforce,
    rogue: Rogue,
    jobs: Jobs,
    dice: Dice,
    /// The deaths of workers in this round.
    deaths: Vec<Death>,
}

impl Run {
    pub(crate) async fn start(settings: &Settings, able: Abilities, folder: &Path) -> Result<Self, Failure> {
        let cluster = Cluster::start(folder, settings.store, able.clock(folder)?).await?;
        let started = unix_ms().unsigned_abs();
        let workforce = Workforce::start(cluster.roads.simulated.address(), cluster.objects(), started);
        let rogue = Rogue::start(cluster.roads.simulated.address());
        let jobs = Jobs::prepare(cluster.roads.clients.address(), folder, settings.seed).await?;
        let mut run = Self {
            seed: settings.seed,
            store: settings.store,
            able,
            folder: folder.to_owned(),
            cluster,
            workforce,
            rogue,
            jobs,
            dice: Dice::new(settings.seed),
            deaths: Vec::new(),
        };
        run.remember_ids()?;
        Ok(run)
    }

    /// Runs one round: faults with jobs beside them, then a time without faults, then the check.
    pub(crate) async fn round(&mut self, round: Round, progress: &mut Progress) -> Result<(), Failure> {
        self.jobs.begin(round);
        self.dice = Dice::of(self.seed, "strikes", u64::from(round.number));
        self.deaths.clear();
        let stale_before = self.cluster.total("sortinghat_stale_completions_total");
        let possible = |fault: Fault| fault.concerns(self.store) && self.able.to_cause(fault);
        let faults = Fault::deal(self.seed, round.number, round.faults, possible);
        for (step, fault) in (0..).zip(&faults) {
            println!("round {} fault {}/{}: {fault}", round.number + 1, step + 1, faults.len());
            self.step(step, *fault, round, progress).await?;
        }
        self.all_ended().await?;
        self.replace_idle_workers(progress).await?;
        let findings = check::check(&self.jobs.client, &self.jobs.ledger, &self.cluster.objects()).await?;
        self.resubmit().await?;
        findings.print();
        if !findings.is_good() {
            return Err(format!("round {}: the check failed", round.number + 1).into());
        }
        let violations = self.cluster.total("sortinghat_invariant_violations_total");
        if violations > 0 {
            return Err(format!("the coordinators counted {violations} violations of invariants").into());
        }
        println!("{} forged messages of a rogue worker were refused so far, and none was taken", self.rogue.refused()?);
        self.remove_checkpoints()?;
        self.account(&findings, round, progress);
        progress.stale_completions += self.cluster.total("sortinghat_stale_completions_total") - stale_before;
        self.remember_ids()
    }

    /// Runs one fault, with its share of the round's jobs beside it.
    async fn step(&mut self, step: u32, fault: Fault, round: Round, progress: &mut Progress) -> Result<(), Failure> {
        let share = round.jobs / round.faults + u32::from(step < round.jobs % round.faults);
        // One job comes after the fault.
        let mut left = share - 1;
        if step.is_multiple_of(STEPS_PER_CHAIN) && left >= 4 {
            self.jobs.submit_real(step).await?;
            left -= 4;
        }
        let vigil = if fault.interrupts_clients() && left > 0 {
            left -= 1;
            let job = self.jobs.submit_endless(step).await?;
            Some(Vigil::begin(&self.jobs.client, job))
        } else {
            None
        };
        let deaths_before = self.deaths.len();
        let Self { jobs, cluster, workforce, deaths, dice, folder, .. } = self;
        let mut strike = Strike { cluster, workforce, deaths, dice, folder, progress };
        let (struck, submitted) = tokio::join!(strike.happen(fault), jobs.submit_simulated(step, left));
        submitted?;
        let healed = struck?;
        let probe = self.jobs.submit_probe(step).await?;
        self.deaths[deaths_before..].iter_mut().for_each(|death| death.at_unix_ms += probe.lead_ms);
        if let Some(next_start) = healed.next_start
            && let Some(started) = dispatched(next_start, &probe).await?
        {
            progress.recovery.redis_start_to_dispatching.add(started.saturating_duration_since(healed.at));
        }
        if let Some(vigil) = vigil {
            let heard = vigil.end().await?;
            progress.recovery.outage_end_to_watch_resumed.add(heard.saturating_duration_since(healed.at));
        }
        progress.faults += 1;
        Ok(())
    }

    /// Makes room for the next round: removes checkpoints, as every training has ended.
    fn remove_checkpoints(&self) -> Result<(), Failure> {
        let mut folders = vec![self.cluster.objects()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.len() > LARGEST_WEIGHTS_BYTES {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Measures how long idle workers take to end.
    async fn replace_idle_workers(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        for worker in 0..REAL_WORKERS {
            let took = self.cluster.workers[worker].terminate().await?;
            progress.recovery.idle_worker_sigterm_to_end.add(took);
            self.cluster.start_worker(worker);
        }
        Ok(())
    }

    /// Waits until no job waits or runs. Gives up when their number has not decreased for too long.
    async fn all_ended(&mut self) -> Result<(), Failure> {
        let states = vec![JobState::Blocked, JobState::Queued, JobState::Running];
        let open = JobFilter { states, ..JobFilter::default() };
        let mut fewest = usize::MAX;
        let mut deadline = Instant::now();
        loop {
            let jobs = list_all(&self.jobs.client, &open).await?;
            if jobs.is_empty() {
                return Ok(());
            }
            if jobs.len() < fewest {
                fewest = jobs.len();
                deadline = Instant::now() + PATIENCE;
            }
            if Instant::now() > deadline {
                let stuck: Vec<_> = jobs.iter().take(10).map(|job| format!("{} {:?}", job.id, job.state())).collect();
                let stuck = stuck.join(", ");
                return Err(format!("everything is healed, and yet {} jobs do not end: {stuck}", jobs.len()).into());
            }
            self.cluster.live_for(Duration::from_millis(200)).await;
        }
    }

    /// Repeats every submission: the same keys must name the same jobs.
    async fn resubmit(&mut self) -> Result<(), Failure> {
        let again = self.jobs.submit_again().await?;
        let differ = self.jobs.ledger.iter().zip(&again).find(|(entry, id)| entry.id != **id);
        match differ {
            Some((entry, id)) => {
                let key = &entry.request.idempotency_key;
                Err(format!("submitted again, {key} became {id} and had been {}: doubled", entry.id).into())
            }
            None => Ok(()),
        }
    }

    fn account(&self, findings: &Findings, round: Round, progress: &mut Progress) {
        let real = self.jobs.ledger.iter().filter(|entry| entry.sort == Sort::Real).count() as u64;
        progress.rounds = round.number + 1;
        progress.real_jobs += real;
        progress.simulated_jobs += self.jobs.ledger.len() as u64 - real;
        progress.succeeded += findings.succeeded;
        progress.poisoned += findings.poisoned;
        progress.cancelled += findings.cancelled;
        progress.attempts += findings.attempts.len() as u64;
        for run in &findings.attempts {
            let death = self.deaths.iter().find(|death| died_of(&run.attempt, death));
            if let (Some(death), Some(next)) = (death, run.next_started_unix_ms) {
                progress.recovery.worker_death_to_running.add_ms((next - death.at_unix_ms).unsigned_abs());
            }
        }
    }

    /// Keeps the ids of this round's jobs, since the last check needs those of all rounds.
    fn remember_ids(&mut self) -> Result<(), Failure> {
        let mut file = fs::File::options().create(true).append(true).open(self.folder.join("ids"))?;
        for entry in &self.jobs.ledger {
            writeln!(file, "{}", entry.id)?;
        }
        Ok(file.sync_all()?)
    }

    /// Checks that the coordinators know exactly the acknowledged jobs of all rounds.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        let known: HashSet<String> = fs::read_to_string(self.folder.join("ids"))?.lines().map(str::to_owned).collect();
        if self.rogue.refused()? == 0 {
            return Err("the rogue worker has forged nothing, so this run shows nothing about it".into());
        }
        let (strangers, missing) = check::strangers(&self.jobs.client, &known).await?;
        if !missing.is_empty() {
            return Err(format!("{} acknowledged jobs are lost: {missing:?}", missing.len()).into());
        }
        if !strangers.is_empty() {
            return Err(format!("{} jobs were doubled: {strangers:?}", strangers.len()).into());
        }
        Ok(())
    }

    /// Kills and starts a coordinator while `backlog` jobs wait that no worker may take. This comes last, as these jobs are in no ledger.
    pub(crate) async fn restart_beside_backlog(
        &mut self,
        backlog: u32,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        if backlog == 0 {
            return Ok(());
        }
        println!("kill -9 of a coordinator with {backlog} tasks queued");
        self.jobs.submit_backlog(backlog).await?;
        for _ in 0..BACKLOG_RESTARTS {
            self.cluster.coordinators[0].kill();
            let took = self.cluster.start_coordinator(0).await?;
            progress.recovery.coordinator_start_beside_backlog.add(took);
        }
        Ok(())
    }

    /// Ends the run. Workers are terminated and not killed, as the executor of a killed worker may still write for a moment.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        for worker in &mut self.cluster.workers {
            worker.terminate().await?;
        }
        Ok(())
    }
}

/// Waits until a task is started after an outage, and returns the time.
async fn dispatched(next_start: JoinHandle<Instant>, probe: &Probe) -> Result<Option<Instant>, Failure> {
    // A probe that has ended was started before the wait, or it belongs to an earlier part of this run, and no worker starts it any more.
    let patience = if probe.has_ended { Duration::from_secs(1) } else { PATIENCE };
    let waiting = next_start.abort_handle();
    match tokio::time::timeout(patience, next_start).await {
        Ok(started) => Ok(Some(started.expect("nothing panics that waits for a start"))),
        Err(_) if probe.has_ended => {
            waiting.abort();
            Ok(None)
        }
        Err(_) => Err("nothing is dispatched after an outage".into()),
    }
}

/// The time of the machine's clock, in milliseconds since 1970 UTC.
pub(crate) fn unix_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the time of events is compared with this machine's clock")]
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(elapsed.as_millis()).expect("it is earlier than the year 292277026")
}

/// Whether an attempt was lost because its worker died.
fn died_of(attempt: &Attempt, death: &Death) -> bool {
    // No other fault happens in the meantime, and the effects of a later fault show only after a lease.
    let until = death.at_unix_ms + i64::try_from((AFTER_DEATH + LEASE).as_millis()).expect("some seconds");
    let is_worker = match &death.simulated {
        Some(worker) => attempt.worker_id == *worker,
        None => attempt.host != SIMULATED_HOST && attempt.finished_unix_ms < until,
    };
    is_worker
        && attempt.outcome() == AttemptOutcome::Lost
        && attempt.started_unix_ms <= death.at_unix_ms
        && death.at_unix_ms <= attempt.finished_unix_ms
}
