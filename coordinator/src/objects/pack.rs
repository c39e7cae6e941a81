//! Stores the objects of a pack as their bytes arrive, each if it matches its announcement.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use object_store::{ObjectStoreExt as _, PutPayload};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{Digest, ObjectRef, Tenant};
use tokio::task::JoinSet;

use super::{ObjectError, Objects};

/// How many objects of one pack are stored at a time, beside those of other packs.
const AT_A_TIME: usize = 32;

/// A pack that arrives. What of it was stored before it is dropped stays: each object stands for itself.
#[derive(Debug)]
pub struct Pack {
    objects: Objects,
    tenant: Tenant,
    /// The objects of which no byte has been taken yet.
    waiting: VecDeque<ObjectRef>,
    arriving: Option<Arriving>,
    storing: JoinSet<Result<(), ObjectError>>,
}

/// The object whose bytes arrive.
#[derive(Debug)]
struct Arriving {
    announced: ObjectRef,
    /// How many of its bytes have not arrived.
    left_bytes: u64,
    hasher: Sha256,
    /// A copy: a piece that is kept would keep the memory of the whole message in which it came.
    content: BytesMut,
}

impl Arriving {
    fn new(announced: ObjectRef) -> Self {
        let left_bytes = announced.size_bytes;
        // The caller has taken the memory for all bytes that the index announces.
        let content = BytesMut::with_capacity(usize::try_from(left_bytes).unwrap_or_default());
        Self { announced, left_bytes, hasher: Sha256::new(), content }
    }

    /// Takes the object's bytes from the beginning of `piece`.
    fn take(&mut self, piece: &mut Bytes) {
        let most = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let bytes = piece.split_to(piece.len().min(most));
        self.left_bytes -= bytes.len() as u64;
        self.hasher.update(&bytes);
        self.content.extend_from_slice(&bytes);
    }

    /// The whole content, if it matches the announcement.
    fn finish(self) -> Result<(Digest, PutPayload), ObjectError> {
        let (digest, announced) = (Digest::from_hasher(self.hasher), self.announced.digest);
        match digest == announced {
            true => Ok((digest, self.content.freeze().into())),
            false => {
                Err(ObjectError::Mismatch { reason: format!("a digest is {digest}, but {announced} was announced") })
            }
        }
    }
}

impl Objects {
    /// Begins to store these objects, whose contents follow each other in this order. They are stored without a look at what exists: whoever
    /// sends a pack has asked what is missing.
    pub fn pack(&self, tenant: &Tenant, index: Vec<ObjectRef>) -> Pack {
        Pack {
            objects: self.clone(),
            tenant: tenant.clone(),
            waiting: index.into(),
            arriving: None,
            storing: JoinSet::new(),
        }
    }
}

impl Pack {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`ObjectError::Mismatch`] if an object is not what was announced, or if there are more bytes than announced; [`ObjectError::Store`].
    /// The objects before that one may have been stored.
    pub async fn write(&mut self, mut piece: Bytes) -> Result<(), ObjectError> {
        loop {
            let Some(mut arriving) = self.arriving.take().or_else(|| self.waiting.pop_front().map(Arriving::new))
            else {
                return match piece.is_empty() {
                    true => Ok(()),
                    false => {
                        Err(ObjectError::Mismatch { reason: "more bytes were sent than the index announces".into() })
                    }
                };
            };
            arriving.take(&mut piece);
            if arriving.left_bytes > 0 {
                self.arriving = Some(arriving);
                return Ok(());
            }
            let (digest, content) = arriving.finish()?;
            self.store(digest, content).await?;
        }
    }

    /// Waits until all objects are durable.
    ///
    /// # Errors
    /// [`ObjectError::Mismatch`] if bytes are missing; [`ObjectError::Store`].
    pub async fn finish(mut self) -> Result<(), ObjectError> {
        // The last objects may be empty.
        self.write(Bytes::new()).await?;
        if let Some(arriving) = &self.arriving {
            let reason = format!("the content ends {} bytes before the end of an object", arriving.left_bytes);
            return Err(ObjectError::Mismatch { reason });
        }
        while self.one_stored().await? {}
        Ok(())
    }

    async fn store(&mut self, digest: Digest, content: PutPayload) -> Result<(), ObjectError> {
        if self.storing.len() >= AT_A_TIME {
            self.one_stored().await?;
        }
        let (objects, path) = (self.objects.clone(), self.objects.path(&self.tenant, &digest));
        self.storing.spawn(async move {
            let _place = Arc::clone(&objects.packed).acquire_owned().await.expect("the semaphore is never closed");
            let stored = objects.store.put(&path, content).await;
            stored.map(drop).map_err(|source| ObjectError::Store { operation: "store an object", source })
        });
        Ok(())
    }

    /// Waits until one of the objects is stored. `false` if none was being stored.
    async fn one_stored(&mut self) -> Result<bool, ObjectError> {
        match self.storing.join_next().await {
            None => Ok(false),
            Some(stored) => stored.expect("storing does not panic").map(|()| true),
        }
    }
}
