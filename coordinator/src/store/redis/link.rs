//! The connection that all commands share. It is made, checked, watched, and made again after a failure.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    checks::{self, Identity},
    layout::{FORMAT_VERSION, Layout},
    options::RedisOptions,
    script,
    seen::Seen,
};
use crate::store::StoreError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reply may take. A sync on a busy disk takes a while.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command waits while the connection is being made again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the connection is tried, and the versions that the store has given are compared with those that were seen.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);
/// The server's settings are checked with one health check in this many.
const HEALTH_CHECKS_PER_SETTINGS_CHECK: u32 = 30;
/// The shortest and the longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often a cluster may redirect a connection to another node.
const MAX_REDIRECTIONS: usize = 4;

/// The connection as commands see it.
#[derive(Clone)]
enum State {
    Up(Connection),
    Down(StoreError),
}

/// A connection on which no command has failed yet.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    /// Counts connections, so that a late failure of an old connection does not end the new one.
    number: u64,
}

/// Keeps a connection to a Redis that passes all checks.
pub(super) struct Link {
    options: RedisOptions,
    pub(super) layout: Layout,
    pub(super) seen: Seen,
    state: watch::Sender<State>,
}

impl Link {
    /// Connects for the first time. A Redis that cannot be reached or still loads its file is tried again for `patience`.
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

    /// The connection. If there is none, waits a moment for it.
    pub(super) async fn connection(&self) -> Result<Connection, StoreError> {
        let mut state = self.state.subscribe();
        // The sender lives as long as this link, so only the timeout can end the wait early.
        let _ = timeout(PATIENCE, state.wait_for(|state| matches!(state, State::Up(_)))).await;
        let state = state.borrow().clone();
        match state {
            State::Up(connection) => Ok(connection),
            State::Down(error) => Err(error),
        }
    }

    /// Takes note that a command failed on this connection, and gives the connection up unless only the command was at fault. Returns the
    /// error for the caller.
    pub(super) fn failed(&self, connection: &Connection, action: &'static str, error: &RedisError) -> StoreError {
        let failure = StoreError::Unavailable { action, reason: error.to_string() };
        if !is_one_commands_fault(error) {
            self.give_up(connection.number, failure.clone());
        }
        failure
    }

    /// A client for a separate connection, on which hints are received.
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
                    // The same reason is logged once, not twice a second.
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

    /// Connects, follows a cluster's redirections, and checks that this Redis keeps what it acknowledges.
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
        script::load_script(connection).await.map_err(|error| checks::unreachable(&error))
    }

    /// Checks that the store has given at least as many versions as this process has seen. Fewer mean that it has lost writes.
    async fn check_past(&self, connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
        // Read before the store is asked, as this process may see newer versions in the meantime.
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
            self.seen.reset_version(given);
            return Ok(());
        }
        Err(lost_writes(given, seen))
    }
}

/// How many commands may wait to be written to the connection.
const PIPELINE_COMMANDS: usize = 1024;
/// How many bytes are gathered for one write to the connection.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// The error of a store that has given fewer versions than this process has seen.
fn lost_writes(given: u64, seen: u64) -> StoreError {
    let reason = format!(
        "Redis has lost acknowledged writes: it knows of {given} versions, {seen} were seen. It was flushed, restored from an \
         older copy, or started on another volume: give it its data back, or restart the coordinators to go on without it"
    );
    StoreError::Unsafe { reason }
}

/// Whether only this command was refused, and the connection can be used on.
fn is_one_commands_fault(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => {
            matches!(kind, ServerErrorKind::ResponseError | ServerErrorKind::NoScript | ServerErrorKind::TryAgain)
        }
        // A full memory, a failing disk or a busy script may pass, and a new connection would not help.
        ErrorKind::Extension => error.code() != Some(script::LOST_WRITES),
        _ => false,
    }
}
