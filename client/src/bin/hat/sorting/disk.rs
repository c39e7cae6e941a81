//! The calls that change a file system. Each change is one call, and no call replaces a file.

use std::{
    fs::{self, File, FileTimes, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{Digest, ObjectRef};

/// The name of a copy that is not complete. Each folder has at most one, which the next copy into this folder takes away.
const PART: &str = ".hat-sort.part";
/// Bytes of a copy that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Every change of a file system passes here first. The tests end the process at this place.
pub(super) fn change<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    super::tests::before_a_change();
    call()
}

pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    change(|| fs::create_dir(path))
}

/// Removes a folder that is empty. One that is not, or is gone, stays as it is.
pub(super) fn remove_empty_folder(path: &Path) {
    // Somebody else's files are in it.
    let _ = change(|| fs::remove_dir(path));
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    change(|| fs::remove_file(path))
}

pub(super) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    change(|| fs::hard_link(from, to))
}

/// Renames a file within a file system.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if `to` exists, [`io::ErrorKind::CrossesDevices`] if it would lie on another file system.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let renamed = change(|| Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?));
    match renamed {
        // NFS has no such call. A link does not replace a file either.
        Err(error) if is_unsupported(&error) => {
            hard_link(from, to)?;
            remove_file(from)
        }
        done => done,
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP))
}

/// Whether a hard link cannot be made there, but a copy can: another file system, one without links, or too many of them.
pub(super) fn refuses_links(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    let refused = matches!(code, Some(Errno::EXDEV | Errno::EPERM | Errno::EMLINK | Errno::ENOSYS | Errno::EOPNOTSUPP));
    refused || is_unsupported(error)
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// It is there, whole and on the disk.
    Whole,
    /// The file has another content than was expected, and nothing was made.
    OtherContent,
}

/// Copies a file of this content with its permissions and times. The copy appears under its name once it is on the disk.
///
/// # Errors
/// [`Failed::Source`] if the file cannot be read, [`Failed::Target`] if the copy cannot be written.
pub(super) fn copy_new(from: &Path, to: &Path, content: &Digest) -> Result<Copied, Failed> {
    let mut source = File::open(from).map_err(Failed::Source)?;
    let metadata = source.metadata().map_err(Failed::Source)?;
    let part = part_beside(to);
    remove_part(&part).map_err(Failed::Target)?;
    let made = change(|| OpenOptions::new().write(true).create_new(true).open(&part)).map_err(Failed::Target)?;
    if pour(&mut source, &made)? != *content {
        remove_file(&part).map_err(Failed::Target)?;
        return Ok(Copied::OtherContent);
    }
    let finish = || {
        let times = FileTimes::new().set_modified(metadata.modified()?).set_accessed(metadata.accessed()?);
        made.set_permissions(metadata.permissions())?;
        made.set_times(times)?;
        made.sync_all()?;
        rename_new(&part, to)
    };
    let finished = finish();
    if finished.is_err() {
        remove_part(&part).map_err(Failed::Target)?;
    }
    finished.map(|()| Copied::Whole).map_err(Failed::Target)
}

fn pour(source: &mut File, mut target: &File) -> Result<Digest, Failed> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        let read = source.read(&mut piece).map_err(Failed::Source)?;
        if read == 0 {
            return Ok(Digest::from_hasher(hasher));
        }
        hasher.update(&piece[..read]);
        change(|| target.write_all(&piece[..read])).map_err(Failed::Target)?;
    }
}

/// Moves a file of this content to another file system: the copy is on the disk before the file is removed.
///
/// # Errors
/// As [`copy_new`].
pub(super) fn move_across(from: &Path, to: &Path, content: &Digest) -> Result<Copied, Failed> {
    let copied = copy_new(from, to, content)?;
    if copied == Copied::Whole {
        sync_folder_of(to).map_err(Failed::Target)?;
        if let Err(error) = remove_file(from) {
            // It stays where it is, and is not to be in two places.
            remove_file(to).map_err(Failed::Target)?;
            return Err(Failed::Source(error));
        }
    }
    Ok(copied)
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The file that is copied.
    Source(io::Error),
    /// The copy.
    Target(io::Error),
}

/// Where the copy of a file lies until it is complete.
pub(super) fn part_beside(file: &Path) -> PathBuf {
    file.with_file_name(PART)
}

/// Removes a copy that is not complete, if there is one.
pub(super) fn remove_part(part: &Path) -> io::Result<()> {
    match fs::symlink_metadata(part) {
        Ok(_) => remove_file(part),
        Err(_) => Ok(()),
    }
}

fn sync_folder_of(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The time of the last change of a file, in nanoseconds since 1970.
pub(super) fn modified_ns(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// Whether two names are one file.
pub(super) fn is_same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether two paths lead to the same entry of one folder, by links. Such a file has one name only, which must not be removed.
pub(super) fn is_same_place(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(one).is_some_and(|one| Some(one) == real(other))
}

/// The regular file at `path`, if one is there.
pub(super) fn regular(path: &Path) -> Option<fs::Metadata> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)
}

/// Whether a regular file with this content is at `path`.
pub(super) fn holds(path: &Path, content: &ObjectRef) -> bool {
    regular(path).is_some_and(|found| found.len() == content.size_bytes)
        && sortinghat_client::hash_file(path).is_ok_and(|found| found == *content)
}
