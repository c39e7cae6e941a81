//! Photos, folders, archives and lists of paths become an upload.

mod listed;
mod table;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use sortinghat_client::{
    Client, SourceFile, UploadProgress,
    archive::{self, Archive},
    folder::{self, Links, Listing, Skipped},
};
use sortinghat_proto::{
    ObjectRef,
    layout::LayoutChoice,
    limits,
    manifest::{LeftOut, LeftOutReason, Remark},
};

use crate::{
    failure::Failure,
    follow::FilesBar,
    session::Session,
    show::numbers::{count, counted},
    sorting::Folders,
};

/// The argument that stands for a list of paths on standard input.
const STDIN: &str = "-";

/// Whether photos can be taken from what `named` names without a server: a folder, an archive, a table or standard input.
pub(super) fn is_source(named: &Path) -> bool {
    named == Path::new(STDIN) || named.is_dir() || is_archive(named) || table::is_table(named)
}

/// Photos with labels.
pub(super) struct Labelled {
    pub(super) listing: Listing,
    /// How their paths are read, if that is certain.
    pub(super) layout: Option<LayoutChoice>,
}

fn is_archive(path: &Path) -> bool {
    Archive::of_path(path).is_some() && path.is_file()
}

/// Lists the files of a folder, an archive or a list of paths in which there is a folder per class, or of a table with labels, and says what
/// was left out. Refuses one without class folders, of which the worker could use nothing.
pub(super) fn list_labelled(session: &Session, folder: &Path, links: Links) -> Result<Labelled, Failure> {
    if table::is_table(folder) {
        return table::labelled(session, folder);
    }
    let listing = list_class_folders(session, folder, links)?;
    Ok(Labelled { listing, layout: None })
}

fn list_class_folders(session: &Session, folder: &Path, links: Links) -> Result<Listing, Failure> {
    let shown = folder.display();
    if !is_source(folder) && !folder.exists() {
        return Err(Failure::usage(format!("there is no folder {shown}: check the path")));
    }
    let listing = list_source(session, folder, links)?;
    if folder == Path::new(STDIN) {
        listed::refuse_outer(&listing)?;
    }
    if listing.files.is_empty() {
        return Err(Failure::usage(format!(
            "there are no files in {shown}: put photos into it, in a folder for each class"
        )));
    }
    if listing.files.iter().any(|file| file.path.contains('/')) {
        return Ok(listing);
    }
    let number = counted(listing.files.len() as u64, "file lies", "files lie");
    let is_heic =
        |file: &SourceFile| file.location.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("heic"));
    let heic = match listing.files.iter().all(is_heic) {
        true => "; and convert them, because HEIC is not supported (`heif-convert photo.heic photo.jpg`)",
        false => "",
    };
    Err(Failure::usage(format!(
        "{number} in {shown} itself and in no class folder: put the photos of each class into a folder of its own, such as {}{heic}",
        folder.join("CLASS").display()
    )))
}

/// Lists the files of a folder, an archive or a list of paths whose photos need no labels, and says what was left out.
fn list_photos(session: &Session, folder: &Path, links: Links) -> Result<Listing, Failure> {
    let listing = list_source(session, folder, links)?;
    if listing.files.is_empty() {
        return Err(Failure::usage(format!(
            "there are no photos in {}: name a folder that has some",
            folder.display()
        )));
    }
    Ok(listing)
}

fn list_source(session: &Session, named: &Path, links: Links) -> Result<Listing, Failure> {
    let listing = if named == Path::new(STDIN) {
        listed::from_stdin(session)?
    } else if is_archive(named) {
        list_archive(session, named)?
    } else if table::is_table(named) {
        table::photos(session, named)?
    } else if named.is_dir() {
        folder::list(named, links)?
    } else {
        let shown = named.display();
        return Err(Failure::usage(format!(
            "{shown} is not a folder: name the folder that holds the photos, an archive of it (.zip, .tar, \
             .tar.zst, .tar.gz), or a table of their paths (.csv, .tsv)"
        )));
    };
    say_left_out(session, &listing);
    Ok(listing)
}

fn list_archive(session: &Session, archive: &Path) -> Result<Listing, Failure> {
    let (listing, replaced) = archive::list(archive)?;
    if replaced > 0 {
        let entries = counted(replaced, "entry has", "entries have");
        session.warn(&format!(
            "{entries} the path of a later one in {}: the last one counts, as it does when the archive is unpacked",
            archive.display()
        ));
    }
    Ok(listing)
}

/// Lists the files of a folder that were not sorted before, without those in the folder into which they are sorted, and says what was left
/// out. Also returns how many were sorted before.
pub(super) fn list_unsorted(
    session: &Session,
    folder: &Path,
    folders: &Folders,
    links: Links,
) -> Result<(Listing, u64), Failure> {
    let mut listing = folder::list(folder, links)?;
    if let Some(inner) = folders.inner() {
        listing.files.retain(|file| !file.path.starts_with(&inner));
        listing.skipped.retain(|skipped| !skipped.path.starts_with(&inner));
    }
    let all = listing.files.len() as u64;
    listing.files.retain(|file| !folders.was_sorted(&file.path));
    say_left_out(session, &listing);
    if all == 0 {
        return Err(Failure::usage(format!(
            "there are no photos in {}: name a folder that has some",
            folder.display()
        )));
    }
    let sorted_before = all - listing.files.len() as u64;
    Ok((listing, sorted_before))
}

/// Lists the files that several arguments name. If the only argument is a folder, the paths in the upload are relative to that folder;
/// otherwise they begin as the arguments do, so that each file is found by the path that its result names.
pub(super) fn list_arguments(session: &Session, arguments: &[PathBuf], links: Links) -> Result<Listing, Failure> {
    if let Some(missing) = arguments.iter().find(|argument| !is_source(argument) && !argument.exists()) {
        return Err(Failure::usage(format!("there is no photo or folder {}: check the path", missing.display())));
    }
    if let [only] = arguments
        && (is_source(only) || !only.is_file())
    {
        return list_photos(session, only, links);
    }
    let mut all = Listing::default();
    for argument in arguments {
        let name = argument
            .to_str()
            .ok_or_else(|| Failure::usage(format!("the name of {} is not UTF-8: rename it", argument.display())))?;
        if name == STDIN {
            let Listing { files, skipped } = list_photos(session, argument, links)?;
            all.files.extend(files);
            all.skipped.extend(skipped);
            continue;
        }
        if !is_source(argument) && argument.is_file() {
            all.files.push(single_file(name, argument));
            continue;
        }
        let (prefix, below) = (name.trim_end_matches('/'), list_photos(session, argument, links)?);
        let within = |path: String| format!("{prefix}/{path}");
        all.files.extend(below.files.into_iter().map(|file| SourceFile {
            path: within(file.path),
            shown: file.shown.map(within),
            ..file
        }));
        all.skipped.extend(below.skipped.into_iter().map(|one| Skipped { path: within(one.path), ..one }));
    }
    let all = bounded(session, all)?;
    refuse_repeated(&all)?;
    Ok(all)
}

fn refuse_repeated(all: &Listing) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    match all.files.iter().find(|file| !seen.insert(file.path.as_str())) {
        Some(twice) => Err(Failure::usage(format!("{} is named twice: name each photo once", twice.path))),
        None => Ok(()),
    }
}

/// The files of all arguments together, within the bounds of one upload. A folder was listed within the bounds, but here its paths are
/// longer by the argument's, and there are the files of the other arguments too.
fn bounded(session: &Session, mut all: Listing) -> Result<Listing, Failure> {
    let long = too_long(&mut all);
    say_left_out(session, &Listing { skipped: long.clone(), ..Listing::default() });
    all.skipped.extend(long);
    all.skipped.sort();
    if all.files.is_empty() {
        return Err(Failure::usage("there are no photos to classify: name them by shorter paths"));
    }
    refuse_many(all.files.len())?;
    Ok(all)
}

/// Takes out the files whose paths are too long for an upload.
fn too_long(all: &mut Listing) -> Vec<Skipped> {
    let long = all.files.extract_if(.., |file| file.path.len() > limits::MAX_PATH_BYTES);
    long.map(|file| Skipped { path: file.path, reason: LeftOutReason::PathTooLong }).collect()
}

fn refuse_many(files: usize) -> Result<(), Failure> {
    let (number, most) = (count(files as u64), count(limits::MAX_UPLOAD_FILES as u64));
    match files > limits::MAX_UPLOAD_FILES {
        true => Err(Failure::usage(format!(
            "these are {number} files, and one upload takes at most {most}: classify the folders one after the other"
        ))),
        false => Ok(()),
    }
}

/// Uploads the files that the server lacks.
pub(super) async fn upload(session: &Session, client: &Client, listing: &Listing) -> Result<ObjectRef, Failure> {
    let bar = FilesBar::new(session);
    let show = |progress| match progress {
        UploadProgress::Hashed(amount) => bar.show_amount("reading", amount),
        UploadProgress::Sent(amount) => bar.show_amount("uploading", amount),
    };
    Ok(client.upload_listing(listing, show).await?)
}

fn single_file(name: &str, location: &Path) -> SourceFile {
    // Whether the file can be read is found when it is uploaded.
    let size_bytes = location.metadata().map_or(0, |metadata| metadata.len());
    SourceFile { path: name.to_owned(), location: location.to_owned(), packed: None, size_bytes, shown: None }
}

/// Says what was left out of a folder. Photos that a person may miss are a warning, which `--quiet` does not silence.
fn say_left_out(session: &Session, listing: &Listing) {
    let told = listing.left_out().into_iter().filter(|group| group.reason != LeftOutReason::EmptyFolder);
    let (missed, others): (Vec<LeftOut>, Vec<LeftOut>) = told.partition(|group| group.reason.may_be_missed());
    if missed.iter().any(|group| group.reason == LeftOutReason::OutsideLink) {
        session.warn(&format!("{}; --follow-links follows such links", Remark::LeftOut { groups: missed }));
    } else if !missed.is_empty() {
        session.warn(&Remark::LeftOut { groups: missed }.to_string());
    }
    if !others.is_empty() {
        session.hint(&Remark::LeftOut { groups: others }.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_an_argument_makes_too_long_are_left_out_and_too_many_files_are_refused() {
        let file = |path: &str| SourceFile {
            path: path.into(),
            location: path.into(),
            packed: None,
            size_bytes: 0,
            shown: None,
        };
        let (longest, long) = ("a".repeat(limits::MAX_PATH_BYTES), "b".repeat(limits::MAX_PATH_BYTES + 1));
        let mut all = Listing { files: vec![file(&long), file(&longest)], skipped: vec![] };
        assert_eq!(too_long(&mut all), [Skipped { path: long, reason: LeftOutReason::PathTooLong }]);
        assert_eq!(all.files, [file(&longest)]);
        assert!(refuse_many(limits::MAX_UPLOAD_FILES).is_ok());
        let failure = refuse_many(limits::MAX_UPLOAD_FILES + 1).expect_err("one too many");
        assert!(failure.to_string().contains("1,000,001 files"), "{failure}");
    }
}
