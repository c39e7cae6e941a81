//! A coordinator and a worker in a temporary folder, which can be killed and started again.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::{Bucket, Hat, Process, binary, lasting_address, wait_until};

/// The options of a deployment.
#[derive(Debug, Clone)]
pub struct Options {
    /// The duration of a lease, in the form of the coordinator's flag.
    pub lease_ttl: &'static str,
    /// The folder of pretrained weights.
    pub weights_dir: Option<PathBuf>,
    /// The time between two checkpoints of a training, in the form of the worker's flag.
    pub checkpoint_interval: &'static str,
    /// How many items of a job are one task; `None` for the coordinator's default.
    pub shard_items: Option<u32>,
    /// The bucket of all objects; `None` for a folder.
    pub bucket: Option<Bucket>,
    /// The programs that are run.
    pub programs: Programs,
    /// The servers of this machine that the worker may fetch from.
    pub web: Vec<SocketAddr>,
    /// Further arguments of the worker.
    pub worker_arguments: Vec<String>,
}

/// The programs of a deployment, which may be of two versions.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `sortinghat-coordinator`.
    pub coordinator: PathBuf,
    /// `sortinghat-worker`.
    pub worker: PathBuf,
    /// `hat`.
    pub hat: PathBuf,
}

impl Programs {
    /// Those in a folder.
    pub fn of(folder: &Path) -> Self {
        let [coordinator, worker, hat] =
            ["sortinghat-coordinator", "sortinghat-worker", "hat"].map(|name| folder.join(name));
        Self { coordinator, worker, hat }
    }
}

impl Default for Programs {
    /// Those that were built with the test.
    fn default() -> Self {
        Self::of(binary("hat").parent().expect("a program lies in a folder"))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease_ttl: "5s",
            weights_dir: None,
            checkpoint_interval: "30s",
            shard_items: None,
            bucket: None,
            programs: Programs::default(),
            web: Vec::new(),
            worker_arguments: Vec::new(),
        }
    }
}

/// A process that a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The coordinator.
    Coordinator,
    /// The worker. Its executor dies with it.
    Worker,
    /// Only the executor. The worker replaces it.
    Executor,
}

/// A running coordinator and its workers. They end when this is dropped.
#[derive(Debug)]
pub struct Deployment {
    // The processes come first, as they must end before the folder that they write into.
    /// Faults hit the first worker.
    workers: Vec<Process>,
    coordinator: Process,
    address: SocketAddr,
    options: Options,
    folder: TempDir,
}

impl Deployment {
    /// Starts a coordinator and a worker, and waits until the worker has an executor.
    pub fn start(options: Options) -> Self {
        let folder = TempDir::with_prefix("sortinghat-test-").expect("a temporary folder");
        let (coordinator, address) = start_with(folder.path(), &options, lasting_address());
        let workers = vec![start_worker(folder.path(), &options, address, 0)];
        let deployment = Self { folder, options, address, coordinator, workers };
        wait_until("the worker to be known", || deployment.workers[0].child());
        deployment
    }

    /// The command line, pointed at this coordinator.
    pub fn hat(&self) -> Hat {
        Hat::new(self.options.programs.hat.clone(), format!("http://{}", self.address), self.folder.path())
    }

    /// Starts one more worker, with its own cache.
    pub fn add_worker(&mut self) {
        self.workers.push(start_worker(self.folder.path(), &self.options, self.address, self.workers.len()));
    }

    /// Terminates the workers and then the coordinator, one after the other, and starts each again before the next one ends.
    ///
    /// # Panics
    /// If a process does not exit with success.
    pub fn roll(&mut self) {
        for number in 0..self.workers.len() {
            let ended = self.workers[number].terminate();
            assert!(ended.success(), "worker {number} drains: {ended}");
            self.workers[number] = start_worker(self.folder.path(), &self.options, self.address, number);
            wait_until("the new worker to have an executor", || self.workers[number].child());
        }
        let ended = self.coordinator.terminate();
        assert!(ended.success(), "the coordinator drains: {ended}");
        self.start_coordinator_again();
    }

    /// Starts the coordinator again. From now on it divides jobs with more items than this.
    pub fn divide_above(&mut self, shard_items: u32) {
        self.options.shard_items = Some(shard_items);
        self.kill_and_replace(Victim::Coordinator);
    }

    /// A folder for the test's own files, removed with the deployment.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address that the coordinator listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the victim with SIGKILL and starts it again at the same address or in the same folder. The worker itself replaces an executor.
    pub fn kill_and_replace(&mut self, victim: Victim) {
        match victim {
            Victim::Coordinator => {
                self.coordinator.kill();
                self.start_coordinator_again();
            }
            Victim::Worker => {
                self.workers[0].kill();
                self.start_worker_again();
            }
            Victim::Executor => self.signal_executor(Signal::SIGKILL),
        }
    }

    /// Sends a signal to the worker's executor.
    pub fn signal_executor(&self, signal: Signal) {
        let executor = self.workers[0].child().expect("an executor runs");
        kill(executor, signal).expect("the executor is ours");
    }

    fn start_coordinator_again(&mut self) {
        (self.coordinator, _) = start_with(self.folder.path(), &self.options, self.address);
    }

    /// Starts the first worker again after it has ended.
    pub fn start_worker_again(&mut self) {
        self.workers[0] = start_worker(self.folder.path(), &self.options, self.address, 0);
    }

    /// Terminates a process and returns whether it exited with 0.
    pub fn terminate(&mut self, victim: Victim) -> bool {
        let process = match victim {
            Victim::Coordinator => &mut self.coordinator,
            Victim::Worker => &mut self.workers[0],
            Victim::Executor => panic!("an executor ends with its worker"),
        };
        process.terminate().success()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["coordinator.log", "worker.log", "worker-2.log"] {
                let log = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                eprintln!("--- end of {name}");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Starts a coordinator, waits until it listens, and returns it with its address. `configure` adds further arguments to the command.
///
/// # Panics
/// If the coordinator does not listen within [`PATIENCE`](crate::PATIENCE).
pub fn start_coordinator(
    data_dir: &Path,
    listen: SocketAddr,
    log: &Path,
    configure: impl FnOnce(&mut Command),
) -> (Process, SocketAddr) {
    start_coordinator_of(&binary("sortinghat-coordinator"), data_dir, listen, log, configure)
}

/// The same with this program.
fn start_coordinator_of(
    program: &Path,
    data_dir: &Path,
    listen: SocketAddr,
    log: &Path,
    configure: impl FnOnce(&mut Command),
) -> (Process, SocketAddr) {
    let address_file = data_dir.join("coordinator.addr");
    // A coordinator that was killed has left this file behind.
    let _ = fs::remove_file(&address_file);
    let mut command = Command::new(program);
    command.args(["--listen", &listen.to_string(), "--data-dir"]).arg(data_dir);
    configure(&mut command);
    let process = Process::start(&mut command, log);
    let address = wait_until("the coordinator to write its address", || {
        fs::read_to_string(&address_file).ok()?.trim().parse().ok()
    });
    (process, address)
}

fn start_with(folder: &Path, options: &Options, listen: SocketAddr) -> (Process, SocketAddr) {
    let (data_dir, log) = (folder.join("coordinator"), folder.join("coordinator.log"));
    start_coordinator_of(&options.programs.coordinator, &data_dir, listen, &log, |command| {
        command.args(["--lease-ttl", options.lease_ttl]);
        command.args(options.shard_items.iter().flat_map(|items| ["--shard-items".to_owned(), items.to_string()]));
        give_object_store(command, folder, options);
    })
}

fn start_worker(folder: &Path, options: &Options, address: SocketAddr, number: usize) -> Process {
    let name = match number {
        0 => "worker".to_owned(),
        _ => format!("worker-{}", number + 1),
    };
    let mut command = Command::new(&options.programs.worker);
    command.arg("run").arg("--coordinator").arg(format!("http://{address}"));
    give_object_store(&mut command, folder, options);
    command.arg("--data-dir").arg(folder.join(&name)).args(["--device", "cpu", "--threads", "2"]);
    command.args(["--checkpoint-interval", options.checkpoint_interval]);
    if let Some(weights_dir) = &options.weights_dir {
        command.arg("--weights-dir").arg(weights_dir);
    }
    command.args(&options.worker_arguments);
    let web: Vec<String> = options.web.iter().map(ToString::to_string).collect();
    command.env("SORTINGHAT_TEST_FETCH_LOOPBACK", web.join(","));
    Process::start(&mut command, &folder.join(format!("{name}.log")))
}

/// Gives the coordinator and the worker the same object store: the bucket, or else a folder.
fn give_object_store(command: &mut Command, folder: &Path, options: &Options) {
    if let Some(bucket) = &options.bucket {
        bucket.give_to(command);
        return;
    }
    let objects = folder.join("objects");
    fs::create_dir_all(&objects).expect("the temporary folder is writable");
    command.arg("--object-store").arg(format!("file://{}", objects.display()));
}
