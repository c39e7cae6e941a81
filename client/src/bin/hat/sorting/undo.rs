//! Takes back what a journal says, as far as it is still so.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Mode,
    disk::{self, Copied, Failed},
    journal::{Journal, Place, Record, State},
};
use crate::failure::Failure;

/// What became of a photo that was sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Back {
    /// It is where it was before.
    Restored,
    /// It stays where it is, because somebody has changed something since. It is theirs now.
    Kept(String),
    /// It could not be taken back. Another try may succeed.
    Failed(String),
}

/// Takes back every run that the journal of `into` tells of, the last photo first, and tells of each photo where it is or was. Returns
/// whether that is finished, so that the journal is gone. `stop` ends it after a photo.
///
/// # Errors
/// [`Failure::Usage`] if nothing was sorted into the folder, [`Failure::File`] if the journal cannot be written.
pub(crate) fn undo(into: &Path, stop: &AtomicBool, mut tell: impl FnMut(&Path, &Back)) -> Result<bool, Failure> {
    let nothing = || {
        let shown = into.display();
        Failure::usage(format!("there is nothing to undo in {shown}: name the folder that --into named for `hat sort`"))
    };
    let into = &into.canonicalize().unwrap_or_else(|_| into.to_owned());
    let mut journal = Journal::open(into, false)?.ok_or_else(nothing)?;
    let mut is_finished = true;
    for photo in (0..journal.story.photos.len()).rev() {
        let (place, state) = journal.story.photos[photo].clone();
        if matches!(state, State::Dropped | State::Undone) {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        journal.note(vec![Record::Undoing { photo }])?;
        let back = take_back(&place, &into.join(&place.to), state == State::Placed);
        is_finished &= !matches!(back, Back::Failed(_));
        if !matches!(back, Back::Failed(_)) {
            journal.note(vec![Record::Undone { photo }])?;
        }
        if state != State::Announced || back != Back::Restored {
            tell(&place.to, &back);
        }
    }
    remove_folders(&journal, into)?;
    if is_finished {
        let was_made = journal.story.runs.iter().any(|run| run.made);
        journal.remove()?;
        if was_made {
            disk::remove_empty_folder(into);
        }
    }
    Ok(is_finished)
}

/// Removes the folders that were made and are empty, and copies that are not complete.
fn remove_folders(journal: &Journal, into: &Path) -> Result<(), Failure> {
    for folder in journal.story.folders.iter().rev().map(|folder| into.join(folder)) {
        let part = disk::part_beside(&folder.join("photo"));
        disk::remove_part(&part).map_err(Failure::file("remove", part))?;
        disk::remove_empty_folder(&folder);
    }
    Ok(())
}

fn take_back(place: &Place, to: &Path, was_placed: bool) -> Back {
    let (there, before) = (disk::regular(to), fs::metadata(&place.from).ok().filter(fs::Metadata::is_file));
    let Some(there) = there else {
        return match was_placed {
            true => Back::Kept("it is no longer where it was put".to_owned()),
            false => Back::Restored,
        };
    };
    if disk::is_same_place(&place.from, to) {
        return Back::Kept(format!("{} leads to it, and there is no other", place.from.display()));
    }
    let is_one_file = before.as_ref().is_some_and(|before| disk::is_same_file(before, &there));
    let is_as_left = there.len() == place.content.size_bytes
        && (disk::modified_ns(&there) == place.modified_ns && (place.mode == Mode::Move && before.is_none())
            || disk::holds(to, &place.content));
    if !is_one_file && !is_as_left {
        // What was only announced may never have been put there, and then the file is somebody else's.
        let is_ours = was_placed || before.is_none();
        return if is_ours { Back::Kept("it has changed since it was put there".to_owned()) } else { Back::Restored };
    }
    let done = match (is_one_file || disk::holds(&place.from, &place.content), place.mode) {
        (true, _) => disk::remove_file(to),
        (false, Mode::Move) if fs::symlink_metadata(&place.from).is_ok() => {
            return Back::Failed(format!("another file is at {} now", place.from.display()));
        }
        (false, Mode::Move) => move_back(place, to),
        (false, Mode::Copy | Mode::Link) => {
            return Back::Kept(format!("{} is gone or has changed, and this is what is left", place.from.display()));
        }
    };
    match done {
        Ok(()) => Back::Restored,
        Err(error) => Back::Failed(error.to_string()),
    }
}

fn move_back(place: &Place, to: &Path) -> io::Result<()> {
    if let Some(folder) = place.from.parent() {
        fs::create_dir_all(folder)?;
    }
    match disk::rename_new(to, &place.from) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            match disk::move_across(to, &place.from, &place.content.digest) {
                Ok(Copied::Whole) => Ok(()),
                Ok(Copied::OtherContent) => Err(io::Error::other("it changes while it is moved back")),
                Err(Failed::Source(error) | Failed::Target(error)) => Err(error),
            }
        }
        done => done,
    }
}
