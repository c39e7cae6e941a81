//! Wires the parts together: `Config -> App::build -> serve -> drain`.

mod background;
mod data_dir;
mod error;
pub mod logs;
mod open;
mod reload;
pub mod signals;
mod tls;
mod vitals;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::Stream;
use sortinghat_pages::Probes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Handle,
    signal::unix::Signal,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Server,
    server::{Connected, TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    api::{self, BulkThreads, Callers, Visitors},
    auth::{Authenticator, Credentials, TokensFile},
    config::{Config, Span, StoreUrl},
    engine::{Engine, Settings},
    metrics,
    objects::Objects,
};
use background::{Background, Threads};
use data_dir::DataDir;
use reload::Reloader;
use tls::{Tls, TlsContent};
use vitals::Vitals;

pub use error::AppError;

/// A coordinator that listens but does not answer yet.
pub struct App {
    config: Config,
    data_dir: DataDir,
    engine: Engine,
    objects: Objects,
    authenticator: Authenticator,
    tokens_file: Option<TokensFile>,
    tls: Option<(Tls, TlsContent)>,
    hangups: Signal,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
}

/// How the calls in flight ended after the coordinator was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every call in flight ended by itself.
    Fully,
    /// The grace period ended first.
    CutOff,
}

impl App {
    /// Opens the stores and listens: on `listener` if one is given, or else on the configured address. The address is written to
    /// `DATA_DIR/coordinator.addr`.
    ///
    /// # Errors
    /// [`AppError`], which names the part that cannot be opened.
    pub async fn build(config: Config, listener: Option<TcpListener>) -> Result<Self, AppError> {
        let hangups = signals::hangups();
        if config.metrics_listen.is_some() {
            metrics::install();
        }
        let data_dir = DataDir::lock(&config.data_dir)?;
        let tokens_file = config.credentials.as_deref().map(TokensFile::read).transpose()?;
        let authenticator = match &tokens_file {
            Some(file) => Authenticator::from(Credentials::try_from(file)?),
            None => Authenticator::Open,
        };
        let tls = match &config.tls {
            Some(paths) => {
                let content = TlsContent::read(paths)?;
                Some((content.to_tls(paths)?, content))
            }
            None => None,
        };
        let objects = open::objects(&config).await?;
        let settings = Settings {
            lease_ttl_ms: u32::try_from(config.lease_ttl.as_ms()).expect("a lease is at most an hour"),
            weights: authenticator.weights(),
            shard_items: config.shard_items,
            retention_ms: config.retention.as_ms(),
            object_grace_ms: config.object_grace.as_ms(),
            max_waiting_jobs_per_tenant: config.max_waiting_jobs_per_tenant.get(),
            max_waiting_tasks: config.max_waiting_tasks.get(),
            max_workers_per_identity: config.max_open_per_identity.get(),
            reads_ahead: matches!(config.store, StoreUrl::Redis(_)),
            ..Settings::default()
        };
        let engine = Engine::new(open::store(&config).await?, Arc::new(objects.clone()), settings);
        if !engine.own(&objects).await.map_err(AppError::Owner)? {
            return Err(AppError::ForeignObjects { url: config.object_store });
        }
        let listener = match listener {
            Some(listener) => listener,
            None => open::listener(config.listen).await?,
        };
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(open::listener(address).await?),
            None => None,
        };
        let app = Self {
            config,
            data_dir,
            engine,
            objects,
            authenticator,
            tokens_file,
            tls,
            hangups,
            listener,
            metrics_listener,
        };
        app.data_dir.publish_address(app.address()?);
        Ok(app)
    }

    /// The address that the coordinator listens on.
    ///
    /// # Errors
    /// [`AppError::Listen`] if the listener was closed by somebody else.
    pub fn address(&self) -> Result<SocketAddr, AppError> {
        let address = self.config.listen;
        self.listener.local_addr().map_err(|source| AppError::Listen { address, source })
    }

    /// The address that `/metrics` and `/healthz` are served on; `None` if they are not served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop`. Then says that it is not ready, and after `--drain-delay` refuses new calls, ends the calls that wait for something, and lets the others end within the grace period.
    ///
    /// # Errors
    /// [`AppError::Serve`] if the server ends by itself.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<Drained, AppError> {
        let address = self.address()?;
        let collected = self.config.collect_objects.then(|| self.objects.clone());
        let (leaving, probes) = (CancellationToken::new(), Probes::default());
        let mut background = Background::start(&self.engine, collected, self.metrics_listener, &probes);
        let health = HealthReporter::new();
        api::report_health(&health, ServingStatus::Serving).await;
        // It is not known before the first look.
        api::report_readiness(&health, ServingStatus::NotServing).await;
        let looks = CancellationToken::new();
        let vitals = Vitals { engine: self.engine.clone(), health: health.clone(), folders: folders(&self.config) };
        let vitals = tokio::spawn(vitals.run(leaving.clone()));
        let threads = Threads::start("bulk");
        let for_lone_calls = matches!(self.config.store, StoreUrl::Redis(_));
        let bulk = BulkThreads { threads: threads.handle(), for_lone_calls };
        let (newest_callers, tokens) = watch::channel(self.authenticator);
        let followed = self.config.credentials.clone().zip(self.tokens_file);
        let followed =
            followed.map(|(path, file)| reload::Tokens::new(path, file, newest_callers.clone(), &self.engine));
        let (certificates, tls) = self
            .tls
            .zip(self.config.tls.clone())
            .map(|((tls, content), paths)| reload::Certificates::watch(tls, content, paths, newest_callers))
            .unzip();
        let reloader = Reloader { tokens: followed, certificates, hangups: self.hangups };
        let reloads = tokio::spawn(reloader.run(looks.clone()));
        let callers = Callers { tokens, most_open: self.config.max_open_per_identity.get() };
        let router = api::router(Server::builder(), callers, &self.engine, self.objects, &health, bulk);
        let visitors = Visitors::new(self.config.max_unknown_connections_per_address.get());
        let incoming = visitors.welcome(TcpIncoming::from(self.listener).with_nodelay(Some(true)));
        let incoming = tls::lines(incoming, tls);
        let closing = CancellationToken::new();
        let served = router.serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let mut served = tokio::spawn(served);
        tracing::info!(%address, data_dir = %self.config.data_dir.display(), store = %self.config.store,
            object_store = %self.config.object_store, "serving");
        probes.started();

        tokio::select! {
            ended = &mut served => return Err(AppError::ended_early(ended)),
            ended = &mut background.sweeps => return Err(AppError::sweeps_ended(ended)),
            () = stop => {}
        }
        leaving.cancel();
        probes.leaving();
        // The last look must not say that work is taken.
        let _ = vitals.await;
        api::report_readiness(&health, ServingStatus::NotServing).await;
        api::report_health(&health, ServingStatus::NotServing).await;
        linger(self.config.drain_delay, &mut served, &mut background).await?;
        tracing::info!(grace = %self.config.drain_grace, "draining");
        looks.cancel();
        // The calls in flight end by themselves, with the tokens that are valid now.
        let _ = reloads.await;
        self.engine.drain();
        closing.cancel();
        let drained = drain(served, self.config.drain_grace.as_duration()).await;
        background.stop().await;
        drop(threads);
        // Dropping the last owner of the store finishes the queued commits, which blocks.
        let flushed = tokio::task::spawn_blocking(move || drop(self.engine)).await;
        flushed.expect("dropping the engine does not panic");
        self.data_dir.unpublish_address();
        tracing::info!(?drained, "stopped");
        Ok(drained)
    }
}

/// The folders of this machine that take the queue and the objects.
fn folders(config: &Config) -> Vec<PathBuf> {
    let objects = config.object_store.folder();
    let queue = match &config.store {
        StoreUrl::Embedded(file) => file.parent().map(Path::to_owned),
        StoreUrl::Memory | StoreUrl::Redis(_) => None,
    };
    std::iter::once(config.data_dir.clone()).chain(queue).chain(objects).collect()
}

/// Serves an engine's API on the given connections, without authentication, until the connections end. For simulations.
///
/// # Errors
/// If a connection cannot be accepted.
pub async fn serve_connections<C, E>(
    engine: &Engine,
    objects: Objects,
    connections: impl Stream<Item = Result<C, E>>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let health = HealthReporter::new();
    api::report_health(&health, ServingStatus::Serving).await;
    // A simulation has one thread, whose time is virtual.
    let bulk = BulkThreads { threads: Handle::current(), for_lone_calls: true };
    let callers = Callers { tokens: watch::channel(Authenticator::Open).1, most_open: usize::MAX };
    let router = api::router(Server::builder(), callers, engine, objects, &health, bulk);
    router.serve_with_incoming(connections).await
}

/// Goes on accepting calls for a while, in which load balancers find out that the process is not ready any more.
async fn linger(
    delay: Span,
    served: &mut JoinHandle<Result<(), tonic::transport::Error>>,
    background: &mut Background,
) -> Result<(), AppError> {
    if delay.as_duration().is_zero() {
        return Ok(());
    }
    tracing::info!(%delay, "not ready any more, but calls are still accepted");
    tokio::select! {
        ended = served => Err(AppError::ended_early(ended)),
        ended = &mut background.sweeps => Err(AppError::sweeps_ended(ended)),
        () = tokio::time::sleep(delay.as_duration()) => Ok(()),
    }
}

/// Waits until the calls in flight end, at most for the grace period.
async fn drain(mut served: JoinHandle<Result<(), tonic::transport::Error>>, grace: Duration) -> Drained {
    if tokio::time::timeout(grace, &mut served).await.is_ok() {
        return Drained::Fully;
    }
    tracing::warn!("the grace period ended before the calls in flight did: they are cut off");
    served.abort();
    Drained::CutOff
}
