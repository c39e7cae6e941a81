//! Starts the coordinator and a worker, keeps them running, and drains them in order.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use sortinghat_client::{Client, Endpoint};
use tokio::{
    process::{Child, Command},
    time::Instant,
};
use url::Url;

use super::{
    binaries::{self, COORDINATOR, WORKER},
    data_dir::DataDir,
    process::ProcessMark,
    record::Record,
};
use crate::{failure::Failure, show::worker};

const DEFAULT_LISTEN: &str = "127.0.0.1:7878";
const POLL: Duration = Duration::from_millis(50);
/// Loading libtorch from a cold disk takes a while.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// A worker that has started proves within this time that it can work, or says why it cannot.
const PROOF_PATIENCE: Duration = Duration::from_secs(30);
/// Within this time a worker gives back its tasks, or a coordinator finishes the calls in flight.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// After more ends than this within [`CRASH_WINDOW`], a restart does not help.
const MAX_CRASHES: usize = 5;
const CRASH_WINDOW: Duration = Duration::from_secs(60);
const LOG_TAIL_LINES: usize = 8;

/// The options of `hat up`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) device: String,
    pub(crate) weights_dir: Option<PathBuf>,
}

/// A running coordinator and a running worker.
pub(crate) struct Supervisor {
    data_dir: DataDir,
    settings: Settings,
    address: SocketAddr,
    coordinator: Child,
    worker: Child,
    crashes: Vec<Instant>,
}

impl Supervisor {
    /// Starts both and waits until the coordinator answers and knows the worker. If that fails, neither is left running.
    pub(crate) async fn start(data_dir: DataDir, settings: Settings) -> Result<Self, Failure> {
        stop_leftovers(&data_dir).await;
        let listen = choose_address(settings.listen);
        let mut coordinator = spawn_coordinator(&data_dir, listen)?;
        let address = wait_for_address(&data_dir, &mut coordinator).await?;
        let worker = spawn_worker(&data_dir, &settings, address)?;
        let mut supervisor = Self { data_dir, settings, address, coordinator, worker, crashes: Vec::new() };
        match supervisor.wait_for_worker().await {
            Ok(()) => {
                // Without the record, no other command would find the server.
                supervisor.record().write(&supervisor.data_dir)?;
                Ok(supervisor)
            }
            Err(failure) => {
                supervisor.drain().await?;
                Err(failure)
            }
        }
    }

    /// The record of both for the other commands.
    pub(crate) fn record(&self) -> Record {
        let mark = |child: &Child| child.id().and_then(|pid| ProcessMark::of(pid).ok());
        Record {
            url: format!("http://{}", self.address),
            hat: ProcessMark::of(std::process::id()).expect("this process runs"),
            children: [&self.coordinator, &self.worker].into_iter().filter_map(mark).collect(),
            device: Some(self.settings.device.clone()),
            weights_dir: self.settings.weights_dir.clone(),
        }
    }

    /// Restarts each process that ends by itself, and calls `tell` with what happened. Returns once a restart does not help.
    pub(crate) async fn keep_running(&mut self, tell: impl Fn(&str)) -> Failure {
        loop {
            let (name, status) = tokio::select! {
                status = self.coordinator.wait() => (COORDINATOR, status),
                status = self.worker.wait() => (WORKER, status),
            };
            let ended = ended(name, status.ok());
            self.crashes.retain(|crash| crash.elapsed() < CRASH_WINDOW);
            self.crashes.push(Instant::now());
            if self.crashes.len() > MAX_CRASHES {
                return Failure::local(format!(
                    "{ended} too often; the end of its log:\n{}",
                    log_tail(&self.data_dir, name)
                ));
            }
            tell(&format!("{ended}; starting it again"));
            tokio::time::sleep(RESTART_PAUSE).await;
            self.start_again(name, &tell).await;
            if let Err(failure) = self.record().write(&self.data_dir) {
                tell(&format!("{failure}: until that is mended, `hat down` does not find the new process"));
            }
        }
    }

    /// Starts a process again. A program that is gone, perhaps for the moment of an update, is waited for, since the other process works
    /// on.
    async fn start_again(&mut self, name: &str, tell: impl Fn(&str)) {
        let mut told = None;
        loop {
            let restarted = match name {
                COORDINATOR => spawn_coordinator(&self.data_dir, self.address).map(|child| self.coordinator = child),
                _ => spawn_worker(&self.data_dir, &self.settings, self.address).map(|child| self.worker = child),
            };
            let Err(failure) = restarted else { return };
            let failure = failure.to_string();
            if told.as_ref() != Some(&failure) {
                tell(&format!("{failure}; it is tried again until it starts"));
                told = Some(failure);
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Ends the worker, which gives its tasks back, and then the coordinator.
    pub(crate) async fn drain(&mut self) -> Result<(), Failure> {
        for child in [&mut self.worker, &mut self.coordinator] {
            if let Some(mark) = child.id().and_then(|pid| ProcessMark::of(pid).ok()) {
                mark.stop(DRAIN_PATIENCE).await;
            }
            // It does not matter how the process ended.
            let _ = child.wait().await;
        }
        Record::remove(&self.data_dir)
    }

    async fn wait_for_worker(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            check_alive(&self.data_dir, COORDINATOR, &mut self.coordinator)?;
            check_alive(&self.data_dir, WORKER, &mut self.worker)?;
            let endpoint = Endpoint::local(format!("http://{}", self.address));
            if let Ok(client) = Client::connect_within(endpoint, Duration::ZERO).await
                && let Some(worker) = client.list_workers().await.ok().and_then(|workers| workers.into_iter().next())
            {
                match worker::trouble(&worker) {
                    None => return Ok(()),
                    // The worker may still be about to prove that it can work.
                    Some(trouble) if start.elapsed() > PROOF_PATIENCE => return Err(Failure::local(trouble)),
                    Some(_) => {}
                }
            }
            if start.elapsed() > START_PATIENCE {
                let tail = log_tail(&self.data_dir, WORKER);
                return Err(Failure::local(format!(
                    "the worker did not connect to the coordinator; the end of its log:\n{tail}"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Stops the processes that a killed `hat up` has left behind.
async fn stop_leftovers(data_dir: &DataDir) {
    let Some(record) = Record::read(data_dir) else { return };
    for child in record.children.iter().rev() {
        child.stop(DRAIN_PATIENCE).await;
    }
}

/// The address that was asked for, else the usual one, or one with a free port if the usual port is taken.
fn choose_address(listen: Option<SocketAddr>) -> SocketAddr {
    let usual: SocketAddr = DEFAULT_LISTEN.parse().expect("an address");
    listen.unwrap_or_else(|| match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::new(usual.ip(), 0),
    })
}

fn spawn_coordinator(data_dir: &DataDir, listen: SocketAddr) -> Result<Child, Failure> {
    // The address of a former run would be taken for the address of this one.
    let _ = fs::remove_file(data_dir.coordinator_address());
    let mut command = Command::new(binaries::find(COORDINATOR)?);
    command.arg("--listen").arg(listen.to_string()).arg("--object-store").arg(object_store(data_dir).as_str());
    command.arg("--data-dir").arg(data_dir.coordinator());
    spawn(command, data_dir, COORDINATOR)
}

fn spawn_worker(data_dir: &DataDir, settings: &Settings, address: SocketAddr) -> Result<Child, Failure> {
    let mut command = Command::new(binaries::find(WORKER)?);
    command.arg("run").arg("--coordinator").arg(format!("http://{address}"));
    command.arg("--object-store").arg(object_store(data_dir).as_str());
    command.arg("--data-dir").arg(data_dir.worker()).arg("--device").arg(&settings.device);
    // Whoever submits jobs here is who started this.
    command.arg("--share-hub-token");
    if let Some(weights_dir) = &settings.weights_dir {
        command.arg("--weights-dir").arg(weights_dir);
    }
    spawn(command, data_dir, WORKER)
}

/// Starts a process in a process group of its own, so that Ctrl-C reaches only `hat up`, which then drains in order. It starts in the
/// data folder, since the folder in which `hat up` was started may go away.
fn spawn(mut command: Command, data_dir: &DataDir, name: &str) -> Result<Child, Failure> {
    let path = log_path(data_dir, name);
    // A log that a full disk does not take is no reason to stop.
    let log = || File::options().create(true).append(true).open(&path).map_or_else(|_| Stdio::null(), Stdio::from);
    command
        .current_dir(data_dir.path())
        .stdin(Stdio::null())
        .stdout(log())
        .stderr(log())
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().map_err(Failure::file("start", name))
}

async fn wait_for_address(data_dir: &DataDir, coordinator: &mut Child) -> Result<SocketAddr, Failure> {
    let start = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(data_dir.coordinator_address())
            && let Ok(address) = text.trim().parse()
        {
            return Ok(address);
        }
        check_alive(data_dir, COORDINATOR, coordinator)?;
        if start.elapsed() > START_PATIENCE {
            // It has never served, so there is nothing to drain.
            let _ = coordinator.kill().await;
            let tail = log_tail(data_dir, COORDINATOR);
            return Err(Failure::local(format!("the coordinator did not start; the end of its log:\n{tail}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn check_alive(data_dir: &DataDir, name: &str, child: &mut Child) -> Result<(), Failure> {
    match child.try_wait() {
        Ok(None) => Ok(()),
        status => {
            let (ended, tail) = (ended(name, status.ok().flatten()), log_tail(data_dir, name));
            Err(Failure::local(format!("{ended} while starting; the end of its log:\n{tail}")))
        }
    }
}

fn ended(name: &str, status: Option<ExitStatus>) -> String {
    status.map_or_else(|| format!("{name} ended"), |status| format!("{name} ended ({status})"))
}

fn log_path(data_dir: &DataDir, name: &str) -> PathBuf {
    data_dir.logs().join(format!("{}.log", name.trim_start_matches("sortinghat-")))
}

fn log_tail(data_dir: &DataDir, name: &str) -> String {
    let path = log_path(data_dir, name);
    let log = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].iter().map(|line| format!("  {line}\n"));
    format!("{}  (all of it: {})", tail.collect::<String>(), path.display())
}

/// The folder of objects as a URL.
pub(crate) fn object_store(data_dir: &DataDir) -> Url {
    Url::from_directory_path(data_dir.objects()).expect("the data folder's path is absolute")
}
