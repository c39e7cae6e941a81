//! Lists the files of a folder, in the same order each time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sortinghat_proto::limits;

use crate::{ClientError, SourceFile};

/// The files of a folder, and the entries that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files, sorted by the bytes of their relative path.
    pub files: Vec<SourceFile>,
    /// The entries that were left out, sorted by path.
    pub skipped: Vec<Skipped>,
}

/// An entry that was left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Its path on this machine.
    pub path: PathBuf,
    /// Why it was left out.
    pub reason: SkipReason,
}

/// Why an entry was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Its name starts with a dot.
    Hidden,
    /// A symbolic link. Its target may be outside the folder, or be listed already.
    Symlink,
    /// Neither a file nor a folder.
    Special,
    /// Its name is not UTF-8.
    NotUtf8,
    /// It has more than [`limits::MAX_PHOTO_BYTES`].
    TooLarge,
    /// Its relative path has more than [`limits::MAX_PATH_BYTES`].
    PathTooLong,
    /// The system does not allow to read it.
    Unreadable,
}

impl SkipReason {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Symlink => "symbolic link",
            Self::Special => "neither a file nor a folder",
            Self::NotUtf8 => "name is not UTF-8",
            Self::TooLarge => "larger than 256 MiB",
            Self::PathTooLong => "path is longer than 1024 bytes",
            Self::Unreadable => "not readable",
        }
    }
}

/// Lists the files below `root`, and never leaves that folder. `root` itself may be a link.
///
/// # Errors
/// [`ClientError::File`] if `root` is not a folder that can be listed.
pub fn list(root: &Path) -> Result<Listing, ClientError> {
    let mut listing = Listing::default();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let entries = match fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) if prefix.is_empty() => return Err(ClientError::reading(root)(error)),
            Err(_) => {
                listing.skipped.push(Skipped { path: folder, reason: SkipReason::Unreadable });
                continue;
            }
        };
        for entry in entries {
            match classify(&entry, &prefix) {
                Ok(Found::File(file)) => listing.files.push(file),
                Ok(Found::Folder(relative)) => folders.push((entry.path(), relative + "/")),
                Err(reason) => listing.skipped.push(Skipped { path: entry.path(), reason }),
            }
        }
    }
    listing.files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    listing.skipped.sort();
    Ok(listing)
}

/// An entry of a folder that is used.
enum Found {
    File(SourceFile),
    Folder(String),
}

fn classify(entry: &fs::DirEntry, prefix: &str) -> Result<Found, SkipReason> {
    let name = entry.file_name();
    if name.as_encoded_bytes().starts_with(b".") {
        return Err(SkipReason::Hidden);
    }
    let name = name.to_str().ok_or(SkipReason::NotUtf8)?;
    // The type of the entry itself: links are not followed.
    let kind = entry.file_type().map_err(|_| SkipReason::Unreadable)?;
    if kind.is_symlink() {
        return Err(SkipReason::Symlink);
    }
    let relative = format!("{prefix}{name}");
    if relative.len() > limits::MAX_PATH_BYTES {
        return Err(SkipReason::PathTooLong);
    }
    if kind.is_dir() {
        return Ok(Found::Folder(relative));
    }
    if !kind.is_file() {
        return Err(SkipReason::Special);
    }
    let size_bytes = entry.metadata().map_err(|_| SkipReason::Unreadable)?.len();
    if size_bytes > limits::MAX_PHOTO_BYTES {
        return Err(SkipReason::TooLarge);
    }
    Ok(Found::File(SourceFile { path: relative, location: entry.path(), size_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink};

    fn write(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below root")).expect("writable");
        fs::write(path, b"x").expect("writable");
    }

    fn paths(listing: &Listing) -> Vec<&str> {
        listing.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn files_come_sorted_by_their_whole_path_with_names_of_any_script() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for path in ["a/z.png", "a-b/1.png", "a.png", "猫/写真 1.jpg", "b/ü.png"] {
            write(folder.path(), path);
        }
        let listing = list(folder.path()).expect("readable");
        assert_eq!(paths(&listing), ["a-b/1.png", "a.png", "a/z.png", "b/ü.png", "猫/写真 1.jpg"]);
        assert_eq!(listing, list(folder.path()).expect("readable"));
    }

    #[test]
    fn links_hidden_files_and_unreadable_names_are_left_out_and_reported() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        write(elsewhere.path(), "secret.png");
        write(folder.path(), "a/1.png");
        write(folder.path(), "a/.DS_Store");
        write(folder.path(), ".git/config");
        symlink(elsewhere.path(), folder.path().join("out")).expect("links are supported");
        symlink(elsewhere.path().join("secret.png"), folder.path().join("a/link.png")).expect("links are supported");
        symlink(folder.path(), folder.path().join("a/cycle")).expect("links are supported");
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.png")), b"x").expect("writable");

        let listing = list(folder.path()).expect("readable");
        assert_eq!(paths(&listing), ["a/1.png"]);
        let count = |reason| listing.skipped.iter().filter(|skipped| skipped.reason == reason).count();
        assert_eq!((count(SkipReason::Symlink), count(SkipReason::Hidden), count(SkipReason::NotUtf8)), (3, 2, 1));
    }

    #[test]
    fn an_empty_folder_has_no_files_and_a_missing_one_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("class")).expect("writable");
        assert_eq!(list(folder.path()).expect("readable"), Listing::default());
        let error = list(&folder.path().join("missing")).expect_err("no such folder");
        assert!(error.to_string().contains("missing"), "{error}");
    }

    #[test]
    fn a_file_over_the_limit_is_left_out_by_its_size_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = fs::File::create(folder.path().join("huge.tif")).expect("writable");
        file.set_len(limits::MAX_PHOTO_BYTES + 1).expect("sparse files are supported");
        let listing = list(folder.path()).expect("readable");
        assert_eq!(listing.skipped[0].reason, SkipReason::TooLarge);
    }

    #[test]
    fn ten_thousand_files_are_listed_each_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for class in 0..10 {
            let class = folder.path().join(format!("class {class}"));
            fs::create_dir(&class).expect("writable");
            (0..1000).for_each(|n| fs::write(class.join(format!("{n}.png")), b"").expect("writable"));
        }
        let listing = list(folder.path()).expect("readable");
        assert_eq!(listing.files.len(), 10_000);
        assert!(listing.files.is_sorted_by(|a, b| a.path < b.path));
    }
}
