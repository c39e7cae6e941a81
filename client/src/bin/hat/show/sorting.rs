//! What was sorted, and what was taken back, in lines.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::{
    json::tagged,
    numbers::{count, counted},
    table,
};
use crate::sorting::{Back, Mode, Plan, Step};

/// Lines of each list that are shown; `--json` prints all.
const SHOWN: usize = 5;

/// How many photos were put into each folder, and the files that stay where they are.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    folders: BTreeMap<String, u64>,
    left: Few,
    sorted_before: u64,
    present: u64,
}

/// The first lines of a list, and how long it is.
#[derive(Debug, Default)]
struct Few {
    first: Vec<String>,
    all: u64,
}

impl Few {
    fn add(&mut self, line: impl FnOnce() -> String) {
        self.all += 1;
        if self.first.len() < SHOWN {
            self.first.push(line());
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.first.iter().map(|line| format!("  {line}")).collect();
        let rest = self.all - self.first.len() as u64;
        lines.extend((rest > 0).then(|| format!("  and {} more, which --json lists", count(rest))));
        lines
    }
}

impl Tally {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self { sorted_before: plan.sorted_before, present: plan.present, ..Self::default() }
    }

    /// Of a folder in which no photo is new.
    pub(crate) fn of_sorted(photos: u64) -> Self {
        Self { sorted_before: photos, ..Self::default() }
    }

    /// Counts a photo that is in its place.
    pub(crate) fn add(&mut self, step: &Step) {
        *self.folders.entry(step.folder.clone()).or_default() += 1;
    }

    /// Counts a file that stays where it is.
    pub(crate) fn leave(&mut self, path: &str, why: &str) {
        self.left.add(|| format!("{path}: {why}"));
    }

    pub(crate) fn photos(&self) -> u64 {
        self.folders.values().sum()
    }

    pub(crate) fn left(&self) -> u64 {
        self.left.all
    }

    /// Why there is nothing to sort; `None` if there is, or was before.
    pub(crate) fn nothing_usable(&self) -> Option<String> {
        let first = self.left.first.first().filter(|_| self.sorted_before + self.present == 0)?;
        let is_none = self.photos() == 0;
        is_none
            .then(|| format!("none of {} can be sorted; the first is {first}", counted(self.left.all, "file", "files")))
    }

    /// Says that no photo is new.
    pub(crate) fn nothing_new(&self, into: &Path) -> String {
        let photos = counted(self.sorted_before, "photo was", "photos were");
        format!("{}: {photos} sorted before, and there is no new one", into.display())
    }

    /// The summary. `steps` are those of a plan, of which the first are shown.
    pub(crate) fn lines(&self, into: &Path, done: &str, model: &str, steps: &[Step]) -> Vec<String> {
        let mut lines =
            vec![format!("{}: {} {done} by {model}", into.display(), counted(self.photos(), "photo", "photos"))];
        let mut folders: Vec<_> = self.folders.iter().collect();
        folders.sort_by_key(|(folder, photos)| (std::cmp::Reverse(**photos), *folder));
        let rows: Vec<[String; 2]> = folders.into_iter().map(|(folder, n)| [folder.clone(), count(*n)]).collect();
        if !rows.is_empty() {
            lines.extend(table::columns(["folder", "photos"], &rows));
        }
        if !steps.is_empty() {
            let mut few = Few::default();
            steps.iter().for_each(|step| few.add(|| format!("{} -> {}", step.path, step.to().display())));
            lines.push("the first of them:".to_owned());
            lines.extend(few.lines());
        }
        if self.sorted_before > 0 {
            lines.push(format!("{} sorted before", counted(self.sorted_before, "photo was", "photos were")));
        }
        if self.present > 0 {
            lines.push(format!("{} there already", counted(self.present, "photo was", "photos were")));
        }
        if self.left.all > 0 {
            let stay = counted(self.left.all, "file stays where it is", "files stay where they are");
            lines.push(format!("{stay}:"));
            lines.extend(self.left.lines());
        }
        lines
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "photos": self.photos(),
            "folders": self.folders,
            "sorted_before": self.sorted_before,
            "present": self.present,
            "left": self.left.all,
        })
    }
}

/// A photo and its place, for programs.
pub(crate) fn step_json(kind: &str, step: &Step, mode: Mode) -> Value {
    let (class, probability) = (&step.verdict.class, step.verdict.probability);
    tagged(
        kind,
        json!({ "path": step.path, "to": step.to(), "mode": mode, "class": class, "probability": probability }),
    )
}

/// A file that stays where it is, for programs.
pub(crate) fn left_json(path: &str, why: &str) -> Value {
    tagged("left", json!({ "path": path, "reason": why }))
}

/// What was taken back.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    restored: u64,
    kept: Few,
    failed: Few,
}

impl Taken {
    pub(crate) fn add(&mut self, path: &Path, back: &Back) {
        match back {
            Back::Restored => self.restored += 1,
            Back::Kept(why) => self.kept.add(|| format!("{}: {why}", path.display())),
            Back::Failed(why) => self.failed.add(|| format!("{}: {why}", path.display())),
        }
    }

    /// A photo, for programs.
    pub(crate) fn row(path: &Path, back: &Back) -> Value {
        let (kind, why) = match back {
            Back::Restored => ("undone", None),
            Back::Kept(why) => ("kept", Some(why)),
            Back::Failed(why) => ("failed", Some(why)),
        };
        tagged(kind, json!({ "path": path, "reason": why }))
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "undone": self.restored, "kept": self.kept.all, "failed": self.failed.all })
    }

    pub(crate) fn lines(&self, into: &Path) -> Vec<String> {
        let mut lines = vec![format!("{}: {} taken back", into.display(), counted(self.restored, "photo", "photos"))];
        if self.kept.all > 0 {
            lines.push(format!(
                "{}, because something has changed since:",
                counted(self.kept.all, "file stays", "files stay")
            ));
            lines.extend(self.kept.lines());
        }
        lines
    }

    /// What could not be taken back; `None` if nothing.
    pub(crate) fn failed(&self) -> Option<String> {
        let lines = self.failed.lines();
        let photos = counted(self.failed.all, "photo", "photos");
        (self.failed.all > 0)
            .then(|| format!("{photos} could not be taken back, and another run tries again:\n{}", lines.join("\n")))
    }
}
