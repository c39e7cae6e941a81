//! One run: rounds of faults and jobs, each of which ends with a check.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use sortinghat_client::JobFilter;
use sortinghat_proto::v1::{AttemptOutcome, JobState};
use sortinghat_tests::{Dice, Proxy, Weather};

use crate::{
    Failure, PATIENCE,
    check::{self, Findings},
    cluster::{Cluster, LEASE, REAL_WORKERS},
    faults::{Abilities, BusyDisk, Fault, Sabotage, allow_writing, forbid_writing},
    jobs::{Jobs, Sort, list_all},
    settings::{Progress, Round, Settings},
    watching::Vigil,
    workforce::{SIMULATED_WORKERS, Workforce},
};

/// A chain of four real jobs is submitted at every third step.
const STEPS_PER_CHAIN: u32 = 3;
/// How long after a worker's death nothing else goes wrong, so that the time to run again is that of this fault alone.
const AFTER_DEATH: Duration = Duration::from_millis(LEASE.as_millis() as u64 + 2_000);

/// A run in progress.
pub(crate) struct Run {
    seed: u64,
    able: Abilities,
    folder: PathBuf,
    cluster: Cluster,
    workforce: Workforce,
    jobs: Jobs,
    dice: Dice,
    /// Deaths of workers in this round: when, in milliseconds since 1970 UTC, and who; `None` for one with an executor.
    deaths: Vec<(i64, Option<String>)>,
}

impl Run {
    pub(crate) async fn start(settings: &Settings, able: Abilities, folder: &Path) -> Result<Self, Failure> {
        let cluster = Cluster::start(folder, settings.store).await?;
        let started = unix_ms().unsigned_abs();
        let workforce = Workforce::start(cluster.roads.simulated.address(), cluster.objects(), started);
        let jobs = Jobs::prepare(cluster.roads.clients.address(), folder, settings.seed).await?;
        let mut run = Self {
            seed: settings.seed,
            able,
            folder: folder.to_owned(),
            cluster,
            workforce,
            jobs,
            dice: Dice::new(settings.seed),
            deaths: Vec::new(),
        };
        run.remember_ids()?;
        Ok(run)
    }

    /// Faults with jobs beside them, then peace, then the check.
    pub(crate) async fn round(&mut self, round: Round, progress: &mut Progress) -> Result<(), Failure> {
        self.jobs.begin(round);
        self.dice = Dice::of(self.seed, "strikes", u64::from(round.number));
        self.deaths.clear();
        let stale_before = self.cluster.total("sortinghat_stale_completions_total");
        let faults = Fault::deal(self.seed, round.number, round.faults, self.able);
        for (step, fault) in (0..).zip(&faults) {
            println!("round {} fault {}/{}: {fault}", round.number + 1, step + 1, faults.len());
            self.step(step, *fault, round, progress).await?;
        }
        self.all_ended().await?;
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
        self.account(&findings, round, progress);
        progress.stale_completions += self.cluster.total("sortinghat_stale_completions_total") - stale_before;
        self.remember_ids()
    }

    /// One fault, with its share of the round's jobs beside it.
    async fn step(&mut self, step: u32, fault: Fault, round: Round, progress: &mut Progress) -> Result<(), Failure> {
        let share = round.jobs / round.faults + u32::from(step < round.jobs % round.faults);
        let mut left = share;
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
        let Self { jobs, cluster, workforce, deaths, dice, folder, .. } = self;
        let mut strike = Strike { cluster, workforce, deaths, dice, folder, progress };
        let (struck, submitted) = tokio::join!(strike.happen(fault), jobs.submit_simulated(step, left));
        submitted?;
        let healed = struck?;
        if let Some(vigil) = vigil {
            let heard = vigil.end().await?;
            progress.recovery.outage_end_to_watch_resumed.add(heard.saturating_duration_since(healed));
        }
        progress.faults += 1;
        Ok(())
    }

    /// Waits until no job waits or runs, for as long as there are fewer and fewer of them.
    async fn all_ended(&mut self) -> Result<(), Failure> {
        let states = vec![JobState::Blocked, JobState::Queued, JobState::Running];
        let open = JobFilter { states, kind: None };
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

    /// Every submission again: the same keys must name the same jobs.
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
            let died = self.deaths.iter().find(|(at, worker)| died_of(&run.attempt, *at, worker.as_deref()));
            if let (Some((at, _)), Some(next)) = (died, run.next_started_unix_ms) {
                progress.recovery.worker_death_to_running.add_ms((next - at).unsigned_abs());
            }
        }
    }

    /// Keeps the ids of this round's jobs: the last check asks for those of all rounds.
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
        let (strangers, missing) = check::strangers(&self.jobs.client, &known).await?;
        if !missing.is_empty() {
            return Err(format!("{} acknowledged jobs are lost: {missing:?}", missing.len()).into());
        }
        if !strangers.is_empty() {
            return Err(format!("{} jobs were doubled: {strangers:?}", strangers.len()).into());
        }
        Ok(())
    }
}

fn unix_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(elapsed.as_millis()).expect("it is earlier than the year 292277026")
}

/// Whether an attempt was lost by the death of its worker at this time.
fn died_of(attempt: &sortinghat_proto::v1::Attempt, at: i64, worker: Option<&str>) -> bool {
    let is_worker = match worker {
        Some(worker) => attempt.worker_id == worker,
        None => attempt.host != "simulated",
    };
    let until = at + i64::try_from(AFTER_DEATH.as_millis()).expect("some seconds");
    is_worker
        && attempt.outcome() == AttemptOutcome::Lost
        && attempt.started_unix_ms <= at
        && (at..until).contains(&attempt.finished_unix_ms)
}

/// One fault happening.
struct Strike<'a> {
    cluster: &'a mut Cluster,
    workforce: &'a mut Workforce,
    deaths: &'a mut Vec<(i64, Option<String>)>,
    dice: &'a mut Dice,
    folder: &'a Path,
    progress: &'a mut Progress,
}

impl Strike<'_> {
    /// Lets a fault happen and heals it; returns when it was healed.
    async fn happen(&mut self, fault: Fault) -> Result<Instant, Failure> {
        let simulated = self.dice.below(SIMULATED_WORKERS as u64) as usize;
        let worker = self.dice.below(REAL_WORKERS as u64) as usize;
        let coordinator = self.dice.below(self.cluster.coordinators.len() as u64) as usize;
        // Under way, so that there is something to break.
        self.live_for_ms(100..=400).await;
        match fault {
            Fault::KillWorker => return self.kill_worker(worker).await,
            Fault::KillSimulated => {
                let killed = self.workforce.kill(simulated);
                self.deaths.push((unix_ms(), Some(killed)));
                self.cluster.live_for(AFTER_DEATH).await;
            }
            Fault::KillExecutor => self.cluster.workers[worker].kill_executor(),
            Fault::ReplaceWorker => {
                if !tokio::task::block_in_place(|| self.cluster.workers[worker].terminate()) {
                    return Err("a worker did not drain".into());
                }
                self.cluster.start_worker(worker);
            }
            Fault::KillCoordinator => return self.kill_coordinator(coordinator).await,
            Fault::ReplaceCoordinator => {
                if !tokio::task::block_in_place(|| self.cluster.coordinators[coordinator].terminate()) {
                    return Err("a coordinator did not drain".into());
                }
                return self.start_coordinator(coordinator).await;
            }
            Fault::StopWorker => {
                self.cluster.workers[worker].signal(Signal::SIGSTOP);
                self.past_leases().await;
                self.cluster.workers[worker].signal(Signal::SIGCONT);
            }
            Fault::StopSimulated => {
                self.workforce.freeze(simulated);
                self.past_leases().await;
                self.workforce.thaw(simulated);
            }
            Fault::StopCoordinator => {
                self.cluster.coordinators[coordinator].signal(Signal::SIGSTOP);
                self.past_leases().await;
                self.cluster.coordinators[coordinator].signal(Signal::SIGCONT);
            }
            Fault::PartitionWorkers => self.weather(Weather::Partition, |roads| vec![&roads.workers]).await,
            Fault::PartitionSimulated => self.weather(Weather::Partition, |roads| vec![&roads.simulated]).await,
            Fault::PartitionClients => self.weather(Weather::Partition, |roads| vec![&roads.clients]).await,
            Fault::HalfOpenSimulated => self.weather(Weather::HalfOpen, |roads| vec![&roads.simulated]).await,
            Fault::HalfOpenClients => self.weather(Weather::HalfOpen, |roads| vec![&roads.clients]).await,
            Fault::SlowNetwork => {
                let delay = Duration::from_millis(self.dice.within(20..=200));
                self.weather(Weather::Slow(delay), |roads| roads.all().to_vec()).await;
            }
            Fault::ResetConnections => self.cluster.roads.all().iter().for_each(|road| road.reset()),
            Fault::ReadOnlyObjects => {
                forbid_writing(&self.cluster.objects())?;
                self.live_for_ms(500..=2_500).await;
                allow_writing(&self.cluster.objects())?;
            }
            Fault::NoSpace => self.sabotage(coordinator, "pwrite64,write,ftruncate,fallocate", "ENOSPC").await,
            Fault::FailingSync => self.sabotage(coordinator, "fsync,fdatasync", "EIO").await,
        }
        Ok(Instant::now())
    }

    async fn kill_worker(&mut self, worker: usize) -> Result<Instant, Failure> {
        self.cluster.workers[worker].kill();
        self.deaths.push((unix_ms(), None));
        self.live_for_ms(0..=200).await;
        self.cluster.start_worker(worker);
        self.cluster.live_for(AFTER_DEATH).await;
        Ok(Instant::now())
    }

    async fn kill_coordinator(&mut self, coordinator: usize) -> Result<Instant, Failure> {
        let _busy = BusyDisk::start(self.folder);
        self.live_for_ms(100..=500).await;
        self.cluster.coordinators[coordinator].kill();
        self.live_for_ms(0..=700).await;
        self.start_coordinator(coordinator).await
    }

    async fn start_coordinator(&mut self, coordinator: usize) -> Result<Instant, Failure> {
        let took = self.cluster.start_coordinator(coordinator).await?;
        self.progress.recovery.coordinator_start_to_serving.add(took);
        Ok(Instant::now())
    }

    async fn weather(&mut self, weather: Weather, roads: impl Fn(&crate::cluster::Roads) -> Vec<&Proxy>) {
        roads(&self.cluster.roads).iter().for_each(|road| road.set(weather));
        self.live_for_ms(300..=3_500).await;
        roads(&self.cluster.roads).iter().for_each(|road| road.set(Weather::Clear));
    }

    async fn sabotage(&mut self, coordinator: usize, calls: &str, error: &str) {
        let Some(pid) = self.cluster.coordinators[coordinator].pid() else { return };
        let log = self.folder.join("strace.log");
        let sabotage = Sabotage::start(pid, &self.cluster.queue_file(), calls, error, &log);
        self.live_for_ms(500..=1_500).await;
        tokio::task::block_in_place(|| drop(sabotage));
    }

    async fn past_leases(&mut self) {
        let lease = LEASE.as_millis() as u64;
        self.live_for_ms(lease * 5 / 4..=lease * 2).await;
    }

    async fn live_for_ms(&mut self, ms: std::ops::RangeInclusive<u64>) {
        let ms = self.dice.within(ms);
        self.cluster.live_for(Duration::from_millis(ms)).await;
    }
}
