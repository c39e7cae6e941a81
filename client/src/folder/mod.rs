//! Lists the files of a folder, in the same order each time.
//!
//! Hidden entries and litter are left out. Symbolic links are followed inside the folder, and everywhere if that is asked for.

mod litter;

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
};

use sortinghat_proto::{
    limits,
    manifest::{LeftOut, LeftOutReason},
};

use crate::{ClientError, SourceFile};

/// Links to folders on the way to one file. This bounds the number of ways through folders that link to each other.
const MAX_LINKED_FOLDERS: usize = 8;

/// Which symbolic links are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Links {
    /// Those that stay inside the folder.
    #[default]
    Inside,
    /// All of them.
    Everywhere,
}

/// The files of a folder, and the entries that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files, sorted by the bytes of their relative path. Whether they can be read is found when they are uploaded.
    pub files: Vec<SourceFile>,
    /// The entries that were left out, sorted by path.
    pub skipped: Vec<Skipped>,
}

/// An entry that was left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Its path relative to the folder. The path of a folder ends with `/`.
    pub path: String,
    /// Why it was left out.
    pub reason: LeftOutReason,
}

impl Listing {
    /// The entries that were left out by reason, as an upload states them: the paths nearest to the top come first.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let mut by_reason: BTreeMap<LeftOutReason, Vec<&str>> = BTreeMap::new();
        for skipped in &self.skipped {
            by_reason.entry(skipped.reason).or_default().push(&skipped.path);
        }
        let group = |(reason, mut paths): (LeftOutReason, Vec<&str>)| {
            paths.sort_by_key(|path| path.trim_end_matches('/').matches('/').count());
            let entries = paths.len() as u64;
            let paths = paths.into_iter().take(limits::MAX_LEFT_OUT_PATHS).map(ToOwned::to_owned).collect();
            LeftOut { reason, entries, paths }
        };
        by_reason.into_iter().map(group).collect()
    }
}

/// Lists the files below `root`, which may be a link itself. One entry that cannot be read is left out, or fails by itself when it is
/// uploaded.
///
/// # Errors
/// [`ClientError::File`] if `root` is not a folder that can be listed, or has more files or folders than an upload may have files.
pub fn list(root: &Path, links: Links) -> Result<Listing, ClientError> {
    let real = root.canonicalize().map_err(ClientError::reading(root))?;
    let mut walk = Walk { root: real.clone(), links, found: Listing::default(), folders: Vec::new() };
    let mut waiting = vec![Folder { location: root.to_owned(), prefix: String::new(), real, trail: None }];
    while let Some(folder) = waiting.pop() {
        let entries = match fs::read_dir(&folder.location) {
            Ok(entries) => entries,
            Err(error) if folder.prefix.is_empty() => return Err(ClientError::reading(root)(error)),
            Err(_) => {
                walk.skip(folder.prefix, LeftOutReason::UnreadableFolder);
                continue;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => waiting.extend(walk.visit(&folder, &entry)),
                Err(_) => walk.skip(folder.prefix.clone(), LeftOutReason::UnreadableFolder),
            }
        }
        walk.folders.push(folder.prefix);
        if walk.found.files.len().max(walk.folders.len()) > limits::MAX_UPLOAD_FILES {
            let most = limits::MAX_UPLOAD_FILES;
            let many =
                io::Error::other(format!("it has more than {most} files or folders, and one upload takes no more"));
            return Err(ClientError::reading(root)(many));
        }
    }
    Ok(ordered(walk.found, walk.folders))
}

/// A folder that is still to be listed.
struct Folder {
    location: PathBuf,
    /// Its path relative to the root, with `/` at the end unless it is the root.
    prefix: String,
    /// Where it is without any link.
    real: PathBuf,
    /// The folders with links that led here, the last one first.
    trail: Option<Rc<Hop>>,
}

/// A folder from which a link was followed.
struct Hop {
    real: PathBuf,
    before: Option<Rc<Hop>>,
}

impl Folder {
    /// The real folders on the way here: this one, and each from which a link was followed.
    fn way(&self) -> impl Iterator<Item = &Path> {
        let hops = std::iter::successors(self.trail.as_deref(), |hop| hop.before.as_deref());
        std::iter::once(self.real.as_path()).chain(hops.map(|hop| hop.real.as_path()))
    }
}

struct Walk {
    /// The real path of the folder that is listed.
    root: PathBuf,
    links: Links,
    found: Listing,
    /// The relative paths of all folders that were listed.
    folders: Vec<String>,
}

impl Walk {
    fn skip(&mut self, path: String, reason: LeftOutReason) {
        self.found.skipped.push(Skipped { path, reason });
    }

    /// Takes note of one entry. Returns it if it is a folder to list.
    fn visit(&mut self, folder: &Folder, entry: &fs::DirEntry) -> Option<Folder> {
        let (name, location) = (entry.file_name(), entry.path());
        let kind = entry.file_type().ok();
        let is_folder = kind.is_some_and(|kind| kind.is_dir());
        let path = format!("{}{}{}", folder.prefix, name.to_string_lossy(), if is_folder { "/" } else { "" });
        if let Some(reason) = unwanted(&name, &path) {
            self.skip(path, reason);
            return None;
        }
        if kind.is_some_and(|kind| kind.is_symlink()) {
            return self.follow(folder, path, location);
        }
        if is_folder {
            let (real, trail) = (folder.real.join(&name), folder.trail.clone());
            return Some(Folder { location, prefix: path, real, trail });
        }
        // An entry without a kind cannot be read, and says so when it is.
        if kind.is_some_and(|kind| !kind.is_file()) {
            self.skip(path, LeftOutReason::Special);
            return None;
        }
        self.file(path, location);
        None
    }

    /// Takes note of a symbolic link. Returns its target if that is a folder to list.
    fn follow(&mut self, folder: &Folder, path: String, location: PathBuf) -> Option<Folder> {
        let Ok(real) = location.canonicalize() else {
            match Path::new(&path).extension() {
                // A photo has an extension. This one cannot be read.
                Some(_) => self.file(path, location),
                None => self.skip(path + "/", LeftOutReason::BrokenLink),
            }
            return None;
        };
        let is_folder = real.is_dir();
        let path = if is_folder { path + "/" } else { path };
        if self.links == Links::Inside && !real.starts_with(&self.root) {
            self.skip(path, LeftOutReason::OutsideLink);
            return None;
        }
        if is_folder {
            if folder.way().any(|passed| passed.starts_with(&real)) || folder.way().count() > MAX_LINKED_FOLDERS {
                self.skip(path, LeftOutReason::CircularLink);
                return None;
            }
            let hop = Hop { real: folder.real.clone(), before: folder.trail.clone() };
            return Some(Folder { location, prefix: path, real, trail: Some(Rc::new(hop)) });
        }
        if !real.is_file() {
            self.skip(path, LeftOutReason::Special);
            return None;
        }
        self.file(path, location);
        None
    }

    fn file(&mut self, path: String, location: PathBuf) {
        let size_bytes = location.metadata().map_or(0, |metadata| metadata.len());
        self.found.files.push(SourceFile { path, location, packed: None, size_bytes, shown: None });
    }
}

/// The listing, in order, with those of `folders` that turned out empty.
pub(crate) fn ordered(mut found: Listing, folders: Vec<String>) -> Listing {
    let mut filled: HashSet<&str> = HashSet::new();
    let missed = found.skipped.iter().filter(|skipped| skipped.reason.may_be_missed());
    for path in found.files.iter().map(|file| &file.path).chain(missed.map(|skipped| &skipped.path)) {
        // Where one folder is known to be filled, so are those above it.
        let folders = path.rmatch_indices('/').map(|(end, _)| &path[..=end]);
        folders.take_while(|folder| filled.insert(*folder)).for_each(drop);
    }
    let above = |folder: &str| folder.trim_end_matches('/').rfind('/').map_or("", |end| &folder[..=end]).to_owned();
    let is_top = |folder: &String| {
        let above = above(folder);
        !filled.contains(folder.as_str()) && (above.is_empty() || filled.contains(above.as_str()))
    };
    let empty: Vec<String> = folders.into_iter().filter(|folder| !folder.is_empty()).filter(is_top).collect();
    let skip = |path| Skipped { path, reason: LeftOutReason::EmptyFolder };
    found.skipped.extend(empty.into_iter().map(skip));
    found.files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    found.skipped.sort();
    found
}

/// The part of a path in an archive that is left out whatever it is, and why: a folder with all that is in it, or the file.
pub(crate) fn unwanted_path(path: &str) -> Option<(&str, LeftOutReason)> {
    let ends = path.trim_end_matches('/').match_indices('/').map(|(end, _)| end + 1).chain([path.len()]);
    let mut start = 0;
    for end in ends {
        let name = path[start..end].trim_end_matches('/');
        // A path that leads upwards is not hidden.
        if name != ".."
            && let Some(reason) = unwanted(name.as_ref(), &path[..end])
        {
            return Some((&path[..end], reason));
        }
        start = end;
    }
    None
}

/// Why an entry is left out whatever it is.
fn unwanted(name: &std::ffi::OsStr, path: &str) -> Option<LeftOutReason> {
    if litter::is_litter(name) {
        return Some(LeftOutReason::Litter);
    }
    if name.as_encoded_bytes().starts_with(b".") {
        return Some(LeftOutReason::Hidden);
    }
    if name.to_str().is_none() {
        return Some(LeftOutReason::NotUtf8);
    }
    (path.trim_end_matches('/').len() > limits::MAX_PATH_BYTES).then_some(LeftOutReason::PathTooLong)
}

#[cfg(test)]
mod tests;
