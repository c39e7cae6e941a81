//! Stores one object as its bytes arrive, if they match the announcement.

use bytes::{Bytes, BytesMut};
use object_store::{ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{Digest, ObjectRef, Tenant, limits};

use super::{ObjectError, Objects};

/// Objects up to this many bytes are gathered in memory and stored in one request. The parts of S3 have at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// How many parts of one object may be in flight. Together with [`PART_BYTES`], this bounds the memory of one upload.
const CONCURRENT_PARTS: usize = 2;

/// An upload in progress. If it is dropped before [`finish`](Upload::finish), readers see nothing of it.
#[derive(Debug)]
pub struct Upload {
    announced: ObjectRef,
    received_bytes: u64,
    hasher: Sha256,
    sink: Sink,
}

/// The destination of the bytes.
#[derive(Debug)]
enum Sink {
    /// The object exists already, so the bytes are only checked.
    Present,
    /// The object is small, so it is gathered and stored at the end.
    Small { objects: Objects, path: object_store::path::Path, content: BytesMut },
    /// The object is large, so its parts are stored as they arrive and made visible at the end.
    Large(WriteMultipart),
}

impl Objects {
    /// Begins to store an object.
    ///
    /// # Errors
    /// [`ObjectError::TooLarge`], [`ObjectError::Store`].
    pub async fn upload(&self, tenant: &Tenant, announced: ObjectRef) -> Result<Upload, ObjectError> {
        let (size_bytes, max_bytes) = (announced.size_bytes, limits::MAX_OBJECT_BYTES);
        if size_bytes > max_bytes {
            return Err(ObjectError::TooLarge { size_bytes, max_bytes });
        }
        let path = self.path(tenant, &announced.digest);
        let sink = if self.contains(tenant, &announced).await? {
            Sink::Present
        } else if size_bytes <= PART_BYTES as u64 {
            Sink::Small { objects: self.clone(), path, content: BytesMut::new() }
        } else {
            let parts = self.store.put_multipart(&path).await.map_err(failed)?;
            Sink::Large(WriteMultipart::new_with_chunk_size(parts, PART_BYTES))
        };
        Ok(Upload { announced, received_bytes: 0, hasher: Sha256::new(), sink })
    }

    /// Stores an object from memory.
    ///
    /// # Errors
    /// [`ObjectError::TooLarge`], [`ObjectError::Store`].
    pub async fn put(&self, tenant: &Tenant, content: Bytes) -> Result<ObjectRef, ObjectError> {
        let mut upload = self.upload(tenant, ObjectRef::of(&content)).await?;
        upload.write(content).await?;
        upload.finish().await
    }
}

impl Upload {
    /// How much memory an upload of so many bytes holds at most.
    pub fn memory_bytes(size_bytes: u64) -> usize {
        usize::try_from(size_bytes).unwrap_or(usize::MAX).min(PART_BYTES * (1 + CONCURRENT_PARTS))
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// [`ObjectError::Mismatch`] as soon as there are more bytes than announced; [`ObjectError::Store`]. After an error, call
    /// [`abort`](Upload::abort).
    pub async fn write(&mut self, piece: Bytes) -> Result<(), ObjectError> {
        self.received_bytes += piece.len() as u64;
        if self.received_bytes > self.announced.size_bytes {
            let reason = format!("more than {} bytes were sent", self.announced.size_bytes);
            return Err(ObjectError::Mismatch { reason });
        }
        self.hasher.update(&piece);
        match &mut self.sink {
            Sink::Present => {}
            Sink::Small { content, .. } => content.extend_from_slice(&piece),
            Sink::Large(parts) => {
                parts.wait_for_capacity(CONCURRENT_PARTS).await.map_err(failed)?;
                // A copy: a small piece that is kept would keep the memory of the whole message in which it came.
                parts.write(&piece);
            }
        }
        Ok(())
    }

    /// Checks the received bytes and makes the object visible. The object is durable when this returns.
    ///
    /// # Errors
    /// [`ObjectError::Mismatch`] or [`ObjectError::Store`]. In both cases, readers see nothing of the upload.
    pub async fn finish(mut self) -> Result<ObjectRef, ObjectError> {
        let digest = Digest::from_hasher(std::mem::take(&mut self.hasher));
        let expected = &self.announced;
        let reason = if self.received_bytes != expected.size_bytes {
            Some(format!("{} bytes were sent, but {} were announced", self.received_bytes, expected.size_bytes))
        } else if digest != expected.digest {
            Some(format!("its digest is {digest}, but {} was announced", expected.digest))
        } else {
            None
        };
        if let Some(reason) = reason {
            self.abort().await;
            return Err(ObjectError::Mismatch { reason });
        }
        match self.sink {
            Sink::Present => {}
            Sink::Small { objects, path, content } => {
                objects.store.put(&path, content.freeze().into()).await.map_err(failed)?;
            }
            Sink::Large(parts) => {
                parts.finish().await.map_err(failed)?;
            }
        }
        Ok(self.announced)
    }

    /// Gives up, and removes the parts that were stored.
    pub async fn abort(self) {
        if let Sink::Large(parts) = self.sink
            && let Err(error) = parts.abort().await
        {
            tracing::warn!(%error, digest = %self.announced.digest, "failed to remove the parts of an abandoned upload");
        }
    }
}

fn failed(source: object_store::Error) -> ObjectError {
    ObjectError::Store { operation: "store an object", source }
}
