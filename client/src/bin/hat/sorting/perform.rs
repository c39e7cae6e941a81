//! Does what a plan says: announces some photos, puts them into their places, and goes on with the next.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Folders, Mode, Plan, Step,
    disk::{self, Copied, Failed},
    journal::{Journal, Place, Record, State},
    names::{numbered, stem_and_ending},
};
use crate::failure::Failure;

/// Photos that are announced together, because each announcement waits for the disk.
const PHOTOS_AT_A_TIME: usize = 256;

/// What became of a photo.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// It was put into its place.
    Placed(&'a Step),
    /// It stays where it is.
    Left { path: &'a str, why: &'a str },
}

/// Puts photos into their places and tells of each. Returns whether all of them were tried; `stop` ends it after a photo.
///
/// # Errors
/// [`Failure::File`] if the journal or a folder cannot be written, or the disk is full. What was done until then is in the journal.
pub(crate) fn perform(
    folders: &Folders,
    plan: &mut Plan,
    mode: Mode,
    stop: &AtomicBool,
    mut tell: impl FnMut(Told),
) -> Result<bool, Failure> {
    let into = &folders.place;
    let mut run = plan.run.clone();
    run.made = !into.exists();
    if run.made {
        disk::make_folder(into).map_err(Failure::file("make", into))?;
    }
    let journal = Journal::open(into, true)?.ok_or_else(|| Failure::local("the journal is gone"))?;
    let mut work = Work { folders, into, mode, journal };
    work.journal.announce(vec![Record::Run(run)])?;
    plan.left.iter().for_each(|(path, why)| tell(Told::Left { path, why }));
    for steps in plan.steps.chunks_mut(PHOTOS_AT_A_TIME) {
        let mut announced = Vec::new();
        for step in steps {
            match work.check(step) {
                Ok(place) => announced.push((step, place)),
                Err(why) => tell(Told::Left { path: &step.path, why: &why }),
            }
        }
        let first = work.announce(&announced)?;
        for (photo, (step, place)) in (first..).zip(announced) {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            match work.carry_to_free_name(photo, step, place)? {
                None => tell(Told::Placed(step)),
                Some(why) => tell(Told::Left { path: &step.path, why: &why }),
            }
        }
    }
    Ok(true)
}

/// What became of a photo that was to be put into its place.
enum Carried {
    Placed,
    /// Another file has the name.
    Taken,
    /// It stays where it is.
    Left(String),
}

/// Finds out what became of the photos that a run announced last before it ended, and ends what was begun.
///
/// # Errors
/// [`Failure::File`] if that cannot be written.
pub(super) fn settle(journal: &mut Journal, into: &Path) -> Result<(), Failure> {
    for photo in 0..journal.story.photos.len() {
        let (place, state) = journal.story.photos[photo].clone();
        if state != State::Announced {
            continue;
        }
        let to = into.join(&place.to);
        disk::remove_part(&disk::part_beside(&to)).map_err(Failure::file("remove a part of", &to))?;
        let is_there = disk::holds(&to, &place.content);
        let is_left_behind = || disk::holds(&place.from, &place.content) && !disk::is_same_place(&place.from, &to);
        if is_there && place.mode == Mode::Move && is_left_behind() {
            disk::remove_file(&place.from).map_err(Failure::file("move", &place.from))?;
        }
        journal.note(vec![if is_there { Record::Placed { photo } } else { Record::Dropped { photo } }])?;
    }
    Ok(())
}

struct Work<'a> {
    folders: &'a Folders,
    into: &'a Path,
    mode: Mode,
    journal: Journal,
}

impl Work<'_> {
    /// The place for a photo that is still as it was classified.
    ///
    /// # Errors
    /// Why it stays where it is.
    fn check(&self, step: &Step) -> Result<Place, String> {
        let from = self.folders.source.join(&step.path);
        let found = match self.mode {
            Mode::Move => fs::symlink_metadata(&from),
            Mode::Copy | Mode::Link => fs::metadata(&from),
        };
        let found = found.map_err(|error| unreadable(&error))?;
        let modified_ns = disk::modified_ns(&found);
        let is_as_listed = found.len() == step.content.size_bytes && Some(modified_ns) == step.modified_ns;
        if !found.is_file() {
            return Err("it is no file any more".to_owned());
        }
        // A copy is compared while it is made.
        if !is_as_listed && self.mode != Mode::Copy {
            match sortinghat_client::hash_file(&from) {
                Ok(content) if content == step.content => {}
                Ok(_) => return Err(CHANGED.to_owned()),
                Err(error) => return Err(unreadable(&error)),
            }
        }
        Ok(Place { from, to: step.to(), mode: self.mode, content: step.content.clone(), modified_ns })
    }

    /// Announces photos, and makes the folders that they need. Returns the number of the first.
    fn announce(&mut self, photos: &[(&mut Step, Place)]) -> Result<usize, Failure> {
        let mut folders: Vec<&str> = photos.iter().map(|(step, _)| step.folder.as_str()).collect();
        folders.sort_unstable();
        folders.dedup();
        folders.retain(|folder| !self.into.join(folder).is_dir());
        let first = self.journal.story.photos.len();
        let made = folders.iter().map(|folder| Record::Folder { path: folder.into() });
        let places = photos.iter().map(|(_, place)| Record::Place(place.clone()));
        self.journal.announce(made.chain(places).collect())?;
        for folder in folders {
            let folder = self.into.join(folder);
            disk::make_folder(&folder).map_err(Failure::file("make", folder))?;
        }
        Ok(first)
    }

    /// Puts a photo into its place, or beside a file that has appeared there since. Returns why the photo stays where it is, if it does.
    fn carry_to_free_name(
        &mut self,
        mut photo: usize,
        step: &mut Step,
        mut place: Place,
    ) -> Result<Option<String>, Failure> {
        loop {
            let left = match self.carry(&place)? {
                Carried::Placed => {
                    self.journal.note(vec![Record::Placed { photo }])?;
                    return Ok(None);
                }
                Carried::Left(why) => Some(why),
                Carried::Taken => None,
            };
            self.journal.note(vec![Record::Dropped { photo }])?;
            if left.is_some() {
                return Ok(left);
            }
            step.name = self.next_free(step);
            place.to = step.to();
            photo = self.journal.story.photos.len();
            self.journal.announce(vec![Record::Place(place.clone())])?;
        }
    }

    fn next_free(&self, step: &Step) -> String {
        let (stem, ending) = stem_and_ending(&step.name);
        let is_free = |name: &String| fs::symlink_metadata(self.into.join(&step.folder).join(name)).is_err();
        numbered(stem, ending).skip(1).find(is_free).expect("there are more numbers than files")
    }

    fn carry(&self, place: &Place) -> Result<Carried, Failure> {
        let to = self.into.join(&place.to);
        match place.mode {
            Mode::Copy => copied(disk::copy_new(&place.from, &to, &place.content.digest), place, &to),
            Mode::Link => {
                let linked = place.from.canonicalize().and_then(|from| disk::hard_link(&from, &to));
                match linked {
                    Ok(()) => Ok(Carried::Placed),
                    Err(error) if disk::refuses_links(&error) => {
                        copied(disk::copy_new(&place.from, &to, &place.content.digest), place, &to)
                    }
                    Err(error) => refused(error, place, &to),
                }
            }
            Mode::Move => match disk::rename_new(&place.from, &to) {
                Ok(()) => Ok(Carried::Placed),
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    copied(disk::move_across(&place.from, &to, &place.content.digest), place, &to)
                }
                Err(error) => refused(error, place, &to),
            },
        }
    }
}

fn copied(copied: Result<Copied, Failed>, place: &Place, to: &Path) -> Result<Carried, Failure> {
    match copied {
        Ok(Copied::Whole) => Ok(Carried::Placed),
        Ok(Copied::OtherContent) => Ok(Carried::Left(CHANGED.to_owned())),
        Err(Failed::Source(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Carried::Left(unreadable(&error))),
        Err(Failed::Source(error)) => Ok(Carried::Left(format!("it cannot be {}: {error}", place.mode.done()))),
        Err(Failed::Target(error)) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Carried::Taken),
        Err(Failed::Target(error)) => Err(Failure::file("write", to)(error)),
    }
}

/// A name was not given to a file. What concerns this file alone leaves it where it is; anything else would concern the others, too.
fn refused(error: io::Error, place: &Place, to: &Path) -> Result<Carried, Failure> {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(Carried::Taken),
        io::ErrorKind::PermissionDenied => Ok(Carried::Left(format!("it cannot be {}: {error}", place.mode.done()))),
        io::ErrorKind::NotFound if fs::symlink_metadata(&place.from).is_err() => Ok(Carried::Left(unreadable(&error))),
        _ => Err(Failure::file("write", to)(error)),
    }
}

const CHANGED: &str = "it has changed since it was classified";

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is gone".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}
