//! Lists and removes objects, and removes the files that unfinished uploads have left.

use std::{
    fs, io,
    path::{Path as FilePath, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{ObjectMeta, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};
use sha2::{Digest as _, Sha256};
use sortinghat_objects::{QUEUE_ID, is_missing};
use sortinghat_proto::{Digest, ObjectRef, Refusal, Tenant, limits, time::UnixMs};

use super::{ObjectError, Objects};
use crate::engine::{ObjectInventory, ObjectPresence, StoredObject};

#[async_trait]
impl ObjectPresence for Objects {
    async fn holds(&self, tenant: &Tenant, object: &ObjectRef) -> Result<bool, Refusal> {
        Ok(self.contains(tenant, object).await?)
    }

    async fn is_sound(&self, tenant: &Tenant, digest: &Digest) -> Result<bool, Refusal> {
        let read = async { self.read(tenant, digest.clone()).await?.try_for_each(async |_| Ok(())).await };
        match read.await {
            Ok(()) => Ok(true),
            Err(ObjectError::NotFound { .. } | ObjectError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn document(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<Bytes>, Refusal> {
        let found = match self.store.get(&self.path(tenant, digest)).await {
            Ok(found) if found.meta.size <= limits::MAX_MANIFEST_BYTES => found,
            Ok(_) => return Ok(None),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(source) => return Err(ObjectError::Store { operation: "read a document", source }.into()),
        };
        let (mut content, mut hasher) = (BytesMut::new(), Sha256::new());
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(failed("read a document"))?;
            hasher.update(&piece);
            content.extend_from_slice(&piece);
            // The first character tells a document from a photo or a shard, whose rest need not be read.
            if content.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte != b'{') {
                return Ok(None);
            }
        }
        if Digest::from_hasher(hasher) != *digest {
            return Err(ObjectError::Corrupt { digest: digest.clone() }.into());
        }
        Ok(Some(content.freeze()))
    }
}

#[async_trait]
impl ObjectInventory for Objects {
    async fn claim(&self, queue: &str) -> Result<String, Refusal> {
        let path = self.prefix.clone().join(QUEUE_ID);
        let read = async || self.store.get(&path).await?.bytes().await;
        let owner = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).trim().to_owned();
        // A store that belongs to a queue already needs no room for the question.
        match read().await {
            Ok(bytes) => return Ok(owner(bytes)),
            Err(error) if is_missing(&error) => {}
            Err(source) => return Err(failed("read the queue's id")(source)),
        }
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let content = || PutPayload::from(queue.to_owned().into_bytes());
        match self.store.put_opts(&path, content(), create).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(object_store::Error::NotImplemented { .. }) if self.store.head(&path).await.is_err() => {
                self.store.put(&path, content()).await.map_err(failed("store the queue's id"))?;
            }
            Err(object_store::Error::NotImplemented { .. }) => {}
            Err(source) => return Err(failed("store the queue's id")(source)),
        }
        read().await.map(owner).map_err(failed("read the queue's id"))
    }

    async fn now(&self) -> Result<UnixMs, Refusal> {
        let path = self.probe_path();
        self.store.put(&path, b"probe".as_slice().into()).await.map_err(failed("store a probe object"))?;
        let written = self.store.head(&path).await.map(|meta| written(&meta)).map_err(failed("look for an object"));
        self.store.delete(&path).await.map_err(failed("remove an object"))?;
        written
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, Refusal> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix.clone().join("t"))).await;
        let folders = listed.map_err(failed("list tenants"))?.common_prefixes;
        Ok(folders.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    fn list(&self, tenant: &Tenant) -> BoxStream<'static, Result<StoredObject, Refusal>> {
        let listed = self.store.list(Some(&self.folder(tenant))).map_err(failed("list objects"));
        // A file whose name is not a digest is not an object.
        listed.try_filter_map(async |meta| Ok(stored(&meta))).boxed()
    }

    async fn find(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<StoredObject>, Refusal> {
        match self.store.head(&self.path(tenant, digest)).await {
            Ok(meta) => Ok(stored(&meta)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(source) => Err(failed("look for an object")(source)),
        }
    }

    async fn remove(&self, tenant: &Tenant, digest: &Digest) -> Result<(), Refusal> {
        match self.store.delete(&self.path(tenant, digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("remove an object")(source)),
        }
    }

    async fn remove_unfinished(&self, tenant: &Tenant, before: UnixMs) -> Result<usize, Refusal> {
        // The parts of unfinished uploads to S3 cannot be listed here. A lifecycle rule of the bucket removes them.
        let Some(root) = &self.local else { return Ok(0) };
        let folder = root.join(self.folder(tenant).as_ref());
        let removed = tokio::task::spawn_blocking(move || remove_staged(folder, before)).await;
        removed.expect("removing files does not panic").map_err(|source| {
            let source = object_store::Error::Generic { store: "folder", source: Box::new(source) };
            failed("remove unfinished uploads")(source)
        })
    }
}

fn failed(operation: &'static str) -> impl Fn(object_store::Error) -> Refusal {
    move |source| ObjectError::Store { operation, source }.into()
}

fn written(meta: &ObjectMeta) -> UnixMs {
    UnixMs(u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default())
}

fn stored(meta: &ObjectMeta) -> Option<StoredObject> {
    let digest = meta.location.filename()?.parse().ok()?;
    Some(StoredObject { digest, size_bytes: meta.size, written: written(meta) })
}

/// Removes the files of unfinished uploads, `<digest>#<number>`, that were last written to before the given time.
fn remove_staged(folder: PathBuf, before: UnixMs) -> io::Result<usize> {
    let (mut folders, mut removed) = (vec![folder], 0);
    while let Some(folder) = folders.pop() {
        for entry in or_gone(fs::read_dir(&folder))?.into_iter().flatten() {
            let entry = entry?;
            let Some(metadata) = or_gone(entry.metadata())? else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if is_staged(&entry.path()) && unix_ms(metadata.modified()?) < before {
                removed += usize::from(or_gone(fs::remove_file(entry.path()))?.is_some());
            }
        }
    }
    Ok(removed)
}

fn is_staged(path: &FilePath) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('#'));
    name.is_some_and(|(digest, number)| digest.parse::<Digest>().is_ok() && number.parse::<u64>().is_ok())
}

fn unix_ms(time: SystemTime) -> UnixMs {
    UnixMs(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

/// Turns the error for a file that does not exist any more into `None`.
fn or_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Objects {
    /// The folder of the tenant's objects.
    fn folder(&self, tenant: &Tenant) -> Path {
        self.prefix.clone().join("t").join(tenant.as_str())
    }
}
