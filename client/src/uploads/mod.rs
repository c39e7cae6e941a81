//! Uploads files: hashes them, asks which are missing, sends those, and uploads the list of all.

mod cache;
mod hashing;
mod listed;
mod pack;
mod sending;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sortinghat_proto::{
    Digest, ObjectRef,
    manifest::{self, LeftOut, UploadManifest},
};
use tokio::sync::mpsc;

use crate::{
    Client, ClientError,
    archive::{Batch, Wanted, unpack},
    folder::Listing,
};
pub(crate) use cache::HashCache;
pub use hashing::hash_file;
use hashing::{Hashed, Local};
use listed::listed;

/// Bytes in memory from which on the server is asked whether it has them before they are sent.
const ASKED_FROM: usize = 64 << 10;

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path in the upload, with `/` between the parts, by which results name it. If it leads out of the upload, as `../x.png` does, the upload keeps
    /// it beside a path that does not.
    pub path: String,
    /// Its path on this machine, or that of the archive in which it is.
    pub location: PathBuf,
    /// Its number among the entries of that archive; `None` for a file of its own.
    pub packed: Option<u64>,
    /// Its length in bytes when the folder was listed.
    pub size_bytes: u64,
    /// The path by which results name it, if that is not `path`: a table names a photo by its own path, and `path` has its label.
    pub shown: Option<String>,
}

/// The reference to a file's content, or why there is none, with the file's number.
type Stored = (usize, Result<ObjectRef, String>);

/// How far an upload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadProgress {
    /// Files are read and hashed.
    Hashed(Amount),
    /// The contents that the server lacked are sent.
    Sent(Amount),
}

/// How much of some files is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files that are done.
    pub files: u64,
    /// Files in all.
    pub of_files: u64,
    /// Bytes that are done. Of a large file, they are counted before all of it is done.
    pub bytes: u64,
    /// Bytes in all.
    pub of_bytes: u64,
}

impl Amount {
    /// Nothing yet of files of these lengths.
    fn in_all(sizes: impl Iterator<Item = u64>) -> Self {
        sizes.fold(Self::default(), |amount, bytes| Self {
            of_files: amount.of_files + 1,
            of_bytes: amount.of_bytes + bytes,
            ..amount
        })
    }

    fn add(&mut self, files: u64, bytes: u64) {
        self.files += files;
        self.bytes += bytes;
    }
}

impl Client {
    /// Uploads those of `files` that the server lacks, and then a manifest that lists all of them in this order. Returns the manifest.
    ///
    /// A file that cannot be read, is gone, or changes meanwhile is listed with the reason, and the others are uploaded.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn upload(
        &self,
        files: &[SourceFile],
        progress: impl Fn(UploadProgress) + Sync,
    ) -> Result<ObjectRef, ClientError> {
        self.upload_parts(files, Vec::new(), progress).await
    }

    /// Uploads the files of a folder as [`upload`](Self::upload) does, and states in the manifest what was left out.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn upload_listing(
        &self,
        listing: &Listing,
        progress: impl Fn(UploadProgress) + Sync,
    ) -> Result<ObjectRef, ClientError> {
        self.upload_parts(&listing.files, listing.left_out(), progress).await
    }

    async fn upload_parts(
        &self,
        files: &[SourceFile],
        left_out: Vec<LeftOut>,
        progress: impl Fn(UploadProgress) + Sync,
    ) -> Result<ObjectRef, ClientError> {
        let read = self.store_all(files, &progress).await?;
        if read.iter().any(Result::is_err) {
            self.upload_bytes(Bytes::new()).await?;
        }
        let bytes = manifest::encode(&UploadManifest { files: listed(files, read), left_out });
        self.upload_bytes(bytes.into()).await
    }

    /// Uploads the contents of files and of archives' entries. Returns the reference to each, or why there is none.
    async fn store_all(
        &self,
        files: &[SourceFile],
        progress: &(impl Fn(UploadProgress) + Sync),
    ) -> Result<Vec<Result<ObjectRef, String>>, ClientError> {
        let (mut plain, mut archives) = (Vec::new(), BTreeMap::<&Path, Wanted>::new());
        for (place, file) in files.iter().enumerate() {
            match file.packed {
                None => plain.push(Local { place, path: &file.location, size_bytes: file.size_bytes }),
                Some(number) => drop(archives.entry(&file.location).or_default().insert(number, place)),
            }
        }
        let mut read = vec![Err(String::new()); files.len()];
        let all = Amount::in_all(files.iter().map(|file| file.size_bytes));
        let of_all = |before: Amount, step| match step {
            UploadProgress::Hashed(Amount { files, bytes, .. }) => {
                let (files, bytes) = (before.files + files, before.bytes + bytes);
                progress(UploadProgress::Hashed(Amount { files, bytes, ..all }));
            }
            UploadProgress::Sent(_) => progress(step),
        };
        let mut done = Amount::default();
        for (place, object) in self.store(&plain, self.hash_cache(), &|step| of_all(done, step)).await? {
            read[place] = object;
        }
        plain.iter().for_each(|file| done.add(1, file.size_bytes));
        for (archive, wanted) in archives {
            let (batches, mut received) = mpsc::channel(1);
            let path = archive.to_owned();
            // This thread ends when nobody receives any more.
            let unpacking = tokio::task::spawn_blocking(move || unpack(&path, wanted, batches));
            while let Some(batch) = received.recv().await {
                for (place, object) in self.store_batch(&batch, files, &|step| of_all(done, step)).await? {
                    done.add(1, files[place].size_bytes);
                    read[place] = object;
                }
            }
            unpacking.await.expect("unpacking does not panic").map_err(ClientError::reading(archive))?;
        }
        Ok(read)
    }

    /// Uploads the contents of unpacked files.
    async fn store_batch(
        &self,
        batch: &Batch,
        files: &[SourceFile],
        progress: &(impl Fn(UploadProgress) + Sync),
    ) -> Result<Vec<Stored>, ClientError> {
        let (mut lost, mut paths) = (Vec::new(), Vec::new());
        for (place, file) in &batch.files {
            match file {
                Ok(file) => paths.push((*place, file.path())),
                Err(why) => lost.push((*place, Err(why.clone()))),
            }
        }
        let plain: Vec<Local> = paths
            .iter()
            .map(|(place, path)| Local { place: *place, path, size_bytes: files[*place].size_bytes })
            .collect();
        // What is sent of an archive is not known before its end.
        let show = |step| match step {
            UploadProgress::Hashed(_) => progress(step),
            UploadProgress::Sent(_) => {}
        };
        let mut stored = self.store(&plain, None, &show).await?;
        stored.extend(lost);
        Ok(stored)
    }

    /// Uploads those of the files' contents that the server lacks. The number of each file comes back with it.
    async fn store(
        &self,
        files: &[Local<'_>],
        cache: Option<&HashCache>,
        progress: &(impl Fn(UploadProgress) + Sync),
    ) -> Result<Vec<Stored>, ClientError> {
        let mut read = hashing::hash_all(files, cache, progress).await;
        let mut unique = HashSet::new();
        let digests: Vec<Digest> = read
            .iter()
            .flatten()
            .map(|hashed| &hashed.object.digest)
            .filter(|digest| unique.insert(*digest))
            .cloned()
            .collect();
        let missing = self.find_missing(&digests).await?;
        let hashed = files.iter().zip(&read).filter_map(|(file, read)| Some((file.path, read.as_ref().ok()?)));
        let missing = sending::missing_of(missing, hashed);
        for (digest, why) in self.send_all(missing, progress).await? {
            let of_digest =
                |file: &&mut Result<Hashed, String>| file.as_ref().is_ok_and(|hashed| hashed.object.digest == digest);
            read.iter_mut().filter(of_digest).for_each(|file| *file = Err(why.clone()));
        }
        let objects = read.into_iter().map(|read| read.map(|hashed| hashed.object));
        Ok(files.iter().map(|file| file.place).zip(objects).collect())
    }

    /// Uploads one file, unless the server has it.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn upload_file(&self, location: &Path) -> Result<ObjectRef, ClientError> {
        let path = location.to_owned();
        let hashed = tokio::task::spawn_blocking(move || hashing::hash_whole(&path)).await;
        let hashed = hashed.expect("hashing does not panic").map_err(ClientError::reading(location))?;
        if !self.find_missing(std::slice::from_ref(&hashed.object.digest)).await?.is_empty() {
            self.send_file(&hashed, location, &|_| {}).await?;
        }
        Ok(hashed.object)
    }

    /// Uploads bytes from memory. Of many bytes, the server is asked first whether it has them.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn upload_bytes(&self, content: Bytes) -> Result<ObjectRef, ClientError> {
        let object = ObjectRef::of(&content);
        let is_asked = content.len() >= ASKED_FROM;
        if !is_asked || !self.find_missing(std::slice::from_ref(&object.digest)).await?.is_empty() {
            self.send_bytes(&content).await?;
        }
        Ok(object)
    }
}
