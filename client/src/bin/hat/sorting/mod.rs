//! Puts photos into a folder for each class, and takes that back: on this machine's file systems, without a server.
//!
//! Nothing here replaces a file, and no file is removed before its content is known to be elsewhere. The [`journal`] makes a run that ended
//! anywhere safe to go on from or to undo.

mod disk;
mod journal;
mod names;
mod perform;
mod plan;
#[cfg(test)]
mod tests;
mod undo;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sortinghat_proto::ObjectRef;

use crate::failure::Failure;
use journal::{Journal, Place, State};
pub(crate) use perform::{Told, perform};
pub(crate) use plan::{Goal, Photo, Plan, Step, Verdict, plan};
pub(crate) use undo::{Back, undo};

/// How a photo gets to its place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// As a copy of its own
    #[default]
    Copy,
    /// As another name of the same file, which takes no room; as a copy where the file system refuses that
    Link,
    /// It leaves its folder
    Move,
}

impl Mode {
    /// The word for what was done with photos.
    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::Copy => "copied",
            Self::Link => "linked",
            Self::Move => "moved",
        }
    }

    /// The word for the option.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Link => "link",
            Self::Move => "move",
        }
    }
}

/// A folder of photos, and the folder into which they are sorted.
#[derive(Debug)]
pub(crate) struct Folders {
    /// The photos' folder, without any link.
    source: PathBuf,
    /// Where photos are sorted into, without any link. It may not exist yet.
    place: PathBuf,
    /// What was sorted before, by where it was.
    sorted: HashMap<PathBuf, Place>,
}

impl Folders {
    /// The folders, if photos can be sorted from one into the other. What a run that was killed has begun there is ended, unless this is
    /// a `dry_run`.
    ///
    /// # Errors
    /// [`Failure::Usage`] with what is wrong with a path, [`Failure::Local`] if the journal there cannot be used.
    pub(crate) fn check(source: &Path, into: &Path, dry_run: bool) -> Result<Self, Failure> {
        let refuse = |why: &str| Err(Failure::usage(format!("--into {}: {why}", into.display())));
        if !source.is_dir() {
            return Err(Failure::usage(format!(
                "{} is not a folder: name the folder that holds the photos",
                source.display()
            )));
        }
        let source = source.canonicalize().map_err(Failure::file("look into", source))?;
        let whole = std::path::absolute(into).map_err(Failure::file("find", into))?;
        let Some(name) = whole.file_name() else { return refuse("name a folder in it") };
        let parent = whole.parent().unwrap_or(Path::new("/"));
        let place = match fs::metadata(&whole) {
            Ok(found) if !found.is_dir() => return refuse("this is not a folder: name another one"),
            Ok(_) => whole.canonicalize().map_err(Failure::file("look into", into))?,
            Err(_) if fs::symlink_metadata(&whole).is_ok() => return refuse("this is a link that leads nowhere"),
            Err(_) if !parent.is_dir() => {
                return refuse(&format!("there is no folder {}: make it, or name another one", parent.display()));
            }
            Err(_) => parent.canonicalize().map_err(Failure::file("look into", parent))?.join(name),
        };
        if place == source {
            return refuse("the photos are in this folder: name another one, such as a new folder in it");
        }
        if source.to_str().is_none() {
            return Err(Failure::usage(format!("the name of {} is not UTF-8: rename it", source.display())));
        }
        if !dry_run && let Some(mut journal) = Journal::open(&place, false)? {
            perform::settle(&mut journal, &place)?;
        }
        let story = Journal::read(&place)?.unwrap_or_default();
        let is_sorted = |(photo, state): &(Place, State)| match state {
            State::Placed => true,
            State::Announced => disk::holds(&place.join(&photo.to), &photo.content),
            State::Dropped | State::Undoing | State::Undone => false,
        };
        let sorted = story.photos.into_iter().filter(is_sorted).map(|(photo, _)| (photo.from.clone(), photo)).collect();
        Ok(Self { source, place, sorted })
    }

    /// Where the photos' folder has the folder into which they are sorted, if it lies in it: its relative path with `/` at the end.
    pub(crate) fn inner(&self) -> Option<String> {
        let inner = self.place.strip_prefix(&self.source).ok()?;
        Some(format!("{}/", inner.to_str()?))
    }

    /// Where a photo is before it is sorted.
    pub(crate) fn origin(&self, step: &Step) -> PathBuf {
        self.source.join(&step.path)
    }

    /// Where a photo is once it is sorted.
    pub(crate) fn target(&self, step: &Step) -> PathBuf {
        self.place.join(step.to())
    }

    /// Whether the photo at this relative path has been sorted already and has not changed since.
    pub(crate) fn was_sorted(&self, path: &str) -> bool {
        let from = self.source.join(path);
        let Some(place) = self.sorted.get(&from) else { return false };
        match fs::metadata(&from) {
            // A file that is there now was not moved; it is another one of the same name.
            Ok(_) if place.mode == Mode::Move => false,
            Ok(found) => found.len() == place.content.size_bytes && disk::modified_ns(&found) == place.modified_ns,
            Err(_) => false,
        }
    }

    /// Whether a photo that is no longer at this path was moved from there.
    fn was_moved(&self, from: &Path, content: &ObjectRef) -> bool {
        self.sorted.get(from).is_some_and(|place| place.mode == Mode::Move && place.content == *content)
    }
}

/// When the file at `path` was changed last, in nanoseconds since 1970.
pub(crate) fn modified_ns(path: &Path) -> Option<i64> {
    fs::metadata(path).ok().map(|found| disk::modified_ns(&found))
}
