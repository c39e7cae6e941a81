//! Objects: immutable, named by tenant and SHA-256, in a folder or an S3 bucket, with a cache on this machine's disk.
//!
//! Every byte that is read here has been checked against its digest. A write is durable when it returns, and it may be repeated.
//! The calls block, for jobs and their threads; never call them from asynchronous code. If the store does not answer, they wait for it, so
//! that a task keeps what it has done.

mod cache;
mod error;
mod patience;

use std::{fs::File, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path};
use sortinghat_objects::{Environment, Opened};
use sortinghat_proto::{
    Digest, ObjectRef, Tenant, limits,
    manifest::{self, Document},
};
use tokio::runtime::Handle;
use url::Url;

use cache::Cache;
pub use error::{ObjectError, Stopped};
pub(crate) use patience::Waiting;

/// The object store and the cache of one process.
#[derive(Debug)]
pub struct Objects {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    cache: Cache,
    /// A multi-threaded runtime: the calls block on it from threads that are not its own.
    runtime: Handle,
}

/// One tenant's objects. Cheap to clone, shared freely between threads.
#[derive(Debug, Clone)]
pub struct TenantObjects {
    inner: Arc<Inner>,
    tenant: Tenant,
    waiting: Waiting,
}

impl Objects {
    /// Opens the store at `url` (`file:///FOLDER` or `s3://BUCKET/PREFIX`) and the cache in `cache_dir`, which is kept below
    /// `cache_bytes`. `runtime` must be multi-threaded.
    ///
    /// # Errors
    /// [`ObjectError::Unopenable`] or [`ObjectError::Cache`].
    pub fn open(url: &Url, cache_dir: PathBuf, cache_bytes: u64, runtime: Handle) -> Result<Self, ObjectError> {
        let opened = sortinghat_objects::open(url, patience::REQUESTS, &Environment::of_process());
        let opened = opened.map_err(|source| ObjectError::Unopenable { url: url.to_string(), source });
        let Opened { store, prefix, .. } = opened?;
        let cache = Cache::new(cache_dir, cache_bytes)?;
        Ok(Self { inner: Arc::new(Inner { store, prefix, cache, runtime }) })
    }

    /// The objects of one tenant.
    pub fn of_tenant(&self, tenant: Tenant) -> TenantObjects {
        TenantObjects { inner: self.inner.clone(), tenant, waiting: Waiting::default() }
    }
}

impl TenantObjects {
    /// The same objects, for calls that fail at once if the store does not answer.
    pub(crate) fn without_waiting(&self) -> Self {
        Self { waiting: Waiting::default(), ..self.clone() }
    }

    /// The same objects for a task, which is asked by `waiting` whether to go on waiting while the store does not answer.
    pub(crate) fn for_task(self, waiting: Waiting) -> Self {
        Self { waiting, ..self }
    }

    /// The object's content. Not cached: for photos and documents, which are read once.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::Corrupt`], or [`ObjectError::Unavailable`].
    pub fn read(&self, object: &ObjectRef) -> Result<Bytes, ObjectError> {
        let bytes = self.persist(|| {
            let fetched = self.block_on(async { self.inner.store.get(&self.key(&object.digest)).await?.bytes().await });
            fetched.map_err(|error| ObjectError::from_store("read", &object.digest, error))
        })?;
        let found = Digest::of(&bytes);
        if found != object.digest || bytes.len() as u64 != object.size_bytes {
            let reason = format!("the store's copy has {} bytes and digest {found}", bytes.len());
            return Err(ObjectError::Corrupt { digest: object.digest.clone(), reason });
        }
        Ok(bytes)
    }

    /// The object as an open file of the cache, fetched if it is not there: for shards and weights. It stays readable for as
    /// long as it is open.
    ///
    /// # Errors
    /// As [`Self::read`], or [`ObjectError::Cache`] (a full disk).
    pub fn open(&self, object: &ObjectRef) -> Result<File, ObjectError> {
        if let Some(file) = self.inner.cache.open(&self.tenant, object)? {
            return Ok(file);
        }
        self.persist(|| self.fetch(object))
    }

    fn fetch(&self, object: &ObjectRef) -> Result<File, ObjectError> {
        let mut insertion = self.inner.cache.insert(&self.tenant, object)?;
        let unavailable = |error| ObjectError::from_store("read", &object.digest, error);
        self.block_on(async {
            let mut pieces = self.inner.store.get(&self.key(&object.digest)).await.map_err(unavailable)?.into_stream();
            while let Some(piece) = pieces.next().await {
                insertion.write(&piece.map_err(unavailable)?)?;
            }
            Ok::<_, ObjectError>(())
        })?;
        insertion.finish()
    }

    /// The document stored in this object.
    ///
    /// # Errors
    /// As [`Self::read`], or [`ObjectError::Document`], or [`ObjectError::TooLarge`].
    pub fn document<T: Document>(&self, object: &ObjectRef) -> Result<T, ObjectError> {
        if object.size_bytes > limits::MAX_MANIFEST_BYTES {
            return Err(ObjectError::TooLarge {
                digest: object.digest.clone(),
                size_bytes: object.size_bytes,
                limit_bytes: limits::MAX_MANIFEST_BYTES,
            });
        }
        let bytes = self.read(object)?;
        manifest::decode(&bytes).map_err(|source| ObjectError::Document { digest: object.digest.clone(), source })
    }

    /// The reference to an object of which only the digest is known.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] or [`ObjectError::Unavailable`].
    pub fn find(&self, digest: &Digest) -> Result<ObjectRef, ObjectError> {
        let size_bytes = self.persist(|| {
            let found = self.block_on(self.inner.store.head(&self.key(digest)));
            Ok(found.map_err(|error| ObjectError::from_store("find", digest, error))?.size)
        })?;
        Ok(ObjectRef { digest: digest.clone(), size_bytes })
    }

    /// Stores `content`; durable when it returns. The same content again is the same object.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`].
    pub fn put(&self, content: impl Into<Bytes>) -> Result<ObjectRef, ObjectError> {
        let content: Bytes = content.into();
        let object = ObjectRef::of(&content);
        self.persist(|| {
            let stored = self.block_on(self.inner.store.put(&self.key(&object.digest), content.clone().into()));
            stored.map_err(|error| ObjectError::from_store("write", &object.digest, error))
        })?;
        Ok(object)
    }

    /// Stores a document.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_document<T: Document>(&self, document: &T) -> Result<ObjectRef, ObjectError> {
        self.put(manifest::encode(document))
    }

    fn key(&self, digest: &Digest) -> Path {
        let mut key = self.inner.prefix.clone();
        for part in digest.object_key(&self.tenant).split('/') {
            key = key.join(part);
        }
        key
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.inner.runtime.block_on(future)
    }
}

#[cfg(test)]
mod tests;
