//! Sorts real folders, in processes of their own that are killed before every single change that they make.

use std::{
    collections::BTreeMap,
    env,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    process::Command,
    sync::atomic::{AtomicI64, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::*;

/// How many changes this process makes before it is killed.
static CHANGES_LEFT: AtomicI64 = AtomicI64::new(i64::MAX);
/// What a process of its own shall do: a folder, a folder to sort into, a mode, and the changes before it is killed.
const TASK: &str = "HAT_SORTING_TEST_TASK";

pub(super) fn before_a_change() {
    if CHANGES_LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
        kill(Pid::this(), Signal::SIGKILL).expect("a process can end itself");
    }
}

/// A photo that resembles none of the classes.
const STRANGER: &str = "b/stranger.jpg";
/// The files of the folder of photos, each with its class and how probable that is; `None` for a file that is no photo.
const PHOTOS: [(&str, Option<(&str, f32)>); 7] = [
    ("1.jpg", Some(("cats", 0.9))),
    ("a/1.jpg", Some(("cats", 0.9))),
    ("a/2.jpg", Some(("../dogs", 0.9))),
    ("b/deep/1.JPG", Some(("cats", 0.9))),
    ("b/dark.jpg", Some(("cats", 0.3))),
    (STRANGER, Some(("cats", 0.9))),
    ("notes.txt", None),
];

/// A folder of photos, and one to sort into.
struct Case {
    source: PathBuf,
    target: PathBuf,
    /// What goes with this case; nothing where another process owns it.
    _owned: Vec<TempDir>,
}

type Tree = BTreeMap<PathBuf, Vec<u8>>;

impl Case {
    /// In the usual place, or with the target on another file system.
    fn new(target: &Path) -> Self {
        let owned = vec![
            tempfile::tempdir().expect("a temporary folder"),
            tempfile::tempdir_in(target).expect("a temporary folder"),
        ];
        let [source, target] = [&owned[0], &owned[1]].map(|folder| folder.path().to_owned());
        let case = Self { source, target, _owned: owned };
        for (path, _) in PHOTOS {
            case.write(path, format!("the photo {path}").as_bytes());
        }
        case
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.source.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(path, content).expect("writable");
    }

    fn out(&self) -> PathBuf {
        self.target.join("out")
    }

    /// What the model says of every file that is or was there.
    fn photos(&self) -> Vec<Photo> {
        let photo = |(path, verdict): (&str, Option<(&str, f32)>)| Photo {
            path: path.to_owned(),
            content: ObjectRef::of(format!("the photo {path}").as_bytes()),
            modified_ns: modified_ns(&self.source.join(path)),
            verdict: verdict
                .map(|(class, probability)| Verdict { class: class.to_owned(), probability, unlike: path == STRANGER })
                .ok_or_else(|| "it is no photo".to_owned()),
        };
        PHOTOS.map(photo).to_vec()
    }

    fn sort(&self, mode: Mode) -> Vec<String> {
        let (is_finished, told) = self.sort_until(mode, false);
        assert!(is_finished);
        told
    }

    fn sort_until(&self, mode: Mode, stop: bool) -> (bool, Vec<String>) {
        let folders = Folders::check(&self.source, &self.out(), false).expect("usable");
        let goal = Goal {
            model: "stamps/1".to_owned(),
            job: "01".to_owned(),
            classes: vec!["../dogs".to_owned(), "cats".to_owned()],
            mode,
            min_probability: 0.5,
        };
        let mut plan = plan(&folders, self.photos(), &goal);
        let mut told = Vec::new();
        let tell = |one: Told| match one {
            Told::Placed(step) => told.push(format!("{} -> {}", step.path, step.to().display())),
            Told::Left { path, why } => told.push(format!("{path}: {why}")),
        };
        let is_finished = perform(&folders, &mut plan, mode, &stop.into(), tell).expect("writable");
        (is_finished, told)
    }

    fn undo(&self) -> Vec<String> {
        let mut told = Vec::new();
        let tell = |path: &Path, back: &Back| match back {
            Back::Restored => {}
            other => told.push(format!("{}: {other:?}", path.display())),
        };
        match undo(&self.out(), &false.into(), tell) {
            Ok(finished) => assert!(finished, "{told:?}"),
            // It was killed before it changed anything.
            Err(failure) => assert!(failure.to_string().starts_with("there is nothing to undo"), "{failure}"),
        }
        told
    }

    /// Every file but the journal.
    fn tree(&self) -> Tree {
        let (mut tree, mut folders) = (Tree::new(), vec![self.source.clone(), self.target.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name() != Some(".hat-sort.jsonl".as_ref()) {
                    let root = if path.starts_with(&self.source) { &self.source } else { &self.target };
                    let name = path.strip_prefix(root).expect("below it").to_owned();
                    tree.insert(name, fs::read(path).expect("readable"));
                }
            }
        }
        tree
    }

    /// Does a task in a process that is killed before its change of this number. Returns whether it ended before that.
    fn killed(&self, task: &str, changes: u64) -> bool {
        let words = [self.source.display().to_string(), self.target.display().to_string()];
        let status = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "sorting::tests::a_task_of_another_test", "--ignored", "--quiet"])
            .env(TASK, format!("{}\n{}\n{task}\n{changes}", words[0], words[1]))
            .output()
            .expect("it starts");
        match status.status.signal() {
            Some(signal) => assert_eq!(signal, Signal::SIGKILL as i32),
            None => assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout)),
        }
        status.status.success()
    }
}

#[test]
#[ignore = "other tests start it in a process of its own"]
fn a_task_of_another_test() {
    let task = env::var(TASK).expect("another test has set it");
    let [source, target, task, changes] = task.split('\n').collect::<Vec<_>>()[..] else { panic!("{task}") };
    let case = Case { source: source.into(), target: target.into(), _owned: vec![] };
    CHANGES_LEFT.store(changes.parse().expect("a number"), Ordering::Relaxed);
    match task {
        "undo" => drop(case.undo()),
        mode => drop(case.sort(Mode::from_str(mode, false).expect("a mode"))),
    }
}

/// Each mode within a file system, and the one that differs also from one to another, if this machine has two.
fn cases() -> Vec<(Mode, PathBuf)> {
    let here = env::temp_dir();
    let mut cases: Vec<_> = [Mode::Copy, Mode::Link, Mode::Move].map(|mode| (mode, here.clone())).into();
    let other = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|found| std::os::unix::fs::MetadataExt::dev(&found)).ok();
    if device(other).is_some_and(|device_there| Some(device_there) != device(&here)) {
        cases.extend([Mode::Link, Mode::Move].map(|mode| (mode, other.to_owned())));
    }
    cases
}

#[test]
fn photos_go_into_safe_folders_and_names_that_collide_get_a_number() {
    for (mode, target) in cases() {
        let case = Case::new(&target);
        let before = case.tree();
        let stopped = case.sort_until(mode, true);
        assert_eq!((stopped.0, case.tree()), (false, before.clone()), "somebody has stopped it");
        assert_eq!(
            case.sort(mode),
            [
                "notes.txt: it is no photo",
                "1.jpg -> cats/1.jpg",
                "a/1.jpg -> cats/1 (2).jpg",
                "a/2.jpg -> _._dogs/2.jpg",
                "b/deep/1.JPG -> cats/1 (3).JPG",
                "b/dark.jpg -> unsure/dark.jpg",
                "b/stranger.jpg -> unsure/stranger.jpg",
            ]
        );
        let after = case.tree();
        assert_eq!(after[Path::new("out/cats/1 (2).jpg")], b"the photo a/1.jpg");
        assert_eq!(after.len(), if mode == Mode::Move { before.len() } else { 2 * before.len() - 1 }, "{mode:?}");
        assert!(case.undo().is_empty());
        assert_eq!(case.tree(), before);
        assert!(!case.out().exists(), "it was made by the run");
    }
}

#[test]
fn a_run_that_is_killed_before_any_change_loses_nothing_can_be_undone_and_goes_on() {
    for (mode, target) in cases() {
        let (before, after) = {
            let case = Case::new(&target);
            let before = case.tree();
            case.sort(mode);
            (before, case.tree())
        };
        let word = mode.as_str();
        let mut points = 0;
        for changes in 0.. {
            let case = Case::new(&target);
            if case.killed(word, changes) {
                break;
            }
            points = changes + 1;
            let found = case.tree();
            for content in before.values() {
                let copies = found.values().filter(|other| *other == content).count();
                assert!((1..=2).contains(&copies), "{word}, {changes} changes: {copies} of {content:?}");
            }
            assert!(case.undo().is_empty());
            assert_eq!(case.tree(), before, "{word}, undone after {changes} changes");

            let case = Case::new(&target);
            assert!(!case.killed(word, changes));
            case.sort(mode);
            assert_eq!(case.tree(), after, "{word}, gone on after {changes} changes");
            assert!(case.undo().is_empty());
            assert_eq!(case.tree(), before, "{word}, gone on and undone after {changes} changes");
        }
        assert!(points > 15, "{word}: {points} points are too few to have met them all");
    }
}

#[test]
fn an_undo_that_is_killed_before_any_change_is_ended_by_the_next() {
    for (mode, target) in cases() {
        for changes in 0.. {
            let case = Case::new(&target);
            let before = case.tree();
            case.sort(mode);
            let has_ended = case.killed("undo", changes);
            if !has_ended {
                assert!(case.undo().is_empty());
            }
            assert_eq!(case.tree(), before, "{mode:?}, {changes} changes");
            if has_ended {
                assert!(changes > 10, "{changes} points are too few to have met them all");
                break;
            }
        }
    }
}

#[test]
fn what_has_changed_since_is_neither_sorted_nor_taken_back() {
    for (mode, target) in cases() {
        let case = Case::new(&target);
        let folders = Folders::check(&case.source, &case.out(), false).expect("usable");
        let classes = vec!["../dogs".to_owned(), "cats".to_owned()];
        let goal = Goal { model: "m/1".into(), job: "01".into(), classes, mode, min_probability: 0.0 };
        let mut plan = plan(&folders, case.photos(), &goal);
        case.write("1.jpg", b"edited after it was classified");
        fs::remove_file(case.source.join("a/1.jpg")).expect("it is there");
        let mut left = Vec::new();
        let tell = |told: Told| {
            if let Told::Left { path, why } = told {
                left.push(format!("{path}: {why}"));
            }
        };
        perform(&folders, &mut plan, mode, &false.into(), tell).expect("writable");
        left.sort();
        assert_eq!(
            left,
            ["1.jpg: it has changed since it was classified", "a/1.jpg: it is gone", "notes.txt: it is no photo"]
        );
        let out = case.out();
        fs::remove_file(out.join("cats/dark.jpg")).expect("it was sorted");
        fs::write(out.join("cats/dark.jpg"), b"edited in its class").expect("writable");
        fs::rename(out.join("_._dogs/2.jpg"), out.join("cats/2.jpg")).expect("writable");
        let kept = case.undo();
        assert_eq!(
            kept,
            [
                "cats/dark.jpg: Kept(\"it has changed since it was put there\")",
                "_._dogs/2.jpg: Kept(\"it is no longer where it was put\")"
            ]
        );
        let tree = case.tree();
        assert_eq!(tree[Path::new("out/cats/dark.jpg")], b"edited in its class");
        assert_eq!(tree[Path::new("out/cats/2.jpg")], b"the photo a/2.jpg");
        assert!(tree.contains_key(Path::new("b/deep/1.JPG")) && !out.join("cats/1.JPG").exists(), "{mode:?}");
    }
}

#[test]
fn the_last_copy_of_a_photo_is_never_removed_and_no_other_file_is_in_the_way() {
    let case = Case::new(&env::temp_dir());
    case.sort(Mode::Copy);
    fs::remove_file(case.source.join("1.jpg")).expect("it is there");
    let kept = case.undo();
    assert!(kept.len() == 1 && kept[0].starts_with("cats/1.jpg: Kept") && kept[0].contains("what is left"), "{kept:?}");
    assert_eq!(case.tree()[Path::new("out/cats/1.jpg")], b"the photo 1.jpg");

    let case = Case::new(&env::temp_dir());
    case.sort(Mode::Move);
    case.write("1.jpg", b"another photo of that name");
    let mut failed = Vec::new();
    let finished = undo(&case.out(), &false.into(), |path, back| {
        if let Back::Failed(why) = back {
            failed.push(format!("{}: {why}", path.display()));
        }
    });
    assert!(!finished.expect("readable") && failed.len() == 1 && failed[0].contains("another file"), "{failed:?}");
    fs::remove_file(case.source.join("1.jpg")).expect("it is there");
    assert!(case.undo().is_empty(), "another try takes it back");
    assert_eq!(case.tree()[Path::new("1.jpg")], b"the photo 1.jpg");
}

#[test]
fn a_photo_whose_original_has_become_a_link_to_it_is_not_removed() {
    for mode in [Mode::Copy, Mode::Link] {
        let case = Case::new(&env::temp_dir());
        case.sort(mode);
        let (original, sorted) = (case.source.join("1.jpg"), case.out().join("cats/1.jpg"));
        fs::remove_file(&original).expect("it is there");
        symlink(&sorted, &original).expect("links are supported");
        let kept = case.undo();
        assert!(kept.len() == 1 && kept[0].starts_with("cats/1.jpg: Kept"), "{kept:?}");
        assert_eq!(fs::read(&original).expect("it leads to the photo"), b"the photo 1.jpg");
    }
}

#[test]
fn a_grown_folder_is_sorted_on_and_files_that_are_there_are_known() {
    for (mode, target) in cases() {
        let case = Case::new(&target);
        fs::create_dir_all(case.out().join("cats")).expect("writable");
        fs::write(case.out().join("cats/1.jpg"), b"the photo 1.jpg").expect("writable");
        fs::write(case.out().join("cats/1 (2).JPG"), b"somebody else's").expect("writable");
        let told = case.sort(mode);
        match mode {
            Mode::Move => assert_eq!(told[1..3], ["1.jpg -> cats/1 (3).jpg", "a/1.jpg -> cats/1 (4).jpg"]),
            Mode::Copy | Mode::Link => assert_eq!(told[1], "a/1.jpg -> cats/1 (3).jpg", "1.jpg is there already"),
        }
        let sorted = case.tree();
        // Somebody corrects the model; that is not undone by another run.
        fs::rename(case.out().join("unsure/dark.jpg"), case.out().join("cats/dark.jpg")).expect("writable");
        let folders = Folders::check(&case.source, &case.out(), false).expect("usable");
        assert_eq!(folders.was_sorted("b/dark.jpg"), mode != Mode::Move);
        assert_eq!(case.sort(mode), ["notes.txt: it is no photo"]);
        assert_eq!(case.tree().len(), sorted.len());
        assert!(case.out().join("cats/dark.jpg").exists());
    }
}

#[test]
fn folders_that_cannot_be_sorted_between_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("photos")).expect("writable");
    fs::write(path("file"), b"").expect("writable");
    symlink(path("photos"), path("link")).expect("links are supported");
    for (source, into, why) in [
        ("nowhere", "out", "is not a folder"),
        ("photos", "photos", "the photos are in this folder"),
        ("photos", "link", "the photos are in this folder"),
        ("photos", "file", "not a folder"),
        ("photos", "a/b", "there is no folder"),
    ] {
        let failure = Folders::check(&path(source), &path(into), false).expect_err(into).to_string();
        assert!(failure.contains(why), "{failure}");
    }
    let inner = Folders::check(&path("photos"), &path("link/sorted"), false).expect("usable").inner();
    assert_eq!(inner.as_deref(), Some("sorted/"));
    assert_eq!(Folders::check(&path("photos"), &path("out"), false).expect("usable").inner(), None);
}
