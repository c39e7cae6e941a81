//! Uploads files: hashes them, asks which are missing, sends those, and uploads the list of all.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{
    Digest, ObjectRef, limits,
    manifest::{self, UploadManifest, UploadedFile},
    v1::{FindMissingObjectsRequest, UploadObjectRequest, upload_object_request::Part},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{Client, ClientError, client::Artifacts, jobs::object};

/// Uploads at a time. Each upload waits until it is durable, so several at a time use that waiting.
const UPLOADS_AT_A_TIME: usize = 8;
/// Pieces of one upload that are read before they can be sent.
const PIECES_AHEAD: usize = 2;

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path in the upload: relative, with `/` between the parts.
    pub path: String,
    /// Its path on this machine.
    pub location: PathBuf,
    /// Its length in bytes when the folder was listed.
    pub size_bytes: u64,
}

/// How far an upload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadProgress {
    /// Files are read and hashed.
    Hashed {
        /// Files that are done.
        done: u64,
        /// Files in all.
        total: u64,
    },
    /// The files that the server lacked are sent.
    Sent {
        /// Files that are done.
        done: u64,
        /// Files that the server lacked.
        total: u64,
    },
}

impl Client {
    /// Uploads those of `files` that the server lacks, and then a manifest that lists all of them in this order. Returns the manifest.
    ///
    /// # Errors
    /// [`ClientError::File`] or [`ClientError::FileChanged`] with the file at fault, or the server's refusal.
    pub async fn upload(
        &self,
        files: &[SourceFile],
        progress: impl Fn(UploadProgress) + Sync,
    ) -> Result<ObjectRef, ClientError> {
        let objects = hash_all(files, &progress).await?;
        let mut unique = HashSet::new();
        let locations: HashMap<&Digest, (&ObjectRef, &Path)> = objects
            .iter()
            .zip(files)
            .map(|(object, file)| (&object.digest, (object, file.location.as_path())))
            .collect();
        let digests: Vec<Digest> = objects.iter().map(|o| &o.digest).filter(|d| unique.insert(*d)).cloned().collect();
        let missing = self.find_missing(&digests).await?;

        let (total, sent) = (missing.len() as u64, AtomicU64::new(0));
        progress(UploadProgress::Sent { done: 0, total });
        let uploads = missing.iter().filter_map(|digest| locations.get(digest)).map(|(object, location)| async {
            self.upload_file_as(object, location).await?;
            let done = sent.fetch_add(1, Ordering::Relaxed) + 1;
            progress(UploadProgress::Sent { done, total });
            Ok::<_, ClientError>(())
        });
        stream::iter(uploads).buffer_unordered(UPLOADS_AT_A_TIME).try_collect::<()>().await?;

        let listed = files.iter().zip(objects).map(|(file, object)| UploadedFile { path: file.path.clone(), object });
        let bytes = manifest::encode(&UploadManifest { files: listed.collect() });
        self.upload_bytes(bytes.into()).await
    }

    /// Uploads one file, unless the server has it.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn upload_file(&self, location: &Path) -> Result<ObjectRef, ClientError> {
        let object = hash_in_background(location.to_owned()).await?;
        if !self.find_missing(std::slice::from_ref(&object.digest)).await?.is_empty() {
            self.upload_file_as(&object, location).await?;
        }
        Ok(object)
    }

    /// Uploads bytes from memory, unless the server has them.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn upload_bytes(&self, content: Bytes) -> Result<ObjectRef, ClientError> {
        let object = ObjectRef::of(&content);
        let call = || {
            let header = UploadObjectRequest { part: Some(Part::Header(object.clone().into())) };
            let content = content.clone();
            let starts = (0..content.len()).step_by(limits::MAX_PIECE_BYTES);
            let pieces: Vec<_> = starts
                .map(|start| content.slice(start..(start + limits::MAX_PIECE_BYTES).min(content.len())))
                .map(|data| UploadObjectRequest { part: Some(Part::Data(data)) })
                .collect();
            let mut service = self.artifacts();
            async move { service.upload_object(stream::iter(std::iter::once(header).chain(pieces))).await }
        };
        self::object(self.retry(call).await?.into_inner().object)
    }

    /// Those of `digests` that the server lacks, in the same order.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, ClientError> {
        let mut missing = HashSet::new();
        for some in digests.chunks(limits::MAX_DIGESTS_PER_CALL) {
            let request = FindMissingObjectsRequest { digests: some.iter().map(Digest::to_string).collect() };
            let call = |mut artifacts: Artifacts, request| async move { artifacts.find_missing_objects(request).await };
            let answer = self.call(self.artifacts(), request, call).await?;
            missing.extend(answer.missing);
        }
        Ok(digests.iter().filter(|digest| missing.contains(digest.as_str())).cloned().collect())
    }

    async fn upload_file_as(&self, object: &ObjectRef, location: &Path) -> Result<(), ClientError> {
        let call = || async {
            let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
            let (header, path) = (object.clone(), location.to_owned());
            // This thread ends when the call ends, because then its receiver is gone.
            tokio::task::spawn_blocking(move || send_pieces(header, &path, &pieces));
            self.artifacts().upload_object(ReceiverStream::new(receiver)).await
        };
        match self.retry(call).await {
            Ok(_) => Ok(()),
            // The server received other bytes than were hashed here, or the file cannot be read any more.
            Err(ClientError::Refused(refusal)) => match hash_in_background(location.to_owned()).await? {
                now if now == *object => Err(ClientError::Refused(refusal)),
                _ => Err(ClientError::FileChanged { path: location.to_owned() }),
            },
            Err(error) => Err(error),
        }
    }
}

/// Sends the header and the file's content. If the file cannot be read, the content ends early, and the server refuses it.
fn send_pieces(header: ObjectRef, path: &Path, pieces: &mpsc::Sender<UploadObjectRequest>) {
    let mut part = Some(Part::Header(header.into()));
    let mut file = fs::File::open(path);
    while let Some(next) = part {
        if pieces.blocking_send(UploadObjectRequest { part: Some(next) }).is_err() {
            return;
        }
        part = file.as_mut().ok().and_then(read_piece);
    }
}

fn read_piece(file: &mut fs::File) -> Option<Part> {
    let mut data = Vec::with_capacity(limits::MAX_PIECE_BYTES);
    file.take(limits::MAX_PIECE_BYTES as u64).read_to_end(&mut data).ok()?;
    (!data.is_empty()).then(|| Part::Data(data.into()))
}

/// The references to all files, in their order.
async fn hash_all(
    files: &[SourceFile],
    progress: &(impl Fn(UploadProgress) + Sync),
) -> Result<Vec<ObjectRef>, ClientError> {
    let at_a_time = thread::available_parallelism().map_or(2, usize::from);
    let (total, mut done) = (files.len() as u64, 0);
    let hashes = files.iter().map(|file| hash_in_background(file.location.clone()));
    let counted = stream::iter(hashes).buffered(at_a_time).inspect_ok(|_| {
        done += 1;
        progress(UploadProgress::Hashed { done, total });
    });
    counted.try_collect().await
}

async fn hash_in_background(path: PathBuf) -> Result<ObjectRef, ClientError> {
    let hashed = tokio::task::spawn_blocking(move || hash(&path).map_err(ClientError::reading(path))).await;
    hashed.expect("hashing does not panic")
}

fn hash(path: &Path) -> std::io::Result<ObjectRef> {
    let mut file = fs::File::open(path)?;
    let (mut hasher, mut size_bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(ObjectRef { digest: Digest::from_hasher(hasher), size_bytes });
        }
        hasher.update(&buffer[..read]);
        size_bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_hashed_in_their_order_and_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let contents: Vec<Vec<u8>> = (0..40_usize).map(|n| vec![n as u8; n * 7_000]).collect();
        let files: Vec<SourceFile> = (0..40)
            .map(|n| {
                let location = folder.path().join(n.to_string());
                fs::write(&location, &contents[n]).expect("writable");
                SourceFile { path: n.to_string(), location, size_bytes: contents[n].len() as u64 }
            })
            .collect();
        let seen = AtomicU64::new(0);
        let progress = |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        };
        let objects = hash_all(&files, &progress).await.expect("readable");
        assert_eq!(objects, contents.iter().map(|content| ObjectRef::of(content)).collect::<Vec<_>>());
        assert_eq!(seen.into_inner(), 40);
    }
}
