//! The session of the worker process with the coordinator: it reports what the worker is doing, hears what the worker should be doing,
//! and commands the slots.
//!
//! It computes nothing and waits for nothing but the network and its slots, so a training run cannot keep it from renewing a lease.
//! Leases are counted from the moment a request was *sent*, on this machine's monotonic clock; a slot whose lease is not
//! renewed in time kills its executor by itself.

mod cached;
mod complaint;
mod events;
mod gathering;
mod health;
mod link;
mod pace;
mod prover;
mod state;

use std::{env, error::Error as _, fs, io, mem, net::SocketAddr, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretBox};
use sortinghat_link::{LinkError, root_cause};
use sortinghat_objects::{ObjectStoreUrl, OpenError};
use sortinghat_pages::Probes;
use sortinghat_proto::{executor::v1::Ready, limits::SESSION_SECRET_BYTES, v1};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use url::Url;

use crate::{
    broker::{Broker, BrokerError, BrokerOptions},
    config::RunArgs,
    device::make_devices,
    executor::{ExecutorProgram, SlotCommand, SlotReport, Supervisor, remove_abandoned},
    memory, meters,
};
use cached::Cached;
use complaint::Complaint;
use link::{Link, TOKEN_VARIABLE};
use prover::{Folder, Prover};
use state::{Action, Exchange, State, Urgency};
use v1::{ErrorCode, task_outcome::Outcome};

/// The shortest time between two messages, should the coordinator answer each at once.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);
/// The pause after a failed exchange; doubled each time, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a shutdown may take to stop tasks and to have their return acknowledged; this is less than Kubernetes grants.
const DRAIN_BOUND: Duration = Duration::from_secs(25);
/// How long to wait for the answer to a farewell when no task is to be given back.
const FAREWELL_BOUND: Duration = Duration::from_millis(500);

/// Why a worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A connection to the coordinator cannot even be tried.
    #[error("coordinator {url}: {source}")]
    Link {
        /// Its address.
        url: Url,
        /// Why.
        source: LinkError,
    },
    /// The labels cannot be used.
    #[error("{0}")]
    Labels(String),
    /// The object store cannot be opened.
    #[error("failed to open the object store {url}: {source}")]
    Objects {
        /// As it was given.
        url: ObjectStoreUrl,
        /// Why.
        source: OpenError,
    },
    /// The store, the cache or the threads that use them are not to be had.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Something was asked for that only tests may ask for.
    #[error(
        "SORTINGHAT_TEST_FETCH_LOOPBACK is for tests on one machine: unset it, since this worker shows a token or talks to another machine"
    )]
    OnlyForTests,
    /// The pages for operators cannot be served.
    #[error("failed to serve the pages for operators on {address}: {source}")]
    Pages {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The first executor did not start, so none will.
    #[error("{0}")]
    NoExecutor(String),
}

/// Runs a worker until `shutdown` is cancelled and its tasks have been given back.
///
/// # Errors
/// [`SessionError`] if the worker cannot start. A coordinator that does not answer is no error: the worker tries again for ever.
pub async fn run(args: &RunArgs, shutdown: CancellationToken) -> Result<(), SessionError> {
    let probes = Probes::default();
    if let Some(address) = args.metrics_listen {
        meters::install(args.slots.get());
        let listener = TcpListener::bind(address).await.map_err(|source| SessionError::Pages { address, source })?;
        // They are served until the process ends, also while it drains.
        tokio::spawn(sortinghat_pages::serve(listener, probes.clone(), None, CancellationToken::new()));
    }
    let storage = &args.storage;
    let url = storage.object_store();
    let broker = Broker::open(&BrokerOptions {
        object_store: url.clone(),
        tenant_profiles: storage.tenant_profiles.clone(),
        cache_dir: storage.cache_dir(),
        cache_bytes: storage.cache_bytes.0,
        weights_dir: storage.weights_dir(),
        shows_hub_token: storage.share_hub_token,
        web: gathering::options(args, token().is_some())?,
    })?;
    make_devices(args.executor.compute.device);
    remove_abandoned(&storage.temporary_dir());
    let program = ExecutorProgram {
        // This very binary, even if the file was replaced by an update meanwhile.
        path: args.executor_program.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe")),
        arguments: args.executor.to_command_line(args.slots),
        temporary_dir: storage.temporary_dir(),
        scratch_bytes: storage.scratch_bytes.0,
        broker: Arc::new(broker),
    };
    let link = Link::new(args, token());
    let link = link.map_err(|source| SessionError::Link { url: args.coordinator.clone(), source })?;
    let folders = vec![
        Folder { what: "data folder", path: storage.temporary_dir() },
        Folder { what: "cache", path: storage.cache_dir() },
    ];
    let prover = Prover::start(&url, folders);
    let prover = prover.map_err(|source| SessionError::Objects { url, source })?;
    let (report_sender, reports) = mpsc::channel(256);
    let slots = (0..args.slots.get()).map(|slot| {
        let (sender, commands) = mpsc::unbounded_channel();
        let supervisor = Supervisor::new(slot, program.clone(), commands, report_sender.clone());
        tokio::spawn(supervisor.with_stall_bound(args.stall_bound.map(Into::into)).run());
        sender
    });
    let session = Session {
        link,
        slots: slots.collect(),
        reports,
        state: State::new(args.slots.get()),
        cached: Cached::new(args.slots.get()),
        prover,
        identity: Identity::new(args).map_err(SessionError::Labels)?,
        complaint: Complaint::default(),
        probes,
        shutdown,
        give_up_at: None,
        is_owed_an_answer: false,
        has_news: false,
    };
    session.run().await
}

/// The token that the environment holds.
fn token() -> Option<String> {
    env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())
}

/// Who this worker is.
#[derive(Debug)]
struct Identity {
    worker_id: String,
    /// By this the coordinators know that a message is this process's. Nobody else is ever told it.
    secret: SecretBox<[u8; SESSION_SECRET_BYTES]>,
    sequence: u64,
    description: v1::WorkerDescription,
}

impl Identity {
    fn new(args: &RunArgs) -> Result<Self, String> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let description = v1::WorkerDescription {
            host: host.trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: u32::try_from(args.slots.get()).unwrap_or(u32::MAX),
            memory_bytes: memory::limit_bytes().unwrap_or(0),
            labels: args.labels()?,
            ..v1::WorkerDescription::default()
        };
        let worker_id = format!("w{:016x}", rand::random::<u64>());
        Ok(Self { worker_id, secret: SecretBox::new(Box::new(rand::random())), sequence: 0, description })
    }

    /// The executor knows the device; the worker never loads CUDA.
    fn learn(&mut self, ready: &Ready) {
        self.description.device.clone_from(&ready.device);
        self.description.device_reason.clone_from(&ready.device_reason);
        self.description.threads = ready.threads;
        self.description.device_memory_bytes = ready.device_memory_bytes;
        self.description.sandbox.clone_from(&ready.sandbox);
    }

    fn sign(&mut self, request: v1::SynchronizeRequest) -> v1::SynchronizeRequest {
        self.sequence += 1;
        v1::SynchronizeRequest {
            worker_id: self.worker_id.clone(),
            session_secret: self.secret.expose_secret().to_vec(),
            sequence: self.sequence,
            description: Some(self.description.clone()),
            ..request
        }
    }
}

#[derive(Debug)]
struct Session {
    link: Link,
    slots: Vec<mpsc::UnboundedSender<SlotCommand>>,
    reports: mpsc::Receiver<(usize, SlotReport)>,
    state: State,
    cached: Cached,
    prover: Prover,
    identity: Identity,
    complaint: Complaint,
    probes: Probes,
    shutdown: CancellationToken,
    /// When the worker ends at the latest; set while it drains.
    give_up_at: Option<Instant>,
    /// Whether the last message was abandoned because there was news, or failed. The next message then asks for an answer at once, and
    /// the session waits for that answer whatever else happens. Otherwise news that come faster than answers would keep every lease
    /// from being renewed.
    is_owed_an_answer: bool,
    /// Whether something has happened that the coordinator should hear of at once and that no message has reported.
    has_news: bool,
}

/// What may end a wait early, besides a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// Anything that the coordinator should hear of at once.
    News,
    /// Nothing.
    Never,
}

impl Session {
    async fn run(mut self) -> Result<(), SessionError> {
        self.wait_for_first_executor().await?;
        let mut pause = FIRST_PAUSE;
        while !self.is_over() {
            match self.exchange().await {
                Some(Ok(())) => {
                    self.complaint.answered();
                    pause = FIRST_PAUSE;
                }
                // The farewell has failed, but nobody waits for a worker that holds no lease.
                Some(Err(_)) if self.state.is_leaving() => break,
                Some(Err(status)) => {
                    self.complaint.failed(&status, &said(&status));
                    meters::exchange_failed();
                    self.wait(sleep(jittered(pause)), Wake::Never).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                // There is news. The next message reports it and replaces the one that was held.
                None => {}
            }
        }
        tracing::info!("the worker ends");
        Ok(())
    }

    /// Sends one message and takes its answer; `None` if something happened meanwhile that should be reported first.
    async fn exchange(&mut self) -> Option<Result<(), Status>> {
        // Reports that wait already go into the same message.
        while let Ok((slot, report)) = self.reports.try_recv() {
            self.hear(slot, report);
        }
        while let Some(proof) = self.prover.try_next() {
            self.state.prove(proof);
        }
        self.has_news = false;
        // An answer that comes at once is waited for: abandoning the message for newer news would only cost another message.
        let is_owed_an_answer = mem::replace(&mut self.is_owed_an_answer, true);
        let (patience, wake) = match is_owed_an_answer || self.state.has_end_to_report() {
            true => (Duration::ZERO, Wake::Never),
            false => (self.state.patience(), Wake::News),
        };
        let wait_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let request = v1::SynchronizeRequest { cached: self.cached.list(), wait_ms, ..self.state.request() };
        let request = self.identity.sign(request);
        // A lost connection must be noticed while there is time to renew over a new one.
        let spare = self.state.lease_ttl().unwrap_or_default() / 3;
        let bound = match self.state.is_leaving() {
            true => FAREWELL_BOUND,
            false => patience + spare.clamp(Duration::from_secs(1), Duration::from_secs(10)),
        };
        let sent_at = Instant::now();
        let link = self.link.clone();
        let answer = self.wait(async move { link.synchronize(request, bound).await }, wake).await?;
        match answer {
            Ok(response) => {
                self.is_owed_an_answer = false;
                let may_be_held = !patience.is_zero();
                let exchange = Exchange { sent_at, answered_at: Instant::now(), may_be_held };
                let actions = self.state.answer(response, exchange);
                self.act(actions);
                self.wait(sleep_until(sent_at + SHORTEST_INTERVAL), Wake::News).await;
                Some(Ok(()))
            }
            Err(status) => Some(Err(status)),
        }
    }

    /// Waits for `future` while it listens to the slots and for a shutdown; `None` if one of them ended the wait.
    async fn wait<T>(&mut self, future: impl Future<Output = T>, wake: Wake) -> Option<T> {
        let mut future = pin!(future);
        while !(self.has_news && wake == Wake::News) {
            let (give_up_at, end_of_wait) = (self.give_up_at, self.state.end_of_wait());
            tokio::select! {
                result = &mut future => return Some(result),
                Some((slot, report)) = self.reports.recv() => {
                    self.has_news |= self.hear(slot, report) == Urgency::Now;
                }
                proof = self.prover.next() => self.has_news |= self.state.prove(proof) == Urgency::Now,
                // A message that is held was sent as somebody whom the coordinator may not know for long.
                () = self.link.changed() => self.has_news = true,
                () = self.shutdown.cancelled(), if give_up_at.is_none() => {
                    self.drain();
                    return None;
                }
                () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => return None,
                () = sleep_until(end_of_wait.unwrap_or_else(Instant::now)), if end_of_wait.is_some() => {
                    self.state.give_overdue_back(Instant::now());
                    self.has_news = true;
                }
            }
        }
        None
    }

    fn hear(&mut self, slot: usize, report: SlotReport) -> Urgency {
        match &report {
            SlotReport::Ready(ready) => self.identity.learn(ready),
            SlotReport::Switched(took) => {
                tracing::info!(slot, ?took, "the executor was replaced, since it may not run the task");
                self.identity.description.tenant_switch_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
            }
            SlotReport::Ended { outcome, .. } => {
                self.cached.ended(slot, outcome);
                if is_fault_of_storage(outcome) {
                    self.state.doubt();
                    self.prover.doubt();
                }
            }
            SlotReport::CannotStart(_) | SlotReport::Lost | SlotReport::Progress(_) | SlotReport::Event(_) => {}
        }
        let now = Instant::now();
        let urgency = self.state.report(slot, report, now);
        let actions = self.state.start_waiting(now);
        self.act(actions);
        urgency
    }

    /// Waits until the first executor is ready. If it cannot start, perhaps because the device cannot be used, the worker ends instead
    /// of trying for ever.
    async fn wait_for_first_executor(&mut self) -> Result<(), SessionError> {
        tokio::select! {
            Some((slot, report)) = self.reports.recv() => {
                if let SlotReport::CannotStart(reason) = report {
                    return Err(SessionError::NoExecutor(reason));
                }
                self.hear(slot, report);
                self.probes.started();
            }
            () = self.shutdown.cancelled() => self.drain(),
        }
        Ok(())
    }

    fn drain(&mut self) {
        self.probes.leaving();
        tracing::info!("shutting down: running tasks are handed back");
        self.give_up_at = Some(Instant::now() + DRAIN_BOUND);
        let actions = self.state.drain();
        self.act(actions);
    }

    fn is_over(&self) -> bool {
        if self.give_up_at.is_some_and(|end| end <= Instant::now()) {
            tracing::warn!("the coordinator did not acknowledge in time; the leases will expire");
            return true;
        }
        self.state.is_done()
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let (slot, command) = match action {
                Action::Start { slot, assignment, lease_end } => {
                    tracing::info!(slot, task = assignment.task_id, epoch = assignment.epoch, "task taken");
                    self.cached.started(slot, &assignment);
                    meters::claimed(&assignment);
                    (slot, SlotCommand::Start { assignment, lease_end })
                }
                Action::Renew { slot, lease_end } => (slot, SlotCommand::Renew { lease_end }),
                Action::Cancel { slot } => (slot, SlotCommand::Cancel),
                Action::HandBack { slot } => (slot, SlotCommand::HandBack),
            };
            self.slots[slot].send(command).expect("a supervisor lives as long as its session");
        }
        self.prover.set_busy(self.state.is_busy());
    }
}

/// Whether a task has failed because of the object store or of a disk, so that the worker has to prove again that it can work.
fn is_fault_of_storage(outcome: &Outcome) -> bool {
    let Outcome::Failed(failure) = outcome else { return false };
    matches!(
        failure.code(),
        ErrorCode::StorageUnavailable
            | ErrorCode::StorageUnusable
            | ErrorCode::CorruptObject
            | ErrorCode::ResourceExhausted
    )
}

/// Why there is no answer: what the coordinator says, or else what broke the connection.
fn said(status: &Status) -> String {
    match status.source() {
        Some(_) => root_cause(status),
        None => status.message().to_owned(),
    }
}

/// Between half of `pause` and all of it, so that many workers do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests;
