//! The one connection that commands share: made, checked, watched, and made again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, RedisError, RedisResult,
    ServerErrorKind, aio::MultiplexedConnection,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    RedisOptions,
    checks::{self, Identity},
    layout::{FORMAT_VERSION, Layout},
    writer,
};
use crate::store::{StoreError, clock::QueueTime};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reply may take; a sync on a busy disk takes a while.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command waits for a connection that is being made again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the connection is tried and the store's past compared with what was seen.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);
/// Health checks between two looks at the server's settings.
const HEALTH_CHECKS_PER_SETTINGS_CHECK: u32 = 30;
/// Pauses between two tries to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often a cluster may send us on to another node.
const MAX_REDIRECTIONS: usize = 4;

/// The greatest version and time that this process was told. They only grow.
#[derive(Debug, Default)]
pub(super) struct Seen {
    version: AtomicU64,
    time: Mutex<QueueTime>,
}

impl Seen {
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    pub(super) fn note_version(&self, version: u64) {
        self.version.fetch_max(version, Ordering::SeqCst);
    }

    pub(super) fn time_ms(&self) -> u64 {
        self.time().told_ms()
    }

    /// The time when the server's clock shows `clock_ms` and the greatest time that commits carried is `committed_ms`.
    pub(super) fn time_at(&self, clock_ms: u64, committed_ms: u64) -> u64 {
        let mut time = self.time();
        time.note_told(committed_ms);
        time.at(clock_ms)
    }

    fn time(&self) -> MutexGuard<'_, QueueTime> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection as commands see it.
#[derive(Clone)]
enum State {
    Up(Connection),
    Down(StoreError),
}

/// A connection that works as far as anybody knows.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    /// Counts connections, so that a late failure of an old one does not end the new one.
    number: u64,
}

/// Keeps a connection to a Redis that can be trusted.
pub(super) struct Link {
    options: RedisOptions,
    pub(super) layout: Layout,
    pub(super) seen: Seen,
    state: watch::Sender<State>,
}

impl Link {
    /// Connects for the first time. What cannot be reached, or still loads its file, is tried again for `patience`.
    pub(super) async fn open(options: RedisOptions, patience: Duration) -> Result<Arc<Self>, StoreError> {
        let layout = Layout::new(&options.deployment);
        let not_yet = StoreError::Unavailable { action: "connect", reason: "not tried yet".to_owned() };
        let link = Self { options, layout, seen: Seen::default(), state: watch::channel(State::Down(not_yet)).0 };
        let started = Instant::now();
        let mut pause = BACKOFF.0;
        loop {
            match link.connect().await {
                Ok(commands) => {
                    link.state.send_replace(State::Up(Connection { commands, number: 1 }));
                    return Ok(Arc::new(link));
                }
                Err(error @ StoreError::Unavailable { .. }) if started.elapsed() < patience => {
                    tracing::warn!(%error, "waiting for the queue's store");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Watches the connection and makes it again, for ever.
    pub(super) async fn run(&self) {
        let mut number = 1;
        loop {
            self.watch(number).await;
            number += 1;
            let commands = self.reconnect().await;
            self.state.send_replace(State::Up(Connection { commands, number }));
            metrics::counter!("sortinghat_store_reconnects_total").increment(1);
            tracing::info!("the queue's store answers again");
        }
    }

    /// The connection; if there is none, it is waited for, but not for long.
    pub(super) async fn connection(&self) -> Result<Connection, StoreError> {
        let mut state = self.state.subscribe();
        // The sender lives as long as this link; only time can run out.
        let _ = timeout(PATIENCE, state.wait_for(|state| matches!(state, State::Up(_)))).await;
        let state = state.borrow().clone();
        match state {
            State::Up(connection) => Ok(connection),
            State::Down(error) => Err(error),
        }
    }

    /// A command failed on this connection; makes a new one if that is the connection's or the server's fault. Returns what to tell
    /// the caller.
    pub(super) fn failed(&self, connection: &Connection, action: &'static str, error: &RedisError) -> StoreError {
        let failure = StoreError::Unavailable { action, reason: error.to_string() };
        if !is_one_commands_fault(error) {
            self.give_up(connection.number, failure.clone());
        }
        failure
    }

    /// A client for a connection of its own, with which hints are received.
    pub(super) fn client(&self) -> RedisResult<Client> {
        self.options.client(None)
    }

    fn give_up(&self, number: u64, error: StoreError) {
        self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Up(connection) if connection.number == number);
            if is_current {
                tracing::error!(%error, "lost the queue's store");
                *state = State::Down(error);
            }
            is_current
        });
    }

    /// Returns once the connection is given up.
    async fn watch(&self, number: u64) {
        let mut state = self.state.subscribe();
        let is_down = |state: &State| matches!(state, State::Down(_));
        for checks in 1_u32.. {
            if timeout(HEALTH_PERIOD, state.wait_for(is_down)).await.is_ok() {
                return;
            }
            let State::Up(mut connection) = state.borrow().clone() else { return };
            let mut result = self.check_past(&mut connection.commands).await;
            if result.is_ok()
                && checks.is_multiple_of(HEALTH_CHECKS_PER_SETTINGS_CHECK)
                && !self.options.allow_data_loss
            {
                result = checks::check_settings(&mut connection.commands).await;
            }
            if let Err(error) = result {
                self.give_up(number, error);
            }
        }
    }

    async fn reconnect(&self) -> MultiplexedConnection {
        let mut pause = BACKOFF.0;
        let mut last_error = String::new();
        loop {
            match self.connect().await {
                Ok(commands) => return commands,
                Err(error) => {
                    // The same reason is said once, not twice a second.
                    if error.to_string() != last_error {
                        last_error = error.to_string();
                        tracing::error!(%error, "the queue's store cannot be used");
                    }
                    self.state.send_replace(State::Down(error));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Connects, where a cluster sends us, and makes sure that this is a Redis to be trusted.
    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut address = None;
        for _ in 0..MAX_REDIRECTIONS {
            let mut connection = self.dial(address.take()).await.map_err(|error| checks::unreachable(&error))?;
            let probe: RedisResult<Option<u64>> =
                redis::cmd("GET").arg(self.layout.format()).query_async(&mut connection).await;
            match probe {
                Ok(format) => {
                    self.prepare(&mut connection, format).await?;
                    return Ok(connection);
                }
                Err(error) => match error.redirect_node() {
                    Some((node, _)) => address = Some(node.to_owned()),
                    None => return Err(checks::unreachable(&error)),
                },
            }
        }
        let reason = format!("the cluster sent us on {MAX_REDIRECTIONS} times");
        Err(StoreError::Unavailable { action: "connect", reason })
    }

    async fn dial(&self, address: Option<String>) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(PIPELINE_COMMANDS)
            .set_write_backpressure_boundary(WRITE_BUFFER_BYTES);
        self.options.client(address.as_deref())?.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn prepare(&self, connection: &mut MultiplexedConnection, format: Option<u64>) -> Result<(), StoreError> {
        let allow_data_loss = self.options.allow_data_loss;
        let identity = Identity::of(connection).await.map_err(|error| checks::unreachable(&error))?;
        identity.check(allow_data_loss)?;
        if !allow_data_loss {
            checks::check_settings(connection).await?;
        }
        self.check_past(connection).await?;
        tracing::debug!(run_id = identity.run_id, "the queue's store was checked");
        match format {
            None => redis::cmd("SET")
                .arg(self.layout.format())
                .arg(FORMAT_VERSION)
                .arg("NX")
                .exec_async(connection)
                .await
                .map_err(|error| checks::unreachable(&error))?,
            Some(FORMAT_VERSION) => {}
            Some(other) => {
                let reason = format!("it has layout {other}, this software knows layout {FORMAT_VERSION}");
                return Err(StoreError::Unsafe { reason });
            }
        }
        writer::load_script(connection).await.map_err(|error| checks::unreachable(&error))
    }

    /// Compares the store's past with what this process has seen of it.
    async fn check_past(&self, connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
        // Before the store is asked: meanwhile more may be seen.
        let seen = self.seen.version();
        let given: RedisResult<Option<u64>> =
            redis::cmd("GET").arg(self.layout.version()).query_async(connection).await;
        let given = given.map_err(|error| checks::unreachable(&error))?.unwrap_or_default();
        if given >= seen {
            return Ok(());
        }
        metrics::counter!("sortinghat_store_lost_writes_total").increment(1);
        if self.options.allow_data_loss {
            tracing::error!(given, seen, "Redis has lost acknowledged writes; going on because of --allow-data-loss");
            self.seen.version.store(given, Ordering::SeqCst);
            return Ok(());
        }
        Err(lost_writes(given, seen))
    }
}

/// Commands that may wait to be written to the connection.
const PIPELINE_COMMANDS: usize = 1024;
/// Bytes that are gathered for one write to the connection.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// The store is not what it was.
fn lost_writes(given: u64, seen: u64) -> StoreError {
    let reason = format!(
        "Redis has lost acknowledged writes: it knows of {given} versions, {seen} were seen. It was flushed, restored from an \
         older copy, or started on another volume: give it its data back, or restart the coordinators to go on without it"
    );
    StoreError::Unsafe { reason }
}

/// The connection stays good: only what this command asked for was refused.
fn is_one_commands_fault(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => {
            matches!(kind, ServerErrorKind::ResponseError | ServerErrorKind::NoScript | ServerErrorKind::TryAgain)
        }
        // Full memory, a failing disk, a busy script: all of them pass, and another connection would not help.
        ErrorKind::Extension => error.code() != Some(writer::LOST_WRITES),
        _ => false,
    }
}

impl RedisOptions {
    /// A client of the configured address, or of another node of the same cluster.
    fn client(&self, node: Option<&str>) -> RedisResult<Client> {
        let mut info = self.url.url().as_str().into_connection_info()?;
        let mut settings = info.redis_settings().clone().set_lib_name("sortinghat", env!("CARGO_PKG_VERSION"));
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        info = info.set_redis_settings(settings);
        if let Some(node) = node {
            let address = redirected(info.addr(), node);
            info = info.set_addr(address);
        }
        Client::open(info)
    }
}

/// The node's address with the security of the configured one. A node without a host is on the same host.
fn redirected(configured: &ConnectionAddr, node: &str) -> ConnectionAddr {
    let (host, port) = node.rsplit_once(':').unwrap_or((node, "6379"));
    let port = port.parse().unwrap_or(6379);
    let named = |same: &String| if host.is_empty() { same.clone() } else { host.to_owned() };
    match configured {
        ConnectionAddr::Tcp(same, _) => ConnectionAddr::Tcp(named(same), port),
        ConnectionAddr::TcpTls { host: same, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: named(same), port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        other => other.clone(),
    }
}
