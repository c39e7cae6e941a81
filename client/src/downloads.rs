//! Downloads objects, also over connections that break.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use sortinghat_proto::{
    Digest, ObjectRef,
    manifest::{self, Document},
    v1::{ReadObjectRequest, ReadObjectResponse},
};
use tempfile::{Builder, NamedTempFile};
use tonic::{Status, Streaming};

use crate::{Client, ClientError, error::is_transient};

impl Client {
    /// Reads the whole content of an object, and checks it against its digest.
    ///
    /// # Errors
    /// [`ClientError::CorruptObject`] if the content does not match the digest.
    pub async fn read_object(&self, object: &ObjectRef) -> Result<Vec<u8>, ClientError> {
        let mut content = Vec::new();
        self.receive_object(object, &mut content, Path::new("memory")).await?;
        Ok(content)
    }

    /// Writes an object to `path`. The file appears only once it is complete and checked.
    ///
    /// # Errors
    /// [`ClientError::CorruptObject`] if the content does not match the digest, [`ClientError::File`] if the file cannot be written.
    pub async fn save_object(&self, object: &ObjectRef, path: &Path, existing: Existing) -> Result<(), ClientError> {
        let (staged, mut file) = Staged::create(path).map_err(ClientError::writing(path))?;
        self.receive_object(object, &mut file, path).await?;
        staged.finish(existing).map_err(ClientError::writing(path))
    }

    /// Reads a stored document.
    ///
    /// # Errors
    /// [`ClientError::Document`] if the object is a document of another format or version.
    pub async fn read_document<T: Document>(&self, object: &ObjectRef) -> Result<T, ClientError> {
        let bytes = self.read_object(object).await?;
        manifest::decode(&bytes).map_err(|source| ClientError::Document { digest: object.digest.clone(), source })
    }

    async fn receive_object(&self, object: &ObjectRef, sink: &mut impl Write, path: &Path) -> Result<(), ClientError> {
        let digest = object.digest.to_string();
        let call = || {
            let (mut service, request) = (self.artifacts(), ReadObjectRequest { digest: digest.clone() });
            async move { service.read_object(request).await }
        };
        let mut received = Received { sink, path, hasher: Sha256::new(), bytes: 0 };
        let (mut backoff, mut bytes) = (self.backoff(), 0);
        while let Some(broken) = received.take(self.retry(call).await?.into_inner()).await? {
            if received.bytes > bytes {
                bytes = received.bytes;
                backoff.reset();
            }
            if !is_transient(&broken) || !backoff.pause_after(&broken).await {
                return Err(ClientError::of(broken));
            }
        }
        received.check(object)
    }
}

/// The part of an object that has arrived so far.
struct Received<'a, W> {
    sink: &'a mut W,
    /// The path of the sink, for errors.
    path: &'a Path,
    hasher: Sha256,
    bytes: usize,
}

impl<W: Write> Received<'_, W> {
    /// Receives an object from its beginning, and skips the part that has arrived before; this is right because objects never change.
    /// Returns the error that broke the stream, or `None` if the stream came to its end.
    async fn take(&mut self, mut pieces: Streaming<ReadObjectResponse>) -> Result<Option<Status>, ClientError> {
        let mut known = self.bytes;
        loop {
            let piece = match pieces.message().await {
                Ok(Some(piece)) => piece.data,
                Ok(None) => return Ok(None),
                Err(status) => return Ok(Some(status)),
            };
            let new = &piece[known.min(piece.len())..];
            known = known.saturating_sub(piece.len());
            self.hasher.update(new);
            self.bytes += new.len();
            self.sink.write_all(new).map_err(ClientError::writing(self.path))?;
        }
    }

    fn check(self, object: &ObjectRef) -> Result<(), ClientError> {
        if Digest::from_hasher(self.hasher) == object.digest {
            return Ok(());
        }
        let reason = format!("{} of {} bytes arrived, and their digest is another one", self.bytes, object.size_bytes);
        Err(ClientError::CorruptObject { digest: object.digest.clone(), reason })
    }
}

/// What becomes of a file that already has the name under which another one is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is kept, and nothing is saved.
    Keep,
    /// The new file takes its place, all at once.
    Replace,
}

/// A file that appears under its own name once it is complete. If it is dropped before that, it leaves nothing behind.
pub(crate) struct Staged {
    part: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    pub(crate) fn create(path: &Path) -> io::Result<(Self, fs::File)> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The permissions of any new file, and not those of a file that only its owner may read.
        let permissions = fs::Permissions::from_mode(0o666);
        let part = Builder::new().prefix(".hat-").suffix(".part").permissions(permissions).tempfile_in(folder)?;
        let file = part.as_file().try_clone()?;
        Ok((Self { part, path: path.to_owned() }, file))
    }

    pub(crate) fn finish(self, existing: Existing) -> io::Result<()> {
        let named = match existing {
            Existing::Keep => self.part.persist_noclobber(self.path),
            Existing::Replace => self.part.persist(self.path),
        };
        named.map(drop).map_err(|error| error.error)
    }
}
