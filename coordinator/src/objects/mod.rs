//! The bytes of artifacts: content-addressed objects in a local folder or in S3.
//!
//! The key of an object is its tenant and its digest, so that a second write can only repeat the first. An object becomes visible only after
//! all of its content was checked.

mod download;
mod inventory;
mod pack;
mod upload;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, memory::InMemory, path::Path};
use sortinghat_objects::{Environment, OpenError, Opened, Patience, Trouble, is_missing};
use sortinghat_proto::{Digest, ObjectRef, Refusal, Tenant, v1::ErrorCode};
use tokio::sync::Semaphore;

use crate::config::ObjectStoreUrl;

pub use pack::Pack;
pub use upload::Upload;

/// One request may take this long, as an upload may go over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request is tried again. By default, retries would go on for minutes, after a caller has given up.
const RETRIES: usize = 5;
/// How many objects of all packs are stored at a time. Each waits until it is durable, so many at a time use that waiting.
const PACKED_AT_A_TIME: usize = 64;
/// How many existence checks of one call may be in flight.
const CONCURRENT_CHECKS: usize = 32;

/// The object store, below the prefix in its URL.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The store's folder, if the store is a local folder.
    local: Option<PathBuf>,
    /// One permit for each object of a pack that is being stored.
    packed: Arc<Semaphore>,
}

/// Why an object cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The store cannot be opened.
    #[error("failed to open the object store {url}: {source}")]
    Unopenable {
        /// The store's URL, which holds no secret.
        url: ObjectStoreUrl,
        /// Why.
        source: Box<OpenError>,
    },
    /// There is no such object.
    #[error("object {digest} does not exist: upload it first")]
    NotFound {
        /// The object.
        digest: Digest,
    },
    /// The announced length is larger than an object may be.
    #[error("an object of {size_bytes} bytes is too large: at most {max_bytes} are allowed")]
    TooLarge {
        /// The announced length.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The content is not what was announced; nothing was stored.
    #[error("the content is not what was announced: {reason}")]
    Mismatch {
        /// What differs.
        reason: String,
    },
    /// The stored bytes do not match the object's digest.
    #[error("object {digest} is corrupt in the object store")]
    Corrupt {
        /// The object.
        digest: Digest,
    },
    /// The store failed, after its retries. The message is for operators.
    #[error("failed to {operation}: {}", Trouble::in_detail(source))]
    Store {
        /// The operation that failed.
        operation: &'static str,
        /// The store's explanation.
        source: object_store::Error,
    },
}

impl From<ObjectError> for Refusal {
    fn from(error: ObjectError) -> Self {
        let message = error.to_string();
        match error {
            ObjectError::NotFound { .. } => Self::not_found(message),
            ObjectError::TooLarge { .. } => Self::invalid("header.size_bytes", message),
            ObjectError::Mismatch { .. } => Self::invalid("data", message),
            ObjectError::Corrupt { .. } => Self::new(ErrorCode::CorruptObject, message),
            ObjectError::Unopenable { .. } => {
                tracing::warn!(%error, "the object store cannot be used");
                Self::new(ErrorCode::StorageUnusable, "the object store cannot be used: ask whoever runs the server")
            }
            ObjectError::Store { source, .. } => {
                tracing::warn!(error = message, "the object store failed");
                refusal_of(Trouble::of(&source))
            }
        }
    }
}

/// What a tenant is told: nothing of addresses, codes and credentials.
fn refusal_of(trouble: Trouble) -> Refusal {
    match trouble {
        Trouble::Unavailable => {
            Refusal::new(ErrorCode::StorageUnavailable, "the object store is not available now: try again")
        }
        Trouble::Full => Refusal::new(
            ErrorCode::StorageUnusable,
            "the object store is full, so nothing was stored: try again when whoever runs the server has made room",
        ),
        trouble => Refusal::new(
            ErrorCode::StorageUnusable,
            format!(
                "{}: whoever runs the server has to mend that, and finds the details in its log",
                trouble.in_words()
            ),
        ),
    }
}

/// Whether the store refuses to create an object that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateIfAbsent {
    /// The store refuses.
    Honoured,
    /// The store overwrites the object, or does not know the condition. Nothing here relies on the condition.
    Ignored,
}

impl Objects {
    /// Opens the store that `url` names. Its retries end within `patience`.
    ///
    /// # Errors
    /// [`ObjectError::Unopenable`].
    pub fn open(url: &ObjectStoreUrl, patience: Duration) -> Result<Self, ObjectError> {
        let patience = Patience { request: REQUEST_TIMEOUT, retries: RETRIES, retry_for: patience };
        let opened = sortinghat_objects::open(url, patience, &Environment::of_process());
        let opened = opened.map_err(|source| ObjectError::Unopenable { url: url.clone(), source: source.into() });
        let Opened { store, prefix, .. } = opened?;
        Ok(Self::of(store, prefix, url.folder()))
    }

    /// A store in memory, which is lost with the process. For simulations.
    pub fn in_memory() -> Self {
        Self::of(Arc::new(InMemory::new()), Path::default(), None)
    }

    fn of(store: Arc<dyn ObjectStore>, prefix: Path, local: Option<PathBuf>) -> Self {
        Self { store, prefix, local, packed: Arc::new(Semaphore::new(PACKED_AT_A_TIME)) }
    }

    /// Writes and removes one small object, to find out at start whether the store can be written to and whether it honours
    /// create-if-absent.
    ///
    /// # Errors
    /// [`ObjectError::Store`] if the store cannot be written to.
    pub async fn probe(&self) -> Result<CreateIfAbsent, ObjectError> {
        let path = self.probe_path();
        let failed = |source| ObjectError::Store { operation: "store a probe object", source };
        self.store.put(&path, b"probe".as_slice().into()).await.map_err(failed)?;
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let second = self.store.put_opts(&path, b"probe".as_slice().into(), create).await;
        self.store.delete(&path).await.map_err(failed)?;
        Ok(match second {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                CreateIfAbsent::Honoured
            }
            Ok(_) | Err(_) => CreateIfAbsent::Ignored,
        })
    }

    /// The object's length in bytes; `None` if there is no such object.
    ///
    /// # Errors
    /// [`ObjectError::Store`].
    pub async fn size(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<u64>, ObjectError> {
        let path = self.path(tenant, digest);
        // Every job and every result asks for a size. One look into a folder takes less time than a change of thread.
        if let Some(folder) = &self.local {
            match fs::metadata(folder.join(path.as_ref())) {
                Ok(found) if found.is_file() => return Ok(Some(found.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Ok(_) | Err(_) => {}
            }
        }
        match self.store.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(source) => Err(ObjectError::Store { operation: "look for an object", source }),
        }
    }

    /// Whether the object exists with this length.
    ///
    /// # Errors
    /// [`ObjectError::Store`].
    pub async fn contains(&self, tenant: &Tenant, object: &ObjectRef) -> Result<bool, ObjectError> {
        Ok(self.size(tenant, &object.digest).await? == Some(object.size_bytes))
    }

    /// The digests of objects that the tenant has not stored, in the order of `digests`.
    ///
    /// # Errors
    /// [`ObjectError::Store`].
    pub async fn missing(&self, tenant: &Tenant, digests: Vec<Digest>) -> Result<Vec<Digest>, ObjectError> {
        stream::iter(digests)
            .map(|digest| async move { Ok(self.size(tenant, &digest).await?.is_none().then_some(digest)) })
            .buffered(CONCURRENT_CHECKS)
            .try_filter_map(|missing| async move { Ok(missing) })
            .try_collect()
            .await
    }

    fn probe_path(&self) -> Path {
        self.prefix.clone().join(format!("probe-{:032x}", rand::random::<u128>()))
    }

    fn path(&self, tenant: &Tenant, digest: &Digest) -> Path {
        self.prefix.parts().chain(Path::from(digest.object_key(tenant)).parts()).collect()
    }
}

#[cfg(test)]
mod tests;
