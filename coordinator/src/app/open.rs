//! Opens what the configuration names.

use std::{net::SocketAddr, path::Path, sync::Arc};

use tokio::net::TcpListener;

use super::AppError;
use crate::{
    config::{Config, StoreUrl},
    objects::{CreateIfAbsent, Objects},
    store::{EmbeddedStore, MemoryStore, RedisOptions, RedisStore, Store, SystemClock},
};

/// Listens on an address.
pub(super) async fn listener(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { address, source })
}

/// Refuses a file that cannot be read now, so that this is reported at the start and not as an unreachable store.
fn check_readable(path: &Path) -> Result<(), AppError> {
    let read = std::fs::read(path).map(drop);
    read.map_err(|source| AppError::Unreadable { path: path.to_owned(), source })
}

/// Opens the queue's store.
pub(super) async fn store(config: &Config) -> Result<Arc<dyn Store>, AppError> {
    let clock = Arc::new(SystemClock::new());
    match config.store.clone() {
        StoreUrl::Memory => Ok(Arc::new(MemoryStore::new(clock))),
        StoreUrl::Redis(url) => {
            let redis = config.redis.clone().expect("a configuration with a Redis has the settings of the Redis");
            redis.password_file.as_deref().map(check_readable).transpose()?;
            let options = RedisOptions {
                url,
                password_file: redis.password_file,
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

/// Opens the object store and probes it, so that an unusable store is reported at the start instead of at the first upload.
pub(super) async fn objects(config: &Config) -> Result<Objects, AppError> {
    // A worker that waits for the object store must hear of a failure before its lease ends.
    let objects = Objects::open(&config.object_store, config.lease_ttl.as_duration() / 3)?;
    match objects.probe().await? {
        CreateIfAbsent::Honoured => tracing::info!("the object store honours create-if-absent"),
        CreateIfAbsent::Ignored => {
            tracing::info!("the object store ignores create-if-absent; nothing here relies on it");
        }
    }
    Ok(objects)
}
