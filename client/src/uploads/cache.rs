//! Remembers the digests of files between runs, so that an upload that is repeated or was interrupted reads no file twice.
//!
//! A file is known by its path and by what the system says of it: device, inode, length, and the times at which its content and its inode were
//! last changed. No program can set the latter time, so that a file that was changed is another file here. Two changes within one tick of the
//! file system's clock have the same time: a digest is only remembered if the file had been left alone for [`SETTLED`] when it was read.
//!
//! The memory is one file, to which records of one length are appended, also by several processes at a time. What cannot be read there, or has
//! no room, is hashed again; nothing fails because of it.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, Metadata},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};
use sortinghat_proto::{Digest, ObjectRef};

use super::hashing::{Hashed, PART_BYTES, number_of_parts};

/// How long a file must have been left alone. The file systems with the coarsest clocks (FAT) tell times two seconds apart.
const SETTLED: Duration = Duration::from_secs(2);
/// Records that the file may have. If there are more, the older half of them is forgotten.
const MAX_RECORDS: u64 = 1_000_000;
/// Bytes of a key, of a digest, and of the check of both, which make a record.
const KEY: usize = 16;
const DIGEST: usize = 32;
const CHECK: usize = 8;
const RECORD: usize = KEY + DIGEST + CHECK;
/// The first record of the file, which states its format.
const HEADER: [u8; RECORD] =
    *b"sortinghat.hashes/1\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Stands for a file as it was at some time, or for a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; KEY]);

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size_bytes: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later change will show in this stamp, if the file is read at `now`.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        [self.modified, self.changed].into_iter().all(|(seconds, nanoseconds)| {
            let time = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
            time + SETTLED <= now
        })
    }

    /// The key of the whole file, or of one of its parts, which are counted from 1.
    fn key(&self, path: &Path, part: u64) -> Key {
        let numbers = [self.device, self.inode, self.size_bytes, PART_BYTES, part];
        let times = [self.modified.0, self.modified.1, self.changed.0, self.changed.1];
        let mut hasher = Sha256::new();
        numbers.iter().for_each(|number| hasher.update(number.to_le_bytes()));
        times.iter().for_each(|time| hasher.update(time.to_le_bytes()));
        hasher.update(path.as_os_str().as_bytes());
        Key(start_of(hasher))
    }

    /// The keys of the whole file and of its parts.
    fn keys(&self, path: &Path) -> impl Iterator<Item = Key> {
        let path = absolute(path);
        (0..=number_of_parts(self.size_bytes)).map(move |part| self.key(&path, part))
    }
}

/// The time by the clock of this machine.
#[expect(clippy::disallowed_methods, reason = "it is compared with the times of files, which are set by a wall clock")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// A file whose digests may be remembered.
pub(super) struct Entry {
    path: PathBuf,
    stamp: Stamp,
    hashed: Hashed,
}

impl Entry {
    /// What to remember of a file that had this stamp before it was read, from `since` on, and has it still. `None` if a later change might not
    /// show in the stamp.
    pub(super) fn of(path: &Path, stamp: Stamp, since: SystemTime, hashed: &Hashed) -> Option<Self> {
        let is_whole = hashed.object.size_bytes == stamp.size_bytes;
        (is_whole && stamp.is_settled(since)).then(|| Self { path: path.to_owned(), stamp, hashed: hashed.clone() })
    }
}

/// The file of remembered digests.
#[derive(Debug, Clone)]
pub(crate) struct HashCache {
    file: Arc<Path>,
}

impl HashCache {
    pub(crate) fn at(file: PathBuf) -> Self {
        Self { file: file.into() }
    }

    /// What is remembered of each of these files, as they are now.
    pub(super) async fn known(&self, files: Vec<PathBuf>) -> Vec<Option<Hashed>> {
        let cache = self.clone();
        tokio::task::spawn_blocking(move || cache.find(&files)).await.expect("looking up digests does not panic")
    }

    fn find(&self, files: &[PathBuf]) -> Vec<Option<Hashed>> {
        let stamps: Vec<Option<Stamp>> =
            files.iter().map(|file| file.metadata().ok().map(|metadata| Stamp::of(&metadata))).collect();
        let stamped = || files.iter().zip(&stamps).filter_map(|(file, stamp)| Some((file, stamp.as_ref()?)));
        let wanted: HashSet<Key> = stamped().flat_map(|(file, stamp)| stamp.keys(file)).collect();
        let found = self.load(&wanted).unwrap_or_default();
        let remembered = |(file, stamp): (&PathBuf, &Option<Stamp>)| {
            let stamp = stamp.as_ref()?;
            let mut digests = stamp.keys(file).map(|key| found.get(&key).map(digest));
            let object = ObjectRef { digest: digests.next()??, size_bytes: stamp.size_bytes };
            Some(Hashed { object, parts: digests.collect::<Option<_>>()? })
        };
        files.iter().zip(&stamps).map(remembered).collect()
    }

    /// Reads the digests under the wanted keys.
    fn load(&self, wanted: &HashSet<Key>) -> io::Result<HashMap<Key, [u8; DIGEST]>> {
        let file = File::open(&self.file)?;
        let bytes = file.metadata()?.len();
        let (mut found, mut record) = (HashMap::new(), [0; RECORD]);
        let mut records = BufReader::with_capacity(RECORD << 10, file);
        records.read_exact(&mut record)?;
        if record != HEADER {
            fs::remove_file(&self.file)?;
            return Ok(found);
        }
        while records.read_exact(&mut record).is_ok() {
            let (key, rest) = record.split_first_chunk().expect("a record is longer than a key");
            let (digest, check) = rest.split_first_chunk().expect("a record is longer than a digest");
            if wanted.contains(&Key(*key)) && check == checked(&record[..KEY + DIGEST]) {
                found.insert(Key(*key), *digest);
            }
        }
        let whole = bytes / RECORD as u64;
        if whole > MAX_RECORDS || bytes % RECORD as u64 != 0 {
            self.shorten(whole)?;
        }
        Ok(found)
    }

    /// Keeps the newest of so many whole records, in a new file, and drops a record that was cut off.
    fn shorten(&self, whole: u64) -> io::Result<()> {
        let kept = if whole > MAX_RECORDS { MAX_RECORDS / 2 } else { whole.saturating_sub(1) };
        let mut old = File::open(&self.file)?;
        old.seek(SeekFrom::Start((whole - kept) * RECORD as u64))?;
        let mut new = tempfile::NamedTempFile::new_in(self.file.parent().unwrap_or(Path::new(".")))?;
        new.write_all(&HEADER)?;
        io::copy(&mut old.take(kept * RECORD as u64), &mut new)?;
        new.persist(&self.file)?;
        Ok(())
    }

    /// Remembers these files. If that fails, they are hashed again the next time.
    pub(super) fn add(&self, entries: &[Entry]) {
        let mut records = Vec::new();
        for Entry { path, stamp, hashed } in entries {
            let digests = std::iter::once(&hashed.object.digest).chain(&hashed.parts);
            for (key, digest) in stamp.keys(path).zip(digests) {
                let start = records.len();
                records.extend(key.0);
                records.extend(hex::decode(digest.as_str()).expect("a digest is hexadecimal"));
                records.extend(checked(&records[start..]));
            }
        }
        if !records.is_empty() {
            let _ = self.append(&records);
        }
    }

    fn append(&self, records: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file = File::options().append(true).create(true).mode(0o600).open(&self.file)?;
        // Two processes may both begin the file. The second header is then a record that nobody looks for.
        match file.metadata()?.len() {
            0 => file.write_all(&[&HEADER, records].concat()),
            _ => file.write_all(records),
        }
    }
}

/// What tells a record that was written whole.
fn checked(record: &[u8]) -> [u8; CHECK] {
    start_of(Sha256::new_with_prefix(record))
}

/// The first bytes of a digest.
fn start_of<const BYTES: usize>(hasher: Sha256) -> [u8; BYTES] {
    *hasher.finalize().first_chunk().expect("a digest is longer than its beginning")
}

fn digest(bytes: &[u8; DIGEST]) -> Digest {
    hex::encode(bytes).parse().expect("hexadecimal, and as long as a digest")
}

/// The path from the root on, under which the same file is found from another folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        folder: tempfile::TempDir,
        cache: HashCache,
    }

    impl Folder {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let cache = HashCache::at(folder.path().join("cache/hashes"));
            Self { folder, cache }
        }

        fn write(&self, name: &str, content: &[u8]) -> PathBuf {
            let path = self.folder.path().join(name);
            fs::write(&path, content).expect("writable");
            path
        }

        /// Remembers another content than the file has, so that it shows whether the file is read.
        fn remember(&self, path: &Path, parts: usize) -> Hashed {
            let stamp = Stamp::of(&path.metadata().expect("it exists"));
            let object = ObjectRef { digest: Digest::of(b"remembered"), size_bytes: stamp.size_bytes };
            let hashed = Hashed { object, parts: vec![Digest::of(b"a part"); parts] };
            self.cache.add(&[Entry::of(path, stamp, later(), &hashed).expect("settled by then")]);
            hashed
        }

        fn find(&self, path: &Path) -> Option<Hashed> {
            self.cache.find(&[path.to_owned()]).remove(0)
        }

        fn bytes(&self) -> u64 {
            self.cache.file.metadata().expect("written").len()
        }
    }

    /// A time at which a file that was just written has been left alone for long enough.
    fn later() -> SystemTime {
        now() + SETTLED
    }

    #[test]
    fn a_file_is_known_until_it_changes_also_if_its_length_and_its_time_stay() {
        let folder = Folder::new();
        let photo = folder.write("a.png", b"photo");
        assert_eq!(folder.find(&photo), None);
        let remembered = folder.remember(&photo, 0);
        assert_eq!(folder.find(&photo), Some(remembered.clone()));
        let modified = photo.metadata().and_then(|metadata| metadata.modified()).expect("it has a time");
        // The clock of the file system moves on before the file changes.
        let other = loop {
            let other = folder.write("b.png", b"other");
            let time = |path: &Path| Stamp::of(&path.metadata().expect("it exists")).changed;
            if time(&other) > time(&photo) {
                break other;
            }
        };
        fs::write(&photo, b"phot0").expect("writable");
        File::options().write(true).open(&photo).and_then(|file| file.set_modified(modified)).expect("settable");
        assert_eq!(folder.find(&photo), None, "the time of the inode has changed");
        assert_eq!(folder.find(&other), None);
    }

    #[test]
    fn a_file_that_was_changed_a_moment_ago_is_not_remembered() {
        let folder = Folder::new();
        let photo = folder.write("a.png", b"photo");
        let stamp = Stamp::of(&photo.metadata().expect("it exists"));
        let hashed = Hashed { object: ObjectRef::of(b"photo"), parts: vec![] };
        assert!(Entry::of(&photo, stamp, now(), &hashed).is_none(), "the next change may have the same time");
        assert!(Entry::of(&photo, stamp, later(), &hashed).is_some());
        let grown = Hashed { object: ObjectRef::of(b"photo and more"), parts: vec![] };
        assert!(Entry::of(&photo, stamp, later(), &grown).is_none(), "it grew while it was read");
    }

    #[test]
    fn a_large_file_is_known_if_all_of_its_parts_are() {
        let folder = Folder::new();
        let large = folder.folder.path().join("large.tif");
        let file = File::create(&large).expect("writable");
        file.set_len(4 * PART_BYTES).expect("sparse files are supported");
        drop(file);
        folder.remember(&large, 3);
        assert_eq!(folder.find(&large), None);
        let remembered = folder.remember(&large, 4);
        assert_eq!(folder.find(&large), Some(remembered));
    }

    #[test]
    fn a_damaged_record_is_forgotten_and_the_others_stay() {
        let folder = Folder::new();
        let (first, second) = (folder.write("a.png", b"a"), folder.write("b.png", b"b"));
        let remembered = [folder.remember(&first, 0), folder.remember(&second, 0)];
        let mut bytes = fs::read(&folder.cache.file).expect("written");
        bytes[RECORD + KEY] ^= 1;
        // A power cut left half of the next record.
        bytes.extend([0; RECORD / 2]);
        fs::write(&folder.cache.file, bytes).expect("writable");
        assert_eq!(folder.find(&first), None);
        assert_eq!(folder.find(&second), Some(remembered[1].clone()));
        assert_eq!(folder.bytes(), 3 * RECORD as u64, "the half is gone, so that later records are read");
        fs::write(&folder.cache.file, vec![b'x'; 4 * RECORD]).expect("writable");
        assert_eq!(folder.find(&second), None, "the file has another format");
        let again = folder.remember(&second, 0);
        assert_eq!(folder.find(&second), Some(again));
    }

    #[test]
    fn the_older_half_is_forgotten_when_there_are_too_many_records() {
        let folder = Folder::new();
        let (old, new) = (folder.write("old.png", b"a"), folder.write("new.png", b"b"));
        folder.remember(&old, 0);
        let file = File::options().append(true).open(&folder.cache.file).expect("writable");
        file.set_len(MAX_RECORDS * RECORD as u64).expect("sparse files are supported");
        let remembered = folder.remember(&new, 0);
        assert_eq!(folder.find(&new), Some(remembered.clone()));
        assert_eq!(folder.bytes(), (1 + MAX_RECORDS / 2) * RECORD as u64);
        assert_eq!((folder.find(&old), folder.find(&new)), (None, Some(remembered)));
    }
}
