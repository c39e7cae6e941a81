//! Objects from the server, through connections that break.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use sortinghat_proto::{
    Digest, ObjectRef,
    manifest::{self, Document},
    v1::{ReadObjectRequest, ReadObjectResponse},
};
use tonic::{Status, Streaming};

use crate::{Client, ClientError, error::is_transient};

impl Client {
    /// The whole content of an object, checked against its digest.
    ///
    /// # Errors
    /// [`ClientError::CorruptObject`] if it is not what the digest says.
    pub async fn read_object(&self, object: &ObjectRef) -> Result<Vec<u8>, ClientError> {
        let mut content = Vec::new();
        self.receive_object(object, &mut content, Path::new("memory")).await?;
        Ok(content)
    }

    /// Writes an object to `path`, which appears only once it is whole and checked.
    ///
    /// # Errors
    /// [`ClientError::CorruptObject`] if it is not what the digest says, [`ClientError::File`] if it cannot be written.
    pub async fn save_object(&self, object: &ObjectRef, path: &Path) -> Result<(), ClientError> {
        let (staged, mut file) = Staged::create(path).map_err(ClientError::writing(path))?;
        self.receive_object(object, &mut file, path).await?;
        staged.finish().map_err(ClientError::writing(path))
    }

    /// A stored document.
    ///
    /// # Errors
    /// [`ClientError::Document`] if it is of another format or version.
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

/// What has come of an object so far.
struct Received<'a, W> {
    sink: &'a mut W,
    /// Of the sink, for errors.
    path: &'a Path,
    hasher: Sha256,
    bytes: usize,
}

impl<W: Write> Received<'_, W> {
    /// Takes an object's content from its beginning, without what came before: an object never changes. Returns how the stream
    /// broke, `None` if it came to its end.
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
        let reason = format!("{} of {} bytes came, with another digest", self.bytes, object.size_bytes);
        Err(ClientError::CorruptObject { digest: object.digest.clone(), reason })
    }
}

/// A file that appears under its own name once it is whole. Dropped before, it leaves nothing behind.
pub(crate) struct Staged {
    part: PathBuf,
    path: PathBuf,
}

impl Staged {
    pub(crate) fn create(path: &Path) -> io::Result<(Self, fs::File)> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let staged = Self { part: part.into(), path: path.to_owned() };
        let file = fs::File::create(&staged.part)?;
        Ok((staged, file))
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        fs::rename(&self.part, &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // A finished one has another name by now; what is half is of no use to anyone.
        let _ = fs::remove_file(&self.part);
    }
}
