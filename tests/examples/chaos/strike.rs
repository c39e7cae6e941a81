//! One fault: how it is injected, and how it is healed.

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use sortinghat_tests::{Dice, Proxy, Weather};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    Failure,
    cluster::{Cluster, LEASE, REAL_WORKERS, Roads},
    faults::{BusyDisk, Fault, Sabotage, allow_writing, forbid_writing},
    run::unix_ms,
    settings::Progress,
    workforce::{SIMULATED_WORKERS, Workforce},
};

/// How long no other fault follows a worker's death, so that the time until its task runs again is due to this fault alone.
pub(crate) const AFTER_DEATH: Duration = Duration::from_millis(LEASE.as_millis() as u64 + 2_000);

/// How long a process that has written to a broken disk may take to end.
const AFTER_SABOTAGE: Duration = Duration::from_millis(200);

/// How far a clock is set from the right time: more than a lease, and less than the time budget of infrastructure failures.
const FARTHEST_JUMP_S: u64 = 300;

/// The death of a worker.
#[derive(Debug)]
pub(crate) struct Death {
    /// The queue's time of the death, in milliseconds since 1970 UTC.
    pub(crate) at_unix_ms: i64,
    /// The simulated worker; `None` for a worker with an executor.
    pub(crate) simulated: Option<String>,
}

/// The injection of one fault.
pub(crate) struct Strike<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) workforce: &'a mut Workforce,
    pub(crate) deaths: &'a mut Vec<Death>,
    pub(crate) dice: &'a mut Dice,
    pub(crate) folder: &'a Path,
    pub(crate) progress: &'a mut Progress,
}

/// The end of a fault.
pub(crate) struct Healed {
    pub(crate) at: Instant,
    /// Notices the first start of a task after the fault, if no task could start during it.
    pub(crate) next_start: Option<JoinHandle<Instant>>,
}

impl Healed {
    fn now() -> Self {
        Self { at: Instant::now(), next_start: None }
    }
}

impl Strike<'_> {
    /// Injects a fault and heals it.
    pub(crate) async fn happen(&mut self, fault: Fault) -> Result<Healed, Failure> {
        let simulated = self.dice.below(SIMULATED_WORKERS as u64) as usize;
        let worker = self.dice.below(REAL_WORKERS as u64) as usize;
        let coordinator = self.dice.below(self.cluster.coordinators.len() as u64) as usize;
        // Tasks are under way, so that there is something to break.
        self.live_for_ms(100..=400).await;
        match fault {
            Fault::KillWorker => return self.kill_worker(worker).await,
            Fault::KillSimulated => {
                let killed = self.workforce.kill(simulated);
                self.deaths.push(Death { at_unix_ms: unix_ms(), simulated: Some(killed) });
                self.cluster.live_for(AFTER_DEATH).await;
            }
            Fault::KillExecutor => self.cluster.workers[worker].kill_executor(),
            Fault::ReplaceWorker => {
                let took = self.cluster.workers[worker].terminate().await?;
                self.progress.recovery.busy_worker_sigterm_to_end.add(took);
                self.cluster.start_worker(worker);
            }
            Fault::KillCoordinator => return self.kill_coordinator(coordinator).await,
            Fault::ReplaceCoordinator => {
                self.cluster.coordinators[coordinator].terminate().await?;
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
            Fault::KillRedis => return self.kill_redis().await,
            Fault::PartitionRedis => self.weather(Weather::Partition, |roads| roads.redis.iter().collect()).await,
            Fault::JumpClock => return self.jump_clock(coordinator).await,
            Fault::NoSpace => self.sabotage("pwrite64,write,ftruncate,fallocate", "ENOSPC").await?,
            Fault::FailingSync => self.sabotage("fsync,fdatasync", "EIO").await?,
        }
        Ok(Healed::now())
    }

    async fn kill_worker(&mut self, worker: usize) -> Result<Healed, Failure> {
        self.cluster.workers[worker].kill();
        self.deaths.push(Death { at_unix_ms: unix_ms(), simulated: None });
        self.live_for_ms(0..=200).await;
        self.cluster.start_worker(worker);
        self.cluster.live_for(AFTER_DEATH).await;
        Ok(Healed::now())
    }

    async fn kill_coordinator(&mut self, coordinator: usize) -> Result<Healed, Failure> {
        let _busy = BusyDisk::start(self.folder);
        self.live_for_ms(100..=500).await;
        self.cluster.coordinators[coordinator].kill();
        self.live_for_ms(0..=700).await;
        self.start_coordinator(coordinator).await
    }

    async fn start_coordinator(&mut self, coordinator: usize) -> Result<Healed, Failure> {
        let took = self.cluster.start_coordinator(coordinator).await?;
        self.progress.recovery.coordinator_start_to_serving.add(took);
        Ok(Healed::now())
    }

    async fn kill_redis(&mut self) -> Result<Healed, Failure> {
        let _busy = BusyDisk::start(self.folder);
        self.live_for_ms(100..=500).await;
        let redis = self.cluster.redis.as_mut().expect("only a run over Redis has this fault");
        redis.kill();
        let down = Duration::from_millis(self.dice.within(0..=700));
        tokio::time::sleep(down).await;
        let healed = Healed { at: Instant::now(), next_start: Some(self.workforce.next_start()) };
        redis.restart().await?;
        Ok(healed)
    }

    async fn jump_clock(&mut self, coordinator: usize) -> Result<Healed, Failure> {
        let to_s = self.dice.within(0..=2 * FARTHEST_JUMP_S) as i64 - FARTHEST_JUMP_S as i64;
        let clock = self.cluster.clock.clone().expect("only a run with its own clock has this fault");
        if self.cluster.redis.is_some() {
            clock.set_s(to_s)?;
            return Ok(Healed::now());
        }
        self.cluster.coordinators[coordinator].kill();
        clock.set_s(to_s)?;
        self.start_coordinator(coordinator).await
    }

    async fn weather(&mut self, weather: Weather, roads: impl Fn(&Roads) -> Vec<&Proxy>) {
        roads(&self.cluster.roads).iter().for_each(|road| road.set(weather));
        self.live_for_ms(300..=3_500).await;
        roads(&self.cluster.roads).iter().for_each(|road| road.set(Weather::Clear));
    }

    async fn sabotage(&mut self, calls: &str, error: &str) -> Result<(), Failure> {
        let writer = self.cluster.writer()?.ok_or("nobody writes the queue")?;
        let sabotage = Sabotage::start(&writer, calls, error, &self.folder.join("strace.log"));
        self.live_for_ms(500..=1_500).await;
        tokio::task::block_in_place(|| drop(sabotage));
        // A process that has died of the fault at the last moment is started again before anything waits for it.
        self.cluster.live_for(AFTER_SABOTAGE).await;
        Ok(())
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
