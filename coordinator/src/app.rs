//! Wires the parts together: `Config -> App::build -> serve -> drain`.

mod data_dir;
mod error;
pub mod logs;
pub mod signals;

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Identity, Server, ServerTlsConfig,
    server::{Connected, TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    api::{self, BulkThreads},
    auth::{Authenticator, Credentials},
    config::{Config, StoreUrl, TlsFiles},
    engine::{Engine, Settings},
    metrics,
    objects::{CreateIfAbsent, Objects},
    store::{EmbeddedStore, MemoryStore, RedisOptions, RedisStore, Store, SystemClock},
};
use data_dir::DataDir;

pub use error::AppError;

/// A coordinator that listens, but does not answer yet.
pub struct App {
    config: Config,
    data_dir: DataDir,
    engine: Engine,
    objects: Objects,
    authenticator: Authenticator,
    server: Server,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
}

/// How serving ended, after it was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every call in flight ended by itself.
    Fully,
    /// The grace period ended first.
    CutOff,
}

impl App {
    /// Opens the stores and listens, on `listener` if one is handed in, else on the configured address, which is then written to
    /// `DATA_DIR/coordinator.addr`.
    ///
    /// # Errors
    /// [`AppError`], which names what cannot be had.
    pub async fn build(config: Config, listener: Option<TcpListener>) -> Result<Self, AppError> {
        let data_dir = DataDir::lock(&config.data_dir)?;
        let authenticator = match &config.credentials {
            Some(path) => Authenticator::Tokens(Credentials::load(path)?),
            None => Authenticator::Open,
        };
        let server = match &config.tls {
            Some(files) => Server::builder().tls_config(tls(files)?).map_err(AppError::Tls)?,
            None => Server::builder(),
        };
        let objects = open_objects(&config).await?;
        let settings = Settings {
            lease_ttl_ms: u32::try_from(config.lease_ttl.as_ms()).expect("a lease is at most an hour"),
            weights: authenticator.weights(),
            shard_items: config.shard_items,
            retention_ms: config.retention.as_ms(),
            object_grace_ms: config.object_grace.as_ms(),
            max_waiting_jobs_per_tenant: config.max_waiting_jobs_per_tenant.get(),
            max_waiting_tasks: config.max_waiting_tasks.get(),
            reads_ahead: matches!(config.store, StoreUrl::Redis(_)),
            ..Settings::default()
        };
        let engine = Engine::new(open_store(&config).await?, Arc::new(objects.clone()), settings);
        if !engine.own(&objects).await.map_err(AppError::Owner)? {
            return Err(AppError::ForeignObjects { url: config.object_store });
        }
        let listener = match listener {
            Some(listener) => listener,
            None => bind(config.listen).await?,
        };
        let metrics_listener = match config.metrics_listen {
            Some(address) => {
                metrics::recorder();
                Some(bind(address).await?)
            }
            None => None,
        };
        let app = Self { config, data_dir, engine, objects, authenticator, server, listener, metrics_listener };
        app.data_dir.publish_address(app.address()?)?;
        Ok(app)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// [`AppError::Listen`] if the listener was closed behind its back.
    pub fn address(&self) -> Result<SocketAddr, AppError> {
        let address = self.config.listen;
        self.listener.local_addr().map_err(|source| AppError::Listen { address, source })
    }

    /// The address that `/metrics` and `/healthz` are served on; `None` if they are not.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop`, then refuses new calls, ends held ones, and lets those in flight end within the grace period.
    ///
    /// # Errors
    /// [`AppError::Serve`] if the server ends by itself.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<Drained, AppError> {
        let address = self.address()?;
        let collected = self.config.collect_objects.then(|| self.objects.clone());
        let mut background = Background::start(&self.engine, collected, self.metrics_listener);
        let health = HealthReporter::new();
        api::report_health(&health, ServingStatus::Serving).await;
        let threads = Threads::start("bulk");
        let for_lone_calls = matches!(self.config.store, StoreUrl::Redis(_));
        let bulk = BulkThreads { threads: threads.handle(), for_lone_calls };
        let router = api::router(self.server, self.authenticator, &self.engine, self.objects, &health, bulk);
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let closing = CancellationToken::new();
        let served = router.serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let mut served = tokio::spawn(served);
        tracing::info!(%address, data_dir = %self.config.data_dir.display(), store = %self.config.store,
            object_store = %self.config.object_store, "serving");

        tokio::select! {
            ended = &mut served => return Err(AppError::ended_early(ended)),
            ended = &mut background.sweeps => return Err(AppError::sweeps_ended(ended)),
            () = stop => {}
        }
        tracing::info!(grace = %self.config.drain_grace, "draining");
        api::report_health(&health, ServingStatus::NotServing).await;
        self.engine.drain();
        closing.cancel();
        let drained = drain(served, self.config.drain_grace.as_duration()).await;
        background.stop().await;
        drop(threads);
        // The last owner of the store finishes its queued commits, which blocks.
        let flushed = tokio::task::spawn_blocking(move || drop(self.engine)).await;
        flushed.expect("dropping the engine does not panic");
        self.data_dir.unpublish_address();
        tracing::info!(?drained, "stopped");
        Ok(drained)
    }
}

/// Serves an engine's API on connections that come from anywhere, to everyone, until they end: for simulations.
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
    // A simulation has one thread and a time of its own.
    let bulk = BulkThreads { threads: Handle::current(), for_lone_calls: true };
    let router = api::router(Server::builder(), Authenticator::Open, engine, objects, &health, bulk);
    router.serve_with_incoming(connections).await
}

/// Waits for the calls in flight, within the grace period.
async fn drain(mut served: JoinHandle<Result<(), tonic::transport::Error>>, grace: Duration) -> Drained {
    if tokio::time::timeout(grace, &mut served).await.is_ok() {
        return Drained::Fully;
    }
    tracing::warn!("the grace period ended before the calls in flight did: they are cut off");
    served.abort();
    Drained::CutOff
}

/// Threads for some of the calls. Dropped, they end where their tasks wait next.
struct Threads(Option<Runtime>);

impl Threads {
    fn start(name: &str) -> Self {
        let runtime = Builder::new_multi_thread().thread_name(name).enable_all().build();
        Self(Some(runtime.expect("the system starts threads")))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is only taken when dropped").handle().clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The loops beside the server.
struct Background {
    stop: CancellationToken,
    sweeps: JoinHandle<()>,
    collection: Option<JoinHandle<()>>,
    pages: Option<JoinHandle<std::io::Result<()>>>,
}

impl Background {
    fn start(engine: &Engine, collected: Option<Objects>, metrics_listener: Option<TcpListener>) -> Self {
        let stop = CancellationToken::new();
        let (sweeper, sweeps_stop) = (engine.clone(), stop.clone());
        let sweeps = tokio::spawn(async move { sweeper.run(sweeps_stop).await });
        let collection = collected.map(|objects| {
            let (collector, stop) = (engine.clone(), stop.clone());
            tokio::spawn(async move { collector.run_collection(Arc::new(objects), stop).await })
        });
        let pages =
            metrics_listener.map(|listener| tokio::spawn(metrics::serve(listener, engine.clone(), stop.clone())));
        Self { stop, sweeps, collection, pages }
    }

    async fn stop(self) {
        self.stop.cancel();
        for (name, ended) in [("sweeps", Some(self.sweeps)), ("collection of objects", self.collection)] {
            if let Some(ended) = ended
                && let Err(error) = ended.await
            {
                tracing::error!(%error, "the {name} ended with a defect");
            }
        }
        if let Some(pages) = self.pages
            && let Ok(Err(error)) = pages.await
        {
            tracing::error!(%error, "the metrics server failed");
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { address, source })
}

fn tls(files: &TlsFiles) -> Result<ServerTlsConfig, AppError> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|source| AppError::Unreadable { path: path.to_owned(), source });
    Ok(ServerTlsConfig::new().identity(Identity::from_pem(read(&files.cert)?, read(&files.key)?)))
}

fn read_password(path: &Path) -> Result<String, AppError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| AppError::Unreadable { path: path.to_owned(), source })?;
    // Editors end a file with a line break; a password has none.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, AppError> {
    let clock = Arc::new(SystemClock::new());
    match config.store.clone() {
        StoreUrl::Memory => Ok(Arc::new(MemoryStore::new(clock))),
        StoreUrl::Redis(url) => {
            let redis = config.redis.clone().expect("a configuration with a Redis says how it is used");
            let options = RedisOptions {
                url,
                password: redis.password_file.as_deref().map(read_password).transpose()?,
                deployment: redis.deployment,
                allow_data_loss: redis.allow_data_loss,
            };
            Ok(Arc::new(RedisStore::open(options).await?))
        }
        StoreUrl::Embedded(path) => {
            let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, clock)).await;
            Ok(Arc::new(opened.expect("opening a store does not panic")?))
        }
    }
}

/// Opens the object store and says at start what it does, rather than at the first upload.
async fn open_objects(config: &Config) -> Result<Objects, AppError> {
    // A caller that waits on the object store must hear of its failure before its lease ends.
    let objects = Objects::open(&config.object_store, config.lease_ttl.as_duration() / 3)?;
    match objects.probe().await? {
        CreateIfAbsent::Honoured => tracing::info!("the object store honours create-if-absent"),
        CreateIfAbsent::Ignored => {
            tracing::info!("the object store ignores create-if-absent; nothing here relies on it");
        }
    }
    Ok(objects)
}
