//! The real binaries of a run: coordinators and workers, with proxies in front of the coordinators.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::Duration,
};

use nix::sys::signal::Signal;
use sortinghat_proto::v1::{ListJobsRequest, job_service_client::JobServiceClient};
use sortinghat_tests::{Process, Proxy, binary, lasting_address};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::{Failure, PATIENCE, clock::WallClock, meters::Meter, redis::Redis, settings::StoreKind};

/// The duration of a lease.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// How many workers with executors there are.
pub(crate) const REAL_WORKERS: usize = 2;
/// How often the run looks for processes that ended by themselves.
const SUPERVISION: Duration = Duration::from_millis(50);

/// All processes of a run.
pub(crate) struct Cluster {
    folder: PathBuf,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) workers: Vec<Worker>,
    /// The Redis; `None` if the queue is kept in a file.
    pub(crate) redis: Option<Redis>,
    pub(crate) roads: Roads,
    /// The clock of Redis and the coordinators; `None` if they have the machine's clock.
    pub(crate) clock: Option<Rc<WallClock>>,
}

/// The proxies in front of the coordinators, one for each kind of peer, and the proxy in front of Redis.
pub(crate) struct Roads {
    pub(crate) workers: Proxy,
    pub(crate) simulated: Proxy,
    pub(crate) clients: Proxy,
    pub(crate) redis: Option<Proxy>,
}

impl Roads {
    pub(crate) fn all(&self) -> Vec<&Proxy> {
        [&self.workers, &self.simulated, &self.clients].into_iter().chain(&self.redis).collect()
    }
}

/// The process that writes the queue's files, and the files.
pub(crate) struct Writer {
    pub(crate) pid: i32,
    pub(crate) files: Vec<PathBuf>,
}

/// A coordinator, which may be down.
pub(crate) struct Coordinator {
    name: String,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    process: Option<Process>,
    pub(crate) meter: Meter,
}

/// A worker with an executor, which may be down.
pub(crate) struct Worker {
    name: String,
    process: Option<Process>,
}

impl Cluster {
    pub(crate) async fn start(folder: &Path, store: StoreKind, clock: Option<WallClock>) -> Result<Self, Failure> {
        fs::create_dir_all(folder.join("objects"))?;
        let clock = clock.map(Rc::new);
        let (count, redis) = match store {
            StoreKind::Embedded => (1, None),
            StoreKind::Redis => (2, Some(Redis::start(folder.join("redis"), clock.clone()).await?)),
        };
        let coordinators = (0..count).map(|number| Coordinator::new(format!("coordinator-{number}")));
        let coordinators = coordinators.collect::<Result<Vec<_>, _>>()?;
        let upstreams: Vec<SocketAddr> = coordinators.iter().map(|coordinator| coordinator.address).collect();
        let roads = Roads {
            workers: Proxy::start(upstreams.clone()).await?,
            simulated: Proxy::start(upstreams.clone()).await?,
            clients: Proxy::start(upstreams).await?,
            redis: match &redis {
                Some(redis) => Some(Proxy::start(vec![redis.address]).await?),
                None => None,
            },
        };
        let workers = (0..REAL_WORKERS).map(|number| Worker { name: format!("worker-{number}"), process: None });
        let mut cluster =
            Self { folder: folder.to_owned(), coordinators, workers: workers.collect(), redis, roads, clock };
        for number in 0..cluster.coordinators.len() {
            cluster.start_coordinator(number).await?;
        }
        (0..REAL_WORKERS).for_each(|number| cluster.start_worker(number));
        Ok(cluster)
    }

    /// Starts a coordinator that is down, and returns how long it took until it served.
    pub(crate) async fn start_coordinator(&mut self, number: usize) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.spawn_coordinator(number);
        self.until_served(number).await?;
        Ok(started.elapsed())
    }

    fn spawn_coordinator(&mut self, number: usize) {
        let objects = objects_url(&self.folder);
        let coordinator = &mut self.coordinators[number];
        let mut command = Command::new(binary("sortinghat-coordinator"));
        command
            .args(["--listen", &coordinator.address.to_string()])
            .args(["--metrics-listen", &coordinator.metrics.to_string()])
            .args(["--lease-ttl", &format!("{}s", LEASE.as_secs())])
            .args(["--object-store", &objects])
            .arg("--data-dir")
            .arg(self.folder.join(&coordinator.name));
        if let Some(redis) = &self.roads.redis {
            command.args(["--store", &format!("redis://{}", redis.address())]);
        }
        self.clock.iter().for_each(|clock| clock.give_to(&mut command));
        let log = self.folder.join(format!("{}.log", coordinator.name));
        coordinator.process = Some(Process::start(&mut command, &log));
    }

    /// Waits until a coordinator answers a call that reads its store. A coordinator that ends by itself in the meantime, for example because
    /// its object store cannot be written to, is started again, as its supervisor would do.
    pub(crate) async fn until_served(&mut self, number: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if answers(self.coordinators[number].address).await {
                return Ok(());
            }
            self.supervise();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("{} does not serve", self.coordinators[number].name).into())
    }

    pub(crate) fn start_worker(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        let folder = self.folder.join(&worker.name);
        let mut command = Command::new(binary("sortinghat-worker"));
        command
            .args(["run", "--coordinator", &format!("http://{}", self.roads.workers.address())])
            .args(["--object-store", &objects_url(&self.folder), "--device", "cpu", "--threads", "1"])
            .arg("--data-dir")
            .arg(folder);
        let log = self.folder.join(format!("{}.log", worker.name));
        worker.process = Some(Process::start(&mut command, &log));
    }

    /// Lets time pass, and starts processes again that end by themselves.
    pub(crate) async fn live_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.supervise();
            tokio::time::sleep(SUPERVISION.min(duration)).await;
        }
    }

    /// Starts processes again that have ended by themselves, as systemd or Kubernetes would do.
    fn supervise(&mut self) {
        if let Some(redis) = &mut self.redis
            && has_ended(&mut redis.process)
        {
            println!("  Redis ended by itself and is started again");
            redis.spawn();
        }
        for number in 0..self.coordinators.len() {
            if has_ended(&mut self.coordinators[number].process) {
                println!("  {} ended by itself and is started again", self.coordinators[number].name);
                self.spawn_coordinator(number);
            }
        }
        for number in 0..self.workers.len() {
            if has_ended(&mut self.workers[number].process) {
                println!("  {} ended by itself and is started again", self.workers[number].name);
                self.start_worker(number);
            }
        }
    }

    /// The sum of a counter over all coordinators.
    pub(crate) fn total(&self, counter: &str) -> u64 {
        self.coordinators.iter().map(|coordinator| coordinator.meter.total(counter)).sum()
    }

    /// The process that writes the queue's files; `None` while it is down.
    pub(crate) fn writer(&self) -> Result<Option<Writer>, Failure> {
        let (process, files) = match &self.redis {
            Some(redis) => (&redis.process, redis.written_files()?),
            None => (&self.coordinators[0].process, vec![self.folder.join("coordinator-0/queue.redb")]),
        };
        Ok(process.as_ref().map(|process| Writer { pid: process.pid().as_raw(), files }))
    }

    /// The folder of objects.
    pub(crate) fn objects(&self) -> PathBuf {
        self.folder.join("objects")
    }
}

fn has_ended(process: &mut Option<Process>) -> bool {
    process.as_mut().is_some_and(|process| process.ended().is_some())
}

impl Coordinator {
    fn new(name: String) -> Result<Self, Failure> {
        let (address, metrics) = (lasting_address(), lasting_address());
        Ok(Self { name, address, metrics, process: None, meter: Meter::start(metrics) })
    }

    /// Kills the coordinator, which stays down until it is started.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the coordinator to stop and returns how long it took. It stays down until it is started.
    pub(crate) async fn terminate(&mut self) -> Result<Duration, Failure> {
        terminate(&self.name, self.process.take()).await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.iter().for_each(|process| process.signal(signal));
    }
}

impl Worker {
    /// Kills the worker together with its executor. It stays down until it is started.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the worker to drain and returns how long it took. It stays down until it is started.
    pub(crate) async fn terminate(&mut self) -> Result<Duration, Failure> {
        terminate(&self.name, self.process.take()).await
    }

    /// Sends a signal to the worker but not to its executor.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.iter().for_each(|process| process.signal(signal));
    }

    /// Kills only the worker's executor.
    pub(crate) fn kill_executor(&self) {
        if let Some(executor) = self.process.as_ref().and_then(Process::child) {
            // The executor may have ended already.
            let _ = nix::sys::signal::kill(executor, Signal::SIGKILL);
        }
    }
}

async fn terminate(name: &str, process: Option<Process>) -> Result<Duration, Failure> {
    let mut process = process.ok_or_else(|| format!("{name} is down already"))?;
    let asked = Instant::now();
    process.signal(Signal::SIGTERM);
    while asked.elapsed() < PATIENCE {
        match process.ended() {
            Some(status) if status.success() => return Ok(asked.elapsed()),
            Some(status) => return Err(format!("{name} did not drain: {status}").into()),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    Err(format!("{name} does not end within {} s of SIGTERM", PATIENCE.as_secs()).into())
}

fn objects_url(folder: &Path) -> String {
    format!("file://{}", folder.join("objects").display())
}

async fn answers(address: SocketAddr) -> bool {
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address makes a URL");
    let Ok(channel) = channel.connect().await else { return false };
    let request = ListJobsRequest { page_size: 1, ..ListJobsRequest::default() };
    let asked = tokio::time::timeout(Duration::from_secs(1), JobServiceClient::new(channel).list_jobs(request)).await;
    matches!(asked, Ok(Ok(_)))
}
