//! Objects on this machine's disk: bounded, verified, shared by all workers of the machine.
//!
//! An entry is a file named by tenant and digest, written beside its place and renamed into it, so that there is never half
//! an entry. The time of last use is the file's modification time, which every process can see; the entries used longest ago go first.

use std::{
    collections::HashSet,
    fs::{self, File, FileTimes},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{Digest, ObjectRef, Tenant};

use super::failure::Failure;

/// A file older than this that was never renamed into place was left behind by a process that died.
const ABANDONED_AFTER_SECS: u64 = 3600;

/// The cache in one folder.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
    /// Entries whose content this process has checked. Each process checks anew, because a disk can damage a file at any time.
    checked: Mutex<HashSet<PathBuf>>,
    next_temporary: AtomicU64,
}

/// An object that is being written into the cache.
#[derive(Debug)]
pub(super) struct Insertion<'a> {
    cache: &'a Cache,
    object: &'a ObjectRef,
    place: PathBuf,
    temporary: PathBuf,
    file: File,
    hasher: Sha256,
    written_bytes: u64,
}

impl Cache {
    pub(super) fn new(folder: PathBuf, limit_bytes: u64) -> Result<Self, Failure> {
        let cache =
            Self { folder, limit_bytes, checked: Mutex::new(HashSet::new()), next_temporary: AtomicU64::new(0) };
        fs::create_dir_all(cache.temporary_folder()).map_err(at(&cache.folder))?;
        Ok(cache)
    }

    /// The entry, opened; it stays readable even if it is evicted meanwhile. `None` if there is none or it is damaged, and then
    /// it is gone.
    pub(super) fn open(&self, tenant: &Tenant, object: &ObjectRef) -> Result<Option<File>, Failure> {
        let place = self.place(tenant, &object.digest);
        let file = match File::open(&place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Failure::Cache { path: place, source }),
        };
        if self.is_intact(&place, &file, object).map_err(at(&place))? {
            // A failure is ignored, because only the order of eviction depends on the time.
            let _ = file.set_times(FileTimes::new().set_modified(wall_clock()));
            return Ok(Some(file));
        }
        tracing::warn!(path = %place.display(), "a damaged cache entry is fetched again");
        let removed = fs::remove_file(&place);
        if let Err(source) = removed
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(Failure::Cache { path: place, source });
        }
        Ok(None)
    }

    /// Begins an entry; write its content, then finish it.
    pub(super) fn insert<'a>(&'a self, tenant: &Tenant, object: &'a ObjectRef) -> Result<Insertion<'a>, Failure> {
        self.make_room(object.size_bytes).map_err(at(&self.folder))?;
        let place = self.place(tenant, &object.digest);
        let parent = place.parent().expect("an entry lies in a folder");
        fs::create_dir_all(parent).map_err(at(parent))?;
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.temporary_folder().join(format!("{}-{number}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&temporary);
        let file = file.map_err(at(&temporary))?;
        Ok(Insertion { cache: self, object, place, temporary, file, hasher: Sha256::new(), written_bytes: 0 })
    }

    fn place(&self, tenant: &Tenant, digest: &Digest) -> PathBuf {
        self.folder.join(digest.object_key(tenant))
    }

    fn temporary_folder(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    /// Checks the length of an entry at each use, and its content once in each process.
    fn is_intact(&self, place: &Path, file: &File, object: &ObjectRef) -> io::Result<bool> {
        if file.metadata()?.len() != object.size_bytes {
            return Ok(false);
        }
        if self.checked.lock().contains(place) {
            return Ok(true);
        }
        // The content is read through another descriptor, so that the caller's stays at the beginning.
        if digest_of(File::open(place)?)? != object.digest {
            return Ok(false);
        }
        self.checked.lock().insert(place.to_owned());
        Ok(true)
    }

    /// Removes the entries used longest ago until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut entries = self.entries()?;
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        entries.sort_by_key(|entry| entry.used);
        for entry in entries {
            if total.saturating_add(bytes) <= self.limit_bytes {
                break;
            }
            match fs::remove_file(&entry.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // If the file is gone, another worker of this machine has removed it.
                _ => total -= entry.bytes,
            }
        }
        Ok(())
    }

    /// Every entry, and the abandoned temporary files as the ones used longest ago.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let (mut folders, mut entries) = (vec![self.folder.clone()], Vec::new());
        let now = wall_clock();
        while let Some(folder) = folders.pop() {
            let incoming = folder == self.temporary_folder();
            for item in fs::read_dir(&folder)? {
                let item = item?;
                let Ok(metadata) = item.metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(item.path());
                    continue;
                }
                let used = metadata.modified()?;
                let age_secs = now.duration_since(used).map_or(0, |age| age.as_secs());
                if !incoming || age_secs > ABANDONED_AFTER_SECS {
                    entries.push(Entry { path: item.path(), bytes: metadata.len(), used });
                }
            }
        }
        Ok(entries)
    }
}

struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Insertion<'_> {
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.file.write_all(piece).map_err(at(&self.temporary))?;
        self.hasher.update(piece);
        self.written_bytes += piece.len() as u64;
        Ok(())
    }

    /// Checks the content and puts it in its place; the file is open at its beginning.
    pub(super) fn finish(mut self) -> Result<File, Failure> {
        let found = Digest::from_hasher(std::mem::take(&mut self.hasher));
        if found != self.object.digest || self.written_bytes != self.object.size_bytes {
            let reason = format!("the store's copy has {} bytes and digest {found}", self.written_bytes);
            return Err(Failure::Corrupt(reason));
        }
        fs::rename(&self.temporary, &self.place).map_err(at(&self.place))?;
        self.cache.checked.lock().insert(self.place.clone());
        io::Seek::rewind(&mut self.file).map_err(at(&self.place))?;
        self.file.try_clone().map_err(at(&self.place))
    }
}

impl Drop for Insertion<'_> {
    fn drop(&mut self) {
        // After the rename there is nothing at this path; after a failure the rest is removed.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn digest_of(mut file: File) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_hasher(hasher)),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    |source| Failure::Cache { path: path.to_owned(), source }
}

/// The clock by which the file system dates files.
#[expect(
    clippy::disallowed_methods,
    reason = "files are dated by the wall clock, and this is compared with their dates"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
