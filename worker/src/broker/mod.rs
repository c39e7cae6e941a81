//! What executors may not do themselves: the worker's process asks the object store and the hub for them, with keys that they never see.
//!
//! An executor decodes photos of strangers, so whatever comes from it is taken for hostile. It may have the objects of the tenant whose
//! task it runs, the weights of a backbone, and those of the repository that the task names. How much it can have under way is bounded, in
//! requests and in bytes. What it stores comes in a sealed memory file, which is copied and named by what it holds.

mod cache;
mod connection;
mod failure;
mod hub;
mod store;
mod web;
mod weights;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use sortinghat_objects::{ObjectStoreUrl, OpenError};
use sortinghat_proto::{JobSpec, Refusal, Tenant, WeightsSource, v1};
use tokio::{runtime::Runtime, sync::Semaphore};

use cache::Cache;
pub use connection::Connection;
use failure::Failure;
pub use hub::HubSettingsError;
use store::Store;
pub use web::WebOptions;
use web::{Web, WebGrant};
use weights::Weights;

/// Threads that serve requests. What waits for a disk has threads of its own.
const THREADS: usize = 2;
/// Requests that may wait for a disk at the same time.
const MAX_DISK_THREADS: usize = 64;
/// Bytes of objects that the broker holds in memory for all executors together. A larger object goes alone.
const MAX_BYTES_IN_FLIGHT: u64 = 512 << 20;

/// What a broker needs.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The object store.
    pub object_store: ObjectStoreUrl,
    /// The tenants whose objects are reached with the keys of a profile of `~/.aws` instead of the worker's own.
    pub tenant_profiles: Vec<(Tenant, String)>,
    /// Where objects are cached.
    pub cache_dir: PathBuf,
    /// How large the cache may grow.
    pub cache_bytes: u64,
    /// Where installed pretrained weights lie.
    pub weights_dir: PathBuf,
    /// Whether repositories of the hub that jobs name are fetched with the operator's token.
    pub shows_hub_token: bool,
    /// For tasks that gather photos from the web.
    pub web: WebOptions,
}

/// The broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The object store cannot be opened.
    #[error("failed to open the object store {url}: {source}")]
    Store {
        /// As it was given.
        url: ObjectStoreUrl,
        /// Why.
        source: Box<OpenError>,
    },
    /// The cache cannot be used.
    #[error("failed to use the cache at {path}: {source}", path = path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The hub cannot be asked.
    #[error(transparent)]
    Hub(#[from] HubSettingsError),
    /// The providers of photos cannot be used.
    #[error("{0}")]
    Web(String),
    /// The system gives no threads.
    #[error("failed to start the threads that talk to the object store: {0}")]
    Threads(io::Error),
}

/// The object store, the cache and the hub, for all executors of this worker.
pub struct Broker {
    shared: Arc<Shared>,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
}

/// What every connection uses.
struct Shared {
    store: Store,
    weights: Weights,
    web: Web,
    /// Bytes that may still be taken into memory, in KiB.
    room: Arc<Semaphore>,
}

/// What the executor of one task may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    tenant: Tenant,
    /// The repository of the hub that the task names.
    hub_repository: Option<String>,
    /// What it may ask of the web; nothing once it decodes photos.
    web: Option<WebGrant>,
}

impl Broker {
    /// Opens the store and the cache. Nothing is asked of a bucket yet.
    ///
    /// # Errors
    /// [`BrokerError`] if one of them cannot be opened.
    pub fn open(options: &BrokerOptions) -> Result<Self, BrokerError> {
        let BrokerOptions { object_store, tenant_profiles, cache_dir, cache_bytes, weights_dir, shows_hub_token, web } =
            options;
        let cache = Cache::new(cache_dir.clone(), *cache_bytes).map_err(|failure| match failure {
            Failure::Cache { path, source } => BrokerError::Cache { path, source },
            other => BrokerError::Cache { path: cache_dir.clone(), source: io::Error::other(other) },
        })?;
        let store = Store::open(object_store, tenant_profiles, cache);
        let store =
            store.map_err(|source| BrokerError::Store { url: object_store.clone(), source: Box::new(source) })?;
        let weights = Weights::new(weights_dir.clone(), hub_folder(cache_dir), *shows_hub_token)?;
        let web = Web::open(web).map_err(BrokerError::Web)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(MAX_DISK_THREADS)
            .thread_name("broker")
            .enable_all()
            .build()
            .map_err(BrokerError::Threads)?;
        let room = Arc::new(Semaphore::new((MAX_BYTES_IN_FLIGHT >> 10) as usize));
        Ok(Self { shared: Arc::new(Shared { store, weights, web, room }), runtime: Some(runtime) })
    }

    /// A connection for one executor, and the executor's end of it. It serves nothing until a task is granted something.
    ///
    /// # Errors
    /// [`io::Error`] if the system gives no sockets.
    pub fn connect(&self) -> io::Result<(Connection, OwnedFd)> {
        let runtime = self.runtime.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Connection::open(self.shared.clone(), runtime.handle())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A folder of objects that hangs may still hold a thread.
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

impl Grant {
    /// What a task of this tenant may ask for if it names no repository of the hub.
    pub fn of_tenant(tenant: Tenant) -> Self {
        Self { tenant, hub_repository: None, web: None }
    }

    /// What the task of this assignment may ask for.
    ///
    /// # Errors
    /// [`Refusal`] if the assignment names no tenant.
    pub fn of(assignment: &v1::Assignment) -> Result<Self, Refusal> {
        let spec = assignment.spec.clone().map(JobSpec::try_from).transpose()?;
        let mut grant = Self::of_tenant(assignment.tenant.parse()?);
        let weights = match spec {
            Some(JobSpec::Finetune(spec)) => Some(spec.weights),
            Some(JobSpec::Audit(spec)) => Some(spec.weights),
            Some(JobSpec::Gather(spec)) => {
                grant.web = Some(WebGrant::of(&spec));
                None
            }
            _ => None,
        };
        if let Some(WeightsSource::Hub(repository)) = weights {
            grant.hub_repository = Some(repository);
        }
        Ok(grant)
    }

    /// Whether the task may ask for something of the web. Then it runs in a process that has decoded no photo.
    pub fn includes_web(&self) -> bool {
        self.web.is_some()
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

fn hub_folder(cache_dir: &Path) -> PathBuf {
    cache_dir.join("hub")
}

#[cfg(test)]
mod tests;
