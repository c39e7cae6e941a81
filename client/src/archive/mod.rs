//! Archives of photos: zip, and tar as it is or compressed with zstd or gzip.
//!
//! An archive is read from its beginning to its end, twice: to list it, and to upload what the server lacks. No name inside it is ever used as
//! a path of this machine: some files at a time are unpacked, into files without a name.

mod tarred;
mod unpack;
mod zipped;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    path::Path,
};

use sortinghat_proto::{limits, manifest::LeftOutReason};

use crate::{
    ClientError, SourceFile,
    folder::{self, Listing, Skipped},
};
pub(crate) use unpack::{Batch, Wanted, unpack};

/// A file that unpacks to more than this, in bytes, and to more than [`MAX_RATIO`] times its packed size is no photo.
const UNSUSPICIOUS_BYTES: u64 = 1 << 20;
/// The same for all files of an archive together.
const UNSUSPICIOUS_IN_ALL_BYTES: u64 = 64 << 20;
/// How many times its packed size a photo may have. Photos hardly shrink.
const MAX_RATIO: u64 = 200;

/// The formats of archives that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// A zip.
    Zip,
    /// A tar.
    Tar,
    /// A tar that zstd has compressed.
    TarZstd,
    /// A tar that gzip has compressed.
    TarGzip,
}

impl Archive {
    /// The format that the ending of a file's name says, in capitals or not.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let endings = [
            (".zip", Self::Zip),
            (".tar", Self::Tar),
            (".tar.zst", Self::TarZstd),
            (".tzst", Self::TarZstd),
            (".tar.gz", Self::TarGzip),
            (".tgz", Self::TarGzip),
        ];
        endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, archive)| archive)
    }
}

/// An entry as the archive describes it. None of that needs to be true.
#[derive(Debug)]
struct Entry<'a> {
    /// Entries are counted from 0 in the order of the archive.
    number: u64,
    /// The name; `None` if it is not UTF-8.
    name: Option<&'a str>,
    kind: Kind,
    size_bytes: u64,
    /// Why the content cannot be used, if that is known without reading it.
    refused: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    /// A symbolic or a hard link.
    Link,
    /// A device, a pipe, and what else is no file.
    Special,
}

/// What is done with the entries of an archive.
trait Visitor {
    /// Where to write the content of an entry; `None` if it is not wanted.
    fn begin(&mut self, entry: &Entry) -> io::Result<Option<File>>;
    /// The content was written, or there is a reason why not.
    fn end(&mut self, written: Result<(), String>) -> io::Result<()>;
}

/// Shows every entry to `visitor`.
fn visit(path: &Path, visitor: &mut dyn Visitor) -> io::Result<()> {
    match Archive::of_path(path) {
        Some(Archive::Zip) => zipped::visit(path, visitor),
        Some(archive) => tarred::visit(path, archive, visitor),
        None => Err(io::Error::other("its name does not end as that of an archive: .zip, .tar, .tar.zst or .tar.gz")),
    }
}

fn too_many() -> io::Error {
    io::Error::other(format!("it has more than {} entries, and one upload takes no more", limits::MAX_UPLOAD_FILES))
}

fn too_large() -> io::Error {
    io::Error::other(format!("it unpacks to more than {MAX_RATIO} times its size, which no photos do"))
}

/// Copies the content of an entry, of which no more is read than the entry promises.
fn copy(content: impl io::Read, promised_bytes: u64, mut to: File) -> Result<(), String> {
    let mut bounded = content.take(promised_bytes.saturating_add(1));
    let copied = io::copy(&mut bounded, &mut to).map_err(|error| format!("it cannot be unpacked: {error}"))?;
    match copied.cmp(&promised_bytes) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(format!("it is cut off after {copied} of {promised_bytes} bytes")),
        std::cmp::Ordering::Greater => {
            Err(format!("it has more than the {promised_bytes} bytes that the archive states"))
        }
    }
}

/// The files of an archive as a folder with the same files would be listed, and how many were replaced by a later one with the same path.
///
/// # Errors
/// [`ClientError::File`] if the archive is damaged, cut off, or has too many entries. Nothing is unpacked.
pub fn list(path: &Path) -> Result<(Listing, u64), ClientError> {
    let mut list = List {
        archive: path,
        found: Listing::default(),
        folders: vec![],
        places: HashMap::new(),
        left: HashSet::new(),
        replaced: 0,
    };
    visit(path, &mut list).map_err(ClientError::reading(path))?;
    let replaced = list.replaced;
    Ok((folder::ordered(list.found, list.folders), replaced))
}

struct List<'a> {
    archive: &'a Path,
    found: Listing,
    folders: Vec<String>,
    /// Which file has a path.
    places: HashMap<String, usize>,
    /// Paths that were left out. A folder is left out once, with all that is in it.
    left: HashSet<String>,
    replaced: u64,
}

impl Visitor for List<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<Option<File>> {
        let Some(name) = entry.name else {
            self.skip(format!("entry {}", entry.number), LeftOutReason::NotUtf8);
            return Ok(None);
        };
        let is_folder = entry.kind == Kind::Folder;
        let path = plain(name, is_folder);
        if let Some((path, reason)) = folder::unwanted_path(&path) {
            self.skip(path.to_owned(), reason);
            return Ok(None);
        }
        match entry.kind {
            Kind::Folder if path.is_empty() => {}
            Kind::Folder => self.folders.push(path),
            Kind::Special => self.skip(path, LeftOutReason::Special),
            Kind::File | Kind::Link => self.file(path, entry),
        }
        Ok(None)
    }

    fn end(&mut self, _: Result<(), String>) -> io::Result<()> {
        Ok(())
    }
}

impl List<'_> {
    fn skip(&mut self, path: String, reason: LeftOutReason) {
        if self.left.insert(path.clone()) {
            self.found.skipped.push(Skipped { path, reason });
        }
    }

    fn file(&mut self, path: String, entry: &Entry) {
        let file = SourceFile {
            path,
            location: self.archive.to_owned(),
            packed: Some(entry.number),
            size_bytes: entry.size_bytes,
            shown: None,
        };
        match self.places.get(&file.path) {
            Some(place) => {
                self.found.files[*place] = file;
                self.replaced += 1;
            }
            None => {
                self.places.insert(file.path.clone(), self.found.files.len());
                self.found.files.push(file);
            }
        }
    }
}

/// The name without `./` and needless slashes, and with one at the end of a folder's.
fn plain(name: &str, is_folder: bool) -> String {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let end = if is_folder && !parts.is_empty() { "/" } else { "" };
    parts.join("/") + end
}

/// Why the content of a file is not unpacked.
fn refusal(entry: &Entry) -> Option<String> {
    let name = entry.name.unwrap_or_default();
    if name.split('/').any(|part| part == "..") {
        return Some("its path leads out of the archive".to_owned());
    }
    if entry.kind == Kind::Link {
        return Some("it is a link, which is not followed in an archive".to_owned());
    }
    if Archive::of_path(Path::new(name)).is_some() {
        return Some(
            "it is an archive in an archive, which is not opened: unpack it, and name it by itself".to_owned(),
        );
    }
    if entry.size_bytes > limits::MAX_PHOTO_BYTES {
        let most = limits::MAX_PHOTO_BYTES >> 20;
        return Some(format!(
            "the file has {} bytes, more than the {most} MiB that a photo may have",
            entry.size_bytes
        ));
    }
    entry.refused.clone()
}

#[cfg(test)]
mod tests;
