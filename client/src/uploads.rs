//! Uploads files: hashes them, asks which are missing, sends those, and uploads the list of all.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{
    Digest, ObjectRef, limits,
    manifest::{self, LeftOut, UploadManifest, UploadedFile},
    v1::{FindMissingObjectsRequest, UploadObjectRequest, upload_object_request::Part},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    Client, ClientError,
    archive::{Batch, Wanted, unpack},
    client::Artifacts,
    folder::Listing,
    jobs::object,
};

/// Uploads at a time. Each upload waits until it is durable, so several at a time use that waiting.
const UPLOADS_AT_A_TIME: usize = 8;
/// Pieces of one upload that are read before they can be sent.
const PIECES_AHEAD: usize = 2;

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
                None => plain.push((place, file.location.as_path())),
                Some(number) => drop(archives.entry(&file.location).or_default().insert(number, place)),
            }
        }
        let mut read = vec![Err(String::new()); files.len()];
        let total = files.len() as u64;
        let of_all = |step| match step {
            UploadProgress::Hashed { done, .. } => progress(UploadProgress::Hashed { done, total }),
            UploadProgress::Sent { .. } => progress(step),
        };
        for (place, object) in self.store(&plain, &of_all).await? {
            read[place] = object;
        }
        let mut done = plain.len() as u64;
        for (archive, wanted) in archives {
            let (batches, mut received) = mpsc::channel(1);
            let path = archive.to_owned();
            // This thread ends when nobody receives any more.
            let unpacking = tokio::task::spawn_blocking(move || unpack(&path, wanted, batches));
            while let Some(batch) = received.recv().await {
                let stored = self
                    .store_batch(&batch, &|so_far| of_all(UploadProgress::Hashed { done: done + so_far, total }))
                    .await?;
                done += batch.files.len() as u64;
                stored.into_iter().for_each(|(place, object)| read[place] = object);
            }
            unpacking.await.expect("unpacking does not panic").map_err(ClientError::reading(archive))?;
        }
        Ok(read)
    }

    /// Uploads the contents of unpacked files.
    async fn store_batch(&self, batch: &Batch, progress: &(impl Fn(u64) + Sync)) -> Result<Vec<Stored>, ClientError> {
        let (mut lost, mut paths) = (Vec::new(), Vec::new());
        for (place, file) in &batch.files {
            match file {
                Ok(file) => paths.push((*place, file.path())),
                Err(why) => lost.push((*place, Err(why.clone()))),
            }
        }
        let plain: Vec<(usize, &Path)> = paths.iter().map(|(place, path)| (*place, path.as_path())).collect();
        let show = |step| {
            if let UploadProgress::Hashed { done, .. } = step {
                progress(done);
            }
        };
        let mut stored = self.store(&plain, &show).await?;
        stored.extend(lost);
        Ok(stored)
    }

    /// Uploads those of the files' contents that the server lacks. The number of each file comes back with it.
    async fn store(
        &self,
        files: &[(usize, &Path)],
        progress: &(impl Fn(UploadProgress) + Sync),
    ) -> Result<Vec<Stored>, ClientError> {
        let locations: Vec<&Path> = files.iter().map(|(_, location)| *location).collect();
        let mut read = hash_all(&locations, progress).await;
        let mut unique = HashSet::new();
        let digests: Vec<Digest> =
            read.iter().flatten().map(|o| &o.digest).filter(|digest| unique.insert(*digest)).cloned().collect();
        let missing = self.find_missing(&digests).await?;
        for (digest, why) in self.send_missing(&locations, &read, &missing, progress).await? {
            let of_digest = |file: &&mut Result<ObjectRef, String>| file.as_ref().is_ok_and(|o| o.digest == digest);
            read.iter_mut().filter(of_digest).for_each(|file| *file = Err(why.clone()));
        }
        Ok(files.iter().map(|(place, _)| *place).zip(read).collect())
    }

    /// Sends the contents that the server lacks. Returns those that no file has any more, and why.
    async fn send_missing(
        &self,
        files: &[&Path],
        read: &[Result<ObjectRef, String>],
        missing: &[Digest],
        progress: &(impl Fn(UploadProgress) + Sync),
    ) -> Result<Vec<(Digest, String)>, ClientError> {
        let mut locations: HashMap<&Digest, Vec<(&ObjectRef, &Path)>> = HashMap::new();
        for (file, object) in files.iter().zip(read) {
            if let Ok(object) = object {
                locations.entry(&object.digest).or_default().push((object, *file));
            }
        }
        let (total, sent) = (missing.len() as u64, AtomicU64::new(0));
        progress(UploadProgress::Sent { done: 0, total });
        let uploads = missing.iter().filter_map(|digest| locations.get_key_value(digest)).map(|(digest, places)| {
            let sent = &sent;
            async move {
                let lost = self.upload_from_one_of(places).await?;
                let done = sent.fetch_add(1, Ordering::Relaxed) + 1;
                progress(UploadProgress::Sent { done, total });
                Ok::<_, ClientError>(lost.map(|why| ((*digest).clone(), why)))
            }
        });
        let lost: Vec<_> = stream::iter(uploads).buffer_unordered(UPLOADS_AT_A_TIME).try_collect().await?;
        Ok(lost.into_iter().flatten().collect())
    }

    /// Uploads a content that several files may have from the first that still has it. Returns why none has.
    async fn upload_from_one_of(&self, places: &[(&ObjectRef, &Path)]) -> Result<Option<String>, ClientError> {
        let mut why = None;
        for (object, location) in places {
            match self.upload_file_as(object, location).await {
                Ok(()) => return Ok(None),
                Err(ClientError::FileChanged { .. }) => why = Some("it changed while it was uploaded".to_owned()),
                Err(ClientError::File { source, .. }) => why = Some(unread(&source)),
                Err(error) => return Err(error),
            }
        }
        Ok(why)
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

/// The files as a manifest lists them. Paths that lead out of the upload or repeat another are replaced there.
fn listed(files: &[SourceFile], read: Vec<Result<ObjectRef, String>>) -> Vec<UploadedFile> {
    let mut taken = HashSet::new();
    let entry = |(file, read): (&SourceFile, Result<ObjectRef, String>)| {
        let path = free_path(&file.path, &mut taken);
        let shown = file.shown.as_ref().unwrap_or(&file.path);
        let shown_as = (path != *shown).then(|| shown.clone());
        let (object, unread) = match read {
            Ok(object) => (object, None),
            Err(why) => (ObjectRef::of(b""), Some(why)),
        };
        UploadedFile { path, object, shown_as, unread }
    };
    files.iter().zip(read).map(entry).collect()
}

/// The path without `/`, `./` and `../`, so that it cannot lead out of an upload, and unlike all that are taken.
fn free_path(path: &str, taken: &mut HashSet<String>) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    let plain = if parts.is_empty() { "photos".to_owned() } else { parts.join("/") };
    let numbered = (2..).map(|number| {
        let number = format!("{number}/");
        let room = limits::MAX_PATH_BYTES.saturating_sub(number.len());
        number + end_of(&plain, room)
    });
    let mut free = std::iter::once(plain.clone()).chain(numbered).filter(|path| !taken.contains(path));
    let free = free.next().expect("there are more numbers than paths");
    taken.insert(free.clone());
    free
}

/// The end of a path that has at most `most` bytes: whole parts, unless the last part alone is too long.
fn end_of(path: &str, most: usize) -> &str {
    let first = path.len().saturating_sub(most);
    if first == 0 {
        return path;
    }
    let whole = path.match_indices('/').map(|(end, _)| end + 1).find(|start| *start >= first);
    &path[whole.unwrap_or_else(|| path.ceil_char_boundary(first))..]
}

/// Why a file cannot be read, for a row of results.
fn unread(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the file is gone, or it is a link that leads nowhere".to_owned(),
        io::ErrorKind::PermissionDenied => "the file cannot be read: permission denied".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    }
}

/// The references to all files, in their order, or why a file cannot be uploaded.
async fn hash_all(files: &[&Path], progress: &(impl Fn(UploadProgress) + Sync)) -> Vec<Result<ObjectRef, String>> {
    let at_a_time = thread::available_parallelism().map_or(2, usize::from);
    let (total, mut done) = (files.len() as u64, 0);
    let hashes = files.iter().map(|file| {
        let location = file.to_path_buf();
        let hashed = tokio::task::spawn_blocking(move || hash_photo(&location));
        async move { hashed.await.expect("hashing does not panic") }
    });
    let counted = stream::iter(hashes).buffered(at_a_time).inspect(|_| {
        done += 1;
        progress(UploadProgress::Hashed { done, total });
    });
    counted.collect().await
}

/// Hashes a file, unless it is too large for a photo.
fn hash_photo(path: &Path) -> Result<ObjectRef, String> {
    let bytes = path.metadata().map_err(|error| unread(&error))?.len();
    if bytes > limits::MAX_PHOTO_BYTES {
        let most = limits::MAX_PHOTO_BYTES >> 20;
        return Err(format!("the file has {bytes} bytes, more than the {most} MiB that a photo may have"));
    }
    hash_file(path).map_err(|error| unread(&error))
}

async fn hash_in_background(path: PathBuf) -> Result<ObjectRef, ClientError> {
    let hashed = tokio::task::spawn_blocking(move || hash_file(&path).map_err(ClientError::reading(path))).await;
    hashed.expect("hashing does not panic")
}

/// The reference to the content of a file, as an upload computes it.
///
/// # Errors
/// What the system says if the file cannot be read.
pub fn hash_file(path: &Path) -> io::Result<ObjectRef> {
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
        let files: Vec<PathBuf> = (0..40)
            .map(|n| {
                let location = folder.path().join(n.to_string());
                fs::write(&location, &contents[n]).expect("writable");
                location
            })
            .collect();
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let seen = AtomicU64::new(0);
        let progress = |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        };
        let objects = hash_all(&files, &progress).await;
        assert_eq!(objects, contents.iter().map(|content| Ok(ObjectRef::of(content))).collect::<Vec<_>>());
        assert_eq!(seen.into_inner(), 40);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_too_large_costs_only_itself() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = ["gone.png", "a.png", "huge.tif"].map(|name| folder.path().join(name));
        fs::write(folder.path().join("a.png"), b"a").expect("writable");
        let huge = fs::File::create(folder.path().join("huge.tif")).expect("writable");
        huge.set_len(limits::MAX_PHOTO_BYTES + 1).expect("sparse files are supported");
        let objects = hash_all(&files.each_ref().map(PathBuf::as_path), &|_| {}).await;
        assert_eq!(objects[1], Ok(ObjectRef::of(b"a")));
        let why = |index: usize| objects[index].as_ref().expect_err("it cannot be uploaded").clone();
        assert!(why(0).contains("gone") && why(2).contains("256 MiB"), "{objects:?}");
    }

    #[test]
    fn a_path_never_leads_out_of_the_upload_and_is_shown_as_it_was_given() {
        let paths = ["x.png", "../x.png", "/home/me/x.png", "./a/../x.png", "..", "a//b.png", "2/x.png"];
        let files = paths.map(|path| SourceFile {
            path: path.into(),
            location: path.into(),
            packed: None,
            size_bytes: 0,
            shown: None,
        });
        let listed = listed(&files, vec![Ok(ObjectRef::of(b"x")); files.len()]);
        let stored: Vec<&str> = listed.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(stored, ["x.png", "2/x.png", "home/me/x.png", "a/x.png", "photos", "a/b.png", "2/2/x.png"]);
        assert_eq!(listed.iter().map(UploadedFile::shown).collect::<Vec<_>>(), paths);
    }
    #[test]
    fn a_repeated_path_that_has_no_room_for_its_number_keeps_its_last_parts() {
        let (part, mut taken) = ("é".repeat(100), HashSet::new());
        let long = format!("folder/{}1.png", format!("{part}/").repeat(5));
        let longest = "x".repeat(limits::MAX_PATH_BYTES - long.len()) + &long;
        assert_eq!(free_path(&longest, &mut taken), longest);
        let numbered = free_path(&longest, &mut taken);
        assert_eq!(numbered, format!("2/{}1.png", format!("{part}/").repeat(5)));
        assert_ne!(free_path(&longest, &mut taken), numbered);
        assert_eq!(end_of("aé", 2), "é");
        assert_eq!(end_of("aé", 1), "");
    }
}
