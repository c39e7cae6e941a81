//! Which place each photo gets, before anything is changed.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use sortinghat_proto::ObjectRef;

use super::{
    Folders, Mode, disk,
    journal::Run,
    names::{self, key, numbered, stem_and_ending},
};

/// A photo, and what the model says of it.
#[derive(Debug, Clone)]
pub(crate) struct Photo {
    /// Its path in the photos' folder.
    pub(crate) path: String,
    /// The content that was classified.
    pub(crate) content: ObjectRef,
    /// When it had been changed last before it was uploaded, in nanoseconds since 1970; `None` if nobody remembers.
    pub(crate) modified_ns: Option<i64>,
    /// What the model says, or why it says nothing.
    pub(crate) verdict: Result<Verdict, String>,
}

/// What a model says of a photo.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) class: String,
    /// 0 to 1.
    pub(crate) probability: f32,
    /// Whether the photo resembles none of the classes.
    pub(crate) unlike: bool,
}

/// What photos are sorted by.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// The model: stamps/1.
    pub(crate) model: String,
    /// The job that classified the photos.
    pub(crate) job: String,
    /// The model's classes.
    pub(crate) classes: Vec<String>,
    pub(crate) mode: Mode,
    /// Photos with a lower probability are unsure, 0 to 1.
    pub(crate) min_probability: f32,
}

/// A photo and the place that it shall have.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) path: String,
    pub(crate) verdict: Verdict,
    pub(super) content: ObjectRef,
    pub(super) modified_ns: Option<i64>,
    /// The folder of its class, or the one for unsure photos.
    pub(crate) folder: String,
    /// Its name there.
    pub(crate) name: String,
}

impl Step {
    /// Its place, relative to the folder into which photos are sorted.
    pub(crate) fn to(&self) -> PathBuf {
        Path::new(&self.folder).join(&self.name)
    }
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Photos that stay where they are, and why.
    pub(crate) left: Vec<(String, String)>,
    /// Photos that were sorted before.
    pub(crate) sorted_before: u64,
    /// Photos that are in their folder already, put there by somebody else or under another path.
    pub(crate) present: u64,
    pub(super) run: Run,
}

/// Plans a place for each photo, in their order.
pub(crate) fn plan(folders: &Folders, photos: impl IntoIterator<Item = Photo>, goal: &Goal) -> Plan {
    let names = names::Folders::of(&goal.classes);
    let run = Run::new(&goal.model, &goal.job, names.classes());
    let mut planning = Planning { folders, goal, names, taken: HashMap::new() };
    let mut plan = Plan { steps: Vec::new(), left: Vec::new(), sorted_before: 0, present: 0, run };
    for photo in photos {
        let path = photo.path.clone();
        match planning.find(photo) {
            Found::Step(step) => plan.steps.push(*step),
            Found::SortedBefore => plan.sorted_before += 1,
            Found::Present => plan.present += 1,
            Found::Left(why) => plan.left.push((path, why)),
        }
    }
    plan
}

enum Found {
    Step(Box<Step>),
    SortedBefore,
    Present,
    Left(String),
}

struct Planning<'a> {
    folders: &'a Folders,
    goal: &'a Goal,
    names: names::Folders,
    /// The names in each folder by their key: the content that is planned for it, or the name of a file that is there.
    taken: HashMap<String, HashMap<String, Taken>>,
}

enum Taken {
    Planned(ObjectRef),
    There(PathBuf),
}

impl Planning<'_> {
    fn find(&mut self, photo: Photo) -> Found {
        let verdict = match photo.verdict {
            Ok(verdict) => verdict,
            Err(why) => return Found::Left(why),
        };
        if !Path::new(&photo.path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Found::Left("its path leads out of the folder".to_owned());
        }
        let from = self.folders.source.join(&photo.path);
        match fs::symlink_metadata(&from) {
            Err(_) if self.folders.was_moved(&from, &photo.content) => return Found::SortedBefore,
            Err(_) => return Found::Left("it is gone".to_owned()),
            Ok(_) if self.folders.was_sorted(&photo.path) => return Found::SortedBefore,
            Ok(found) if found.is_symlink() && self.goal.mode == Mode::Move => {
                return Found::Left(
                    "it is a symbolic link, which is not moved; --mode copy copies its file".to_owned(),
                );
            }
            Ok(_) => {}
        }
        let Some(class) = self.names.of_class(&verdict.class) else {
            return Found::Left(format!("{} is no class of the model", verdict.class));
        };
        let is_unsure = verdict.unlike || verdict.probability < self.goal.min_probability;
        let folder = if is_unsure { &self.names.unsure } else { class }.to_owned();
        if from.parent() == Some(&self.folders.place.join(&folder)) {
            return Found::Present;
        }
        let Some(name) = self.free_name(&folder, &from, &photo.content) else { return Found::Present };
        let Photo { path, content, modified_ns, .. } = photo;
        Found::Step(Box::new(Step { path, verdict, content, modified_ns, folder, name }))
    }

    /// A name that is free in the folder; `None` if the folder has a copy of the file under a name that it could have. A file that is moved
    /// always gets a name, because it must not stay behind.
    fn free_name(&mut self, folder: &str, from: &Path, content: &ObjectRef) -> Option<String> {
        let place = self.folders.place.join(folder);
        let taken = self.taken.entry(folder.to_owned()).or_insert_with(|| names_in(&place));
        let name = from.file_name()?.to_str()?;
        let (stem, ending) = stem_and_ending(name);
        for name in numbered(stem, ending) {
            let is_same = match taken.get(&key(&name)) {
                None => {
                    taken.insert(key(&name), Taken::Planned(content.clone()));
                    return Some(name);
                }
                Some(Taken::Planned(planned)) => planned == content,
                Some(Taken::There(file)) => self.goal.mode != Mode::Move && disk::holds(file, content),
            };
            if is_same && self.goal.mode != Mode::Move {
                return None;
            }
        }
        None
    }
}

fn names_in(folder: &Path) -> HashMap<String, Taken> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| (key(&entry.file_name().to_string_lossy()), Taken::There(entry.path()))).collect()
}
