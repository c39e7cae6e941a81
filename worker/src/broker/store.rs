//! The object store as the broker uses it. What leaves here for an executor is an open file; what comes from one is copied first.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, path::Path};
use sha2::{Digest as _, Sha256};
use sortinghat_objects::{Environment, ObjectStoreUrl, OpenError, Opened, Patience, Trouble};
use sortinghat_proto::{Digest, ObjectRef, Tenant};
use tokio::{runtime::Handle, task::spawn_blocking, time::Instant};

use super::{cache::Cache, failure::Failure};
use crate::{
    meters::{self, Operation},
    objects::sealed,
};

/// One request and its retries, which the library makes by itself.
const REQUESTS: Patience =
    Patience { request: Duration::from_secs(30), retries: 2, retry_for: Duration::from_secs(10) };
/// Bytes that are copied and hashed at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// The store and the cache. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Store {
    store: Arc<dyn ObjectStore>,
    /// The same store with keys of their own, for the tenants that have some.
    of_tenants: Arc<BTreeMap<Tenant, Arc<dyn ObjectStore>>>,
    prefix: Path,
    /// Where the objects lie, if the store is a folder.
    folder: Option<PathBuf>,
    cache: Arc<Cache>,
}

impl Store {
    /// Opens the store at `url`, and once more for each tenant with a profile.
    pub(super) fn open(url: &ObjectStoreUrl, profiles: &[(Tenant, String)], cache: Cache) -> Result<Self, OpenError> {
        let environment = Environment::of_process();
        let Opened { store, prefix, .. } = sortinghat_objects::open(url, REQUESTS, &environment)?;
        let of_tenants = profiles.iter().map(|(tenant, profile)| {
            let opened = sortinghat_objects::open_as(profile, url, REQUESTS, &environment)?;
            tracing::info!(%tenant, profile, "the objects of this tenant are reached with the keys of a profile");
            Ok((tenant.clone(), opened.store))
        });
        let of_tenants = Arc::new(of_tenants.collect::<Result<_, OpenError>>()?);
        Ok(Self { store, of_tenants, prefix, folder: url.folder(), cache: Arc::new(cache) })
    }

    /// The store as this tenant's objects are reached.
    fn of(&self, tenant: &Tenant) -> &dyn ObjectStore {
        self.of_tenants.get(tenant).unwrap_or(&self.store)
    }

    /// Whether the objects are files of a folder, which need no room in memory.
    pub(super) fn is_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// An object's content, not cached and not checked, because whoever reads it checks it. Of a folder, it is the file itself.
    pub(super) async fn read(self, tenant: Tenant, object: ObjectRef) -> Result<File, Failure> {
        match &self.folder {
            Some(folder) => {
                let path = folder.join(object.digest.object_key(&tenant));
                blocking(move || open_file(path, &object)).await
            }
            None => self.fetch_into_memory(&tenant, &object).await,
        }
    }

    async fn fetch_into_memory(&self, tenant: &Tenant, object: &ObjectRef) -> Result<File, Failure> {
        let (mut pieces, mut file) = (self.get(tenant, object).await?, sealed::memory_file()?);
        let mut left = object.size_bytes;
        while let Some(piece) = pieces.try_next().await.map_err(Failure::of_store)? {
            let length = piece.len() as u64;
            left = left.checked_sub(length).ok_or_else(|| Failure::Corrupt("the store's copy is longer".into()))?;
            file.write_all(&piece)?;
        }
        if left > 0 {
            return Err(Failure::Corrupt(format!("the store's copy lacks {left} bytes")));
        }
        blocking(move || Ok(sealed::seal(file)?.into())).await
    }

    /// An object as a file of the cache, which is fetched and checked if it is not there.
    pub(super) async fn cached(self, tenant: Tenant, object: ObjectRef) -> Result<File, Failure> {
        blocking(move || {
            let kept = self.cache.open(&tenant, &object)?;
            meters::looked_into_cache(kept.is_some());
            if let Some(file) = kept {
                return Ok(file);
            }
            let runtime = Handle::current();
            // What the store has is asked first: room in the cache is made only for what exists.
            let mut pieces = runtime.block_on(self.get(&tenant, &object))?;
            let mut insertion = self.cache.insert(&tenant, &object)?;
            while let Some(piece) = runtime.block_on(pieces.try_next()).map_err(Failure::of_store)? {
                insertion.write(&piece)?;
            }
            insertion.finish()
        })
        .await
    }

    /// The content of an object that has the right length, in pieces.
    async fn get(
        &self,
        tenant: &Tenant,
        object: &ObjectRef,
    ) -> Result<futures::stream::BoxStream<'static, object_store::Result<Bytes>>, Failure> {
        let key = self.key(tenant, &object.digest);
        let found = timed(Operation::Get, self.of(tenant).get(&key)).await;
        let found = found.map_err(|error| failure(tenant, error))?;
        if found.meta.size != object.size_bytes {
            return Err(wrong_length(found.meta.size));
        }
        Ok(found.into_stream().boxed())
    }

    /// The reference to an object of which only the digest is known.
    pub(super) async fn find(self, tenant: Tenant, digest: Digest) -> Result<ObjectRef, Failure> {
        let key = self.key(&tenant, &digest);
        let found = timed(Operation::Head, self.of(&tenant).head(&key)).await;
        let found = found.map_err(|error| failure(&tenant, error))?;
        Ok(ObjectRef { digest, size_bytes: found.size })
    }

    /// Stores so many bytes of a sealed file under the name that its content has.
    pub(super) async fn put(self, tenant: Tenant, file: File, bytes: u64) -> Result<ObjectRef, Failure> {
        let (object, payload) = blocking(move || copy(&file, bytes).map_err(Failure::Machine)).await?;
        let key = self.key(&tenant, &object.digest);
        let stored = timed(Operation::Put, self.of(&tenant).put(&key, payload)).await;
        stored.map_err(|error| failure(&tenant, error))?;
        Ok(object)
    }

    /// Stores bytes that this process has, under the name that they have.
    pub(super) async fn put_bytes(self, tenant: Tenant, bytes: Bytes) -> Result<ObjectRef, Failure> {
        let object = {
            let bytes = bytes.clone();
            blocking(move || Ok(ObjectRef::of(&bytes))).await?
        };
        let key = self.key(&tenant, &object.digest);
        let stored = timed(Operation::Put, self.of(&tenant).put(&key, bytes.into())).await;
        stored.map_err(|error| failure(&tenant, error))?;
        Ok(object)
    }

    fn key(&self, tenant: &Tenant, digest: &Digest) -> Path {
        let mut key = self.prefix.clone();
        for part in digest.object_key(tenant).split('/') {
            key = key.join(part);
        }
        key
    }
}

/// Asks the store, and notes how long that took and whether it failed.
async fn timed<T>(
    operation: Operation,
    request: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    let begun = Instant::now();
    let answer = request.await;
    meters::asked_store(operation, begun.elapsed(), answer.as_ref().err());
    answer
}

/// What the store's error means. If somebody has to change something, the log says what, since the worker's own keys may work all the same.
fn failure(tenant: &Tenant, error: object_store::Error) -> Failure {
    let failure = Failure::of_store(error);
    if let Failure::Store(error) = &failure
        && Trouble::of(error).is_permanent()
    {
        tracing::warn!(%tenant, detail = Trouble::in_detail(error), "an object of this tenant cannot be reached");
    }
    failure
}

/// Runs what waits for a disk beside the threads that serve requests.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Failure::Machine(io::Error::other(error))))
}

fn open_file(path: PathBuf, object: &ObjectRef) -> Result<File, Failure> {
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((found, file)) if found.is_file() && found.len() == object.size_bytes => Ok(file),
        Ok((found, _)) => Err(wrong_length(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::Missing),
        Err(error) => Err(Failure::Store(object_store::Error::Generic { store: "folder", source: error.into() })),
    }
}

fn wrong_length(bytes: u64) -> Failure {
    Failure::Corrupt(format!("the store's copy has {bytes} bytes"))
}

/// The first bytes of a file, and the object that they are. They are read and not mapped: an executor may have made a file of holes, and a
/// hole that is read takes no memory of the file's.
fn copy(file: &File, bytes: u64) -> io::Result<(ObjectRef, PutPayload)> {
    let (mut hasher, mut pieces, mut done) = (Sha256::new(), Vec::new(), 0);
    while done < bytes {
        let mut piece = vec![0; (bytes - done).min(PIECE_BYTES) as usize];
        file.read_exact_at(&mut piece, done)?;
        hasher.update(&piece);
        done += piece.len() as u64;
        pieces.push(Bytes::from(piece));
    }
    Ok((ObjectRef { digest: Digest::from_hasher(hasher), size_bytes: bytes }, pieces.into_iter().collect()))
}
