//! What systems and programs leave behind in folders of photos: thumbnails, bins, notes of their own. None of it is a person's photo, and
//! some of it looks like one.

use std::ffi::OsStr;

/// Names of litter, in lower case.
const NAMES: [&str; 19] = [
    // Synology, QNAP and other network storage: thumbnails, bins and snapshots.
    "@eadir",
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
    ".@__thumb",
    // Windows.
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    // macOS, and archives that were made on it.
    ".ds_store",
    "__macosx",
    "icon\r",
    // Linux.
    "lost+found",
    ".thumbnails",
    // Programs for photos.
    "picasa.ini",
    ".picasa.ini",
    ".picasaoriginals",
];

/// Beginnings of names of litter, in lower case: the second half of a file on a disk that knows no forks, and bins.
const BEGINNINGS: [&str; 2] = ["._", ".trash"];

/// Whether an entry of this name is litter.
pub(super) fn is_litter(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    NAMES.contains(&name.as_str()) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn litter_is_known_by_its_name_in_any_case() {
        for name in [
            "@eaDir",
            "#recycle",
            ".Trash-1000",
            ".Trashes",
            "__MACOSX",
            "._a.png",
            "Thumbs.db",
            ".DS_Store",
            "Desktop.ini",
        ] {
            assert!(is_litter(OsStr::new(name)), "{name}");
        }
        for name in ["a.png", "recycle", "macosx", "trash", "thumbs", "eaDir", "_a.png", ".hidden.png"] {
            assert!(!is_litter(OsStr::new(name)), "{name}");
        }
    }
}
