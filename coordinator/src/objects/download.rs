//! Reads one object in pieces that fit into a message.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use object_store::ObjectStoreExt as _;
use sha2::{Digest as _, Sha256};
use sortinghat_objects::is_missing;
use sortinghat_proto::{Digest, Tenant, limits};

use super::{ObjectError, Objects};

/// The rest of a download.
struct Download {
    content: BoxStream<'static, object_store::Result<Bytes>>,
    pending: Bytes,
    hasher: Sha256,
    digest: Digest,
}

impl Objects {
    /// Reads the object's content in pieces of at most [`limits::MAX_PIECE_BYTES`], in order. If the content does not match the digest, the
    /// stream ends with [`ObjectError::Corrupt`] after the last piece.
    ///
    /// # Errors
    /// [`ObjectError::NotFound`], [`ObjectError::Store`].
    pub async fn read(
        &self,
        tenant: &Tenant,
        digest: Digest,
    ) -> Result<impl Stream<Item = Result<Bytes, ObjectError>> + Send + 'static + use<>, ObjectError> {
        let content = match self.store.get(&self.path(tenant, &digest)).await {
            Ok(found) => found.into_stream(),
            Err(error) if is_missing(&error) => return Err(ObjectError::NotFound { digest }),
            Err(source) => return Err(failed(source)),
        };
        let download = Download { content, pending: Bytes::new(), hasher: Sha256::new(), digest };
        Ok(futures::stream::try_unfold(download, Download::next))
    }
}

impl Download {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ObjectError> {
        while self.pending.is_empty() {
            match self.content.next().await {
                Some(bytes) => self.pending = bytes.map_err(failed)?,
                None if Digest::from_hasher(self.hasher) == self.digest => return Ok(None),
                None => return Err(ObjectError::Corrupt { digest: self.digest }),
            }
        }
        let piece = self.pending.split_to(self.pending.len().min(limits::MAX_PIECE_BYTES));
        self.hasher.update(&piece);
        Ok(Some((piece, self)))
    }
}

fn failed(source: object_store::Error) -> ObjectError {
    ObjectError::Store { operation: "read an object", source }
}
