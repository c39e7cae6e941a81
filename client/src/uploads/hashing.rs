//! Hashes files, several at a time.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
};

use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{Digest, ObjectRef, limits};

use super::{
    Amount, UploadProgress,
    cache::{Entry, HashCache, Stamp, now},
};

/// A larger file is sent in parts, so that an interruption does not cost all of it.
pub(super) const IN_PARTS_ABOVE: u64 = 16 << 20;
/// Bytes of each part but the last.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// Files that are hashed and remembered together, and their bytes before the last of them.
const GROUP_FILES: usize = 64;
const GROUP_BYTES: u64 = 16 << 20;
/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A file of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local<'a> {
    /// Its number among the files of an upload.
    pub(super) place: usize,
    pub(super) path: &'a Path,
    /// Its length when it was listed.
    pub(super) size_bytes: u64,
}

/// The digests of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) object: ObjectRef,
    /// Those of its parts, in order, if it is sent in parts.
    pub(super) parts: Vec<Digest>,
}

/// How many parts a file of this length has; 0 if it is sent as a whole. One that the server will refuse needs no parts.
pub(super) fn number_of_parts(size_bytes: u64) -> u64 {
    match size_bytes > IN_PARTS_ABOVE && size_bytes <= limits::MAX_OBJECT_BYTES {
        true => size_bytes.div_ceil(PART_BYTES),
        false => 0,
    }
}

/// The digests of all files, in their order, or why a file cannot be uploaded. Files that `cache` knows are not read.
pub(super) async fn hash_all(
    files: &[Local<'_>],
    cache: Option<&HashCache>,
    progress: &(impl Fn(UploadProgress) + Sync),
) -> Vec<Result<Hashed, String>> {
    let known = match cache {
        Some(cache) => cache.known(files.iter().map(|file| file.path.to_owned()).collect()).await,
        None => vec![None; files.len()],
    };
    let mut amount = Amount::in_all(files.iter().map(|file| file.size_bytes));
    let mut all: Vec<Result<Hashed, String>> = Vec::with_capacity(files.len());
    for (file, known) in files.iter().zip(known) {
        amount.add(u64::from(known.is_some()), known.as_ref().map_or(0, |_| file.size_bytes));
        all.push(known.ok_or_else(String::new));
    }
    progress(UploadProgress::Hashed(amount));
    let unknown: Vec<usize> = (0..files.len()).filter(|index| all[*index].is_err()).collect();
    let at_a_time = thread::available_parallelism().map_or(2, usize::from);
    let groups = groups(files, &unknown).into_iter().map(|group| {
        let group: Vec<(usize, PathBuf)> = group.iter().map(|index| (*index, files[*index].path.to_owned())).collect();
        let cache = cache.cloned();
        async move {
            let hashed = tokio::task::spawn_blocking(move || hash_group(group, cache.as_ref())).await;
            hashed.expect("hashing does not panic")
        }
    });
    let mut hashed = stream::iter(groups).buffer_unordered(at_a_time);
    while let Some(group) = hashed.next().await {
        for (index, hashed) in group {
            amount.add(1, files[index].size_bytes);
            all[index] = hashed;
        }
        progress(UploadProgress::Hashed(amount));
    }
    all
}

/// Divides the files with these indices into groups.
fn groups<'i>(files: &[Local<'_>], indices: &'i [usize]) -> Vec<&'i [usize]> {
    let (mut groups, mut rest) = (Vec::new(), indices);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |index: &&usize| {
            let fits = bytes < GROUP_BYTES;
            bytes += files[**index].size_bytes;
            fits
        };
        let (group, others) = rest.split_at(rest.iter().take(GROUP_FILES).take_while(fits).count());
        groups.push(group);
        rest = others;
    }
    groups
}

fn hash_group(group: Vec<(usize, PathBuf)>, cache: Option<&HashCache>) -> Vec<(usize, Result<Hashed, String>)> {
    let (mut buffer, mut entries) = (vec![0; BUFFER_BYTES], Vec::new());
    let hashed = group.into_iter().map(|(index, path)| {
        let hashed = hash_photo(&path, &mut buffer).map(|(hashed, entry)| {
            entries.extend(entry);
            hashed
        });
        (index, hashed)
    });
    let hashed = hashed.collect();
    if let Some(cache) = cache {
        cache.add(&entries);
    }
    hashed
}

/// Hashes a file, unless it is too large for a photo. Also returns what may be remembered of it.
fn hash_photo(path: &Path, buffer: &mut [u8]) -> Result<(Hashed, Option<Entry>), String> {
    let since = now();
    let mut file = File::open(path).map_err(|error| unread(&error))?;
    let stamp = |file: &File| file.metadata().map(|metadata| Stamp::of(&metadata)).map_err(|error| unread(&error));
    let before = stamp(&file)?;
    let bytes = before.size_bytes;
    if bytes > limits::MAX_PHOTO_BYTES {
        let most = limits::MAX_PHOTO_BYTES >> 20;
        return Err(format!("the file has {bytes} bytes, more than the {most} MiB that a photo may have"));
    }
    let hashed = hash(&mut file, bytes, buffer).map_err(|error| unread(&error))?;
    let is_unchanged = stamp(&file)? == before;
    let entry = Entry::of(path, before, since, &hashed).filter(|_| is_unchanged);
    Ok((hashed, entry))
}

/// Why a file cannot be read, for a row of results.
pub(super) fn unread(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the file is gone, or it is a link that leads nowhere".to_owned(),
        io::ErrorKind::PermissionDenied => "the file cannot be read: permission denied".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    }
}

/// Hashes a file of about this length, and its parts if that length has some.
pub(super) fn hash(file: &mut impl io::Read, size_bytes: u64, buffer: &mut [u8]) -> io::Result<Hashed> {
    let has_parts = number_of_parts(size_bytes) > 0;
    let (mut whole, mut part, mut parts, mut done) = (Sha256::new(), Sha256::new(), Vec::new(), 0);
    loop {
        let left = usize::try_from(PART_BYTES - done % PART_BYTES).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = file.read(&mut buffer[..most])?;
        let is_end = read == 0;
        whole.update(&buffer[..read]);
        done += read as u64;
        if has_parts {
            part.update(&buffer[..read]);
            let is_full = done % PART_BYTES == 0;
            if is_full != is_end {
                parts.push(Digest::from_hasher(std::mem::take(&mut part)));
            }
        }
        if is_end {
            return Ok(Hashed { object: ObjectRef { digest: Digest::from_hasher(whole), size_bytes: done }, parts });
        }
    }
}

/// The reference to the content of a file, as an upload computes it.
///
/// # Errors
/// What the system says if the file cannot be read.
pub fn hash_file(path: &Path) -> io::Result<ObjectRef> {
    Ok(hash(&mut File::open(path)?, 0, &mut vec![0; BUFFER_BYTES])?.object)
}

/// Hashes one file, of whatever length.
pub(super) fn hash_whole(path: &Path) -> io::Result<Hashed> {
    let mut file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    hash(&mut file, size_bytes, &mut vec![0; BUFFER_BYTES])
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;

    fn local(paths: &[PathBuf]) -> Vec<Local<'_>> {
        paths.iter().enumerate().map(|(place, path)| Local { place, path, size_bytes: 1 << 20 }).collect()
    }

    #[tokio::test]
    async fn files_are_hashed_in_their_order_and_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let contents: Vec<Vec<u8>> = (0..200_usize).map(|n| vec![n as u8; n * 1_700]).collect();
        let files: Vec<PathBuf> = (0..200)
            .map(|n| {
                let location = folder.path().join(n.to_string());
                fs::write(&location, &contents[n]).expect("writable");
                location
            })
            .collect();
        let seen = AtomicU64::new(0);
        let progress = |step| match step {
            UploadProgress::Hashed(amount) => seen.store(amount.files, Ordering::Relaxed),
            UploadProgress::Sent(_) => unreachable!("nothing is sent"),
        };
        let hashed = hash_all(&local(&files), None, &progress).await;
        let objects: Vec<_> = hashed.into_iter().map(|hashed| hashed.map(|hashed| hashed.object)).collect();
        assert_eq!(objects, contents.iter().map(|content| Ok(ObjectRef::of(content))).collect::<Vec<_>>());
        assert_eq!(seen.into_inner(), 200);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_too_large_costs_only_itself() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = ["gone.png", "a.png", "huge.tif"].map(|name| folder.path().join(name));
        fs::write(folder.path().join("a.png"), b"a").expect("writable");
        let huge = fs::File::create(folder.path().join("huge.tif")).expect("writable");
        huge.set_len(limits::MAX_PHOTO_BYTES + 1).expect("sparse files are supported");
        let hashed = hash_all(&local(&files), None, &|_| {}).await;
        assert_eq!(hashed[1], Ok(Hashed { object: ObjectRef::of(b"a"), parts: vec![] }));
        let why = |index: usize| hashed[index].as_ref().expect_err("it cannot be uploaded").clone();
        assert!(why(0).contains("gone") && why(2).contains("256 MiB"), "{hashed:?}");
    }

    #[test]
    fn a_large_file_has_the_digests_of_its_parts_as_well() {
        let part = usize::try_from(PART_BYTES).expect("small");
        for length in [3 * part, 2 * part + 7, 2 * part] {
            let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let hashed = hash(&mut content.as_slice(), length as u64, &mut vec![0; 1 << 16]).expect("in memory");
            assert_eq!(hashed.object, ObjectRef::of(&content));
            let parts: Vec<Digest> = content.chunks(part).map(Digest::of).collect();
            assert_eq!(hashed.parts, if length > 2 * part { parts } else { vec![] });
            assert_eq!(number_of_parts(length as u64), hashed.parts.len() as u64);
        }
    }
}
