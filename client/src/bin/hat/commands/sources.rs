//! Photos and folders on the command line become an upload.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Component, Path, PathBuf},
};

use sortinghat_client::{
    Client, SourceFile,
    folder::{self, SkipReason, Skipped},
};
use sortinghat_proto::{ObjectRef, limits};

use crate::{
    failure::Failure,
    follow::UploadBar,
    session::Session,
    show::numbers::{count, counted},
};

/// Paths that are shown for each reason to leave out files.
const SHOWN_SKIPPED: usize = 3;

/// Uploads a folder of photos.
pub(super) async fn upload_folder(session: &Session, client: &Client, folder: &Path) -> Result<ObjectRef, Failure> {
    upload(session, client, list_folder(session, folder)?).await
}

/// Lists the files of a folder, and says what was left out.
pub(super) fn list_folder(session: &Session, folder: &Path) -> Result<Vec<SourceFile>, Failure> {
    let shown = folder.display();
    if !folder.exists() {
        return Err(Failure::usage(format!("there is no folder {shown}: check the path")));
    }
    if !folder.is_dir() {
        return Err(Failure::usage(format!("{shown} is not a folder: name the folder that holds the photos")));
    }
    let listing = folder::list(folder)?;
    say_skipped(session, &listing.skipped);
    if listing.files.is_empty() {
        return Err(Failure::usage(format!(
            "there are no files in {shown}: put photos into it, in a folder for each class"
        )));
    }
    Ok(listing.files)
}

/// Lists the files that several arguments name. If the only argument is a folder, the paths in the upload are relative to that folder;
/// otherwise they begin as the arguments do.
pub(super) fn list_arguments(session: &Session, arguments: &[PathBuf]) -> Result<Vec<SourceFile>, Failure> {
    if let [only] = arguments
        && !only.is_file()
    {
        return list_folder(session, only);
    }
    let mut files = Vec::new();
    for argument in arguments {
        if argument.is_file() {
            files.push(single_file(argument)?);
            continue;
        }
        let prefix = relative_name(argument)?;
        let below = list_folder(session, argument)?.into_iter();
        files.extend(below.map(|file| SourceFile { path: format!("{prefix}/{}", file.path), ..file }));
    }
    let mut seen = HashSet::new();
    match files.iter().find(|file| !seen.insert(file.path.as_str())) {
        Some(twice) => Err(Failure::usage(format!("{} is named twice: name each photo once", twice.path))),
        None => Ok(files),
    }
}

/// Uploads the files that the server lacks.
pub(super) async fn upload(session: &Session, client: &Client, files: Vec<SourceFile>) -> Result<ObjectRef, Failure> {
    let bar = UploadBar::new(session);
    Ok(client.upload(&files, |progress| bar.show(progress)).await?)
}

fn single_file(path: &Path) -> Result<SourceFile, Failure> {
    let size_bytes = path.metadata().map_err(Failure::file("read", path))?.len();
    if size_bytes > limits::MAX_PHOTO_BYTES {
        return Err(Failure::usage(format!("{}: {}", path.display(), SkipReason::TooLarge.as_str())));
    }
    Ok(SourceFile { path: relative_name(path)?, location: path.to_owned(), size_bytes })
}

/// A path as an upload names it: without `/`, `./` and `../`, so that it cannot lead out of the upload.
fn relative_name(path: &Path) -> Result<String, Failure> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_str().ok_or(())),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    });
    let parts: Result<Vec<&str>, ()> = parts.collect();
    match parts {
        Ok(parts) if parts.is_empty() => Ok("photos".to_owned()),
        Ok(parts) => Ok(parts.join("/")),
        Err(()) => Err(Failure::usage(format!("the name of {} is not UTF-8: rename it", path.display()))),
    }
}

fn say_skipped(session: &Session, skipped: &[Skipped]) {
    let mut by_reason: BTreeMap<SkipReason, Vec<&Path>> = BTreeMap::new();
    for one in skipped {
        by_reason.entry(one.reason).or_default().push(&one.path);
    }
    for (reason, paths) in by_reason {
        let shown: Vec<String> = paths.iter().take(SHOWN_SKIPPED).map(|path| path.display().to_string()).collect();
        let rest = paths.len().saturating_sub(SHOWN_SKIPPED) as u64;
        let more = if rest == 0 { String::new() } else { format!(" and {} more", count(rest)) };
        let number = counted(paths.len() as u64, "entry", "entries");
        session.hint(&format!("left out {number} ({}): {}{more}", reason.as_str(), shown.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_arguments_never_lead_out_of_the_upload() {
        for (path, name) in [
            ("me.jpg", "me.jpg"),
            ("./a/../me.jpg", "a/me.jpg"),
            ("/home/x/me.jpg", "home/x/me.jpg"),
            ("../../me.jpg", "me.jpg"),
            ("..", "photos"),
        ] {
            assert_eq!(relative_name(Path::new(path)).expect("UTF-8"), name, "{path}");
        }
    }
}
