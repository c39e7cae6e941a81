//! The list of an upload's files, under paths that cannot lead out of it.

use std::collections::HashSet;

use sortinghat_proto::{ObjectRef, limits, manifest::UploadedFile};

use super::SourceFile;

/// The files as a manifest lists them. Paths that lead out of the upload or repeat another are replaced there.
pub(super) fn listed(files: &[SourceFile], read: Vec<Result<ObjectRef, String>>) -> Vec<UploadedFile> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
