//! `hat sort`: photos go into folders, and back.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::PathBuf,
    process::Command,
};

use nix::sys::signal::Signal;

use crate::{coordinator::Coordinator, hat::Hat};

/// A server with the model stamps/1, and photos in the folder `holiday`, of which two have the same name and one cannot be read.
fn deployment() -> (Coordinator, Hat) {
    let (coordinator, hat) = Coordinator::with_model();
    for path in ["1.jpg", "2.jpg", "beach/1.jpg", "beach/3.heic"] {
        hat.write(&format!("holiday/{path}"), format!("the photo {path}").as_bytes());
    }
    (coordinator, hat)
}

/// Every file below the folder in which `hat` runs, but not journals.
fn tree(hat: &Hat) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut tree, mut folders) = (BTreeMap::new(), vec![hat.path().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                // `hat` remembers the digests of files in the home folder, once they are old enough.
                folders.extend((path != hat.path().join("home")).then_some(path));
            } else if path.file_name() != Some(".hat-sort.jsonl".as_ref()) {
                let content = fs::read(&path).expect("readable");
                tree.insert(path, content);
            }
        }
    }
    tree
}

#[test]
fn photos_are_sorted_as_the_dry_run_says_and_taken_back() {
    let (_coordinator, hat) = deployment();
    let before = tree(&hat);
    let planned = hat.transcript(&["sort stamps holiday --into sorted --dry-run"]);
    assert_eq!(tree(&hat), before, "nothing was changed");
    assert!(!hat.path().join("sorted").exists());
    let job = hat.newest_job();
    let sorted = hat.transcript(&[
        "sort stamps/1 holiday --into sorted",
        "sort stamps/1 holiday --into sorted",
        "sort stamps/1 holiday --into sorted --json",
        &format!("sort --job {job} holiday --into sorted --mode move"),
    ]);
    let after = tree(&hat);
    assert_eq!(after.len(), before.len() + 3);
    assert_eq!(after[&hat.path().join("sorted/red/1 (2).jpg")], b"the photo beach/1.jpg");
    hat.write("holiday/new.jpg", b"new");
    let grown = hat.transcript(&["sort stamps/1 holiday --into sorted", "sort --undo sorted", "sort --undo sorted"]);
    fs::remove_file(hat.path().join("holiday/new.jpg")).expect("it stayed");
    assert_eq!(tree(&hat), before);
    assert!(!hat.path().join("sorted").exists());
    hat.assert_snapshot("sort", &[planned, sorted, grown].join("\n"));
}

#[test]
fn photos_are_moved_by_the_predictions_of_a_job_and_unsure_ones_lie_apart() {
    let (_coordinator, hat) = deployment();
    let before = tree(&hat);
    let classified = hat.transcript(&["classify stamps/1 holiday --out p.csv --quiet"]);
    fs::remove_file(hat.path().join("p.csv")).expect("it was saved");
    let job = hat.newest_job();
    let transcript = hat.transcript(&[
        &format!("sort --job {job} holiday --into holiday/sorted --mode move --min-probability 0.8 --dry-run --json"),
        &format!("sort --job {job} holiday --into holiday/sorted --mode move --min-probability 0.8 --json"),
        &format!("sort --job {job} holiday --into holiday/sorted --mode move"),
    ]);
    let after = tree(&hat);
    assert_eq!(after.len(), before.len(), "each photo is there once");
    assert!(after.contains_key(&hat.path().join("holiday/sorted/unsure/1 (2).jpg")));
    hat.write("holiday/1.jpg", b"another one");
    let undone = hat.transcript(&["sort --undo holiday/sorted --json"]);
    fs::remove_file(hat.path().join("holiday/1.jpg")).expect("it is there");
    let again = hat.transcript(&["sort --undo holiday/sorted"]);
    assert_eq!(tree(&hat), before);
    hat.assert_snapshot("sort_by_a_job", &[classified, transcript, undone, again].join("\n"));
}

#[test]
fn what_cannot_be_sorted_is_refused_with_the_reason() {
    let (_coordinator, hat) = deployment();
    hat.write("heic/1.heic", b"one");
    hat.write("file", b"a file");
    hat.run("evaluate stamps/1 --report r.html");
    let evaluate = hat.newest_job();
    let transcript = hat.transcript(&[
        "sort",
        "sort stamps/1 --into out",
        "sort stamps/1 holiday",
        "sort stamps/1 nowhere --into out",
        "sort stamps/1 holiday --into holiday",
        "sort stamps/1 holiday --into file",
        "sort stamps/1 holiday --into a/b",
        "sort stamps/7 holiday --into out",
        "sort stamps/1 heic --into out",
        "sort stamps/1 holiday --into out --mode copi",
        "sort stamps/1 holiday --into out --min-probability 2",
        &format!("sort --job {evaluate} holiday --into out"),
        "sort --job 01 stamps/1 holiday --into out",
        "sort --job 01 holiday --into out --tta",
        "sort --undo holiday",
        "sort --undo holiday --into out",
    ]);
    assert!(!hat.path().join("out").exists());
    hat.assert_snapshot("unsortable", &transcript);
}

#[test]
fn a_job_that_was_left_says_how_to_go_on_sorting() {
    let (_coordinator, hat) = deployment();
    let output = hat.run("sort stamps/1 holiday --into sorted --mode link --detach");
    let job = String::from_utf8(output.stdout).expect("an id").trim().to_owned();
    let said = String::from_utf8(output.stderr).expect("text");
    let way = format!("hat sort --job {job} holiday --into sorted --mode link");
    assert!(said.contains(&format!("`{way}` sorts by its result")), "{said}");
    let watched = hat.run(&format!("jobs watch {job}"));
    let said = String::from_utf8(watched.stderr).expect("text");
    assert!(said.contains(&format!("`hat sort --job {job} DIR --into OUT`")), "{said}");
    assert!(hat.run(way.trim_start_matches("hat ")).status.success());
    let inode = |path: &str| fs::metadata(hat.path().join(path)).expect(path).ino();
    assert_eq!(inode("sorted/red/2.jpg"), inode("holiday/2.jpg"), "they are one file");
}

/// The system kills `hat` where its journal would grow beyond a limit, so that it ends in the middle of any line, before a photo is moved or
/// after.
#[test]
fn the_real_hat_is_killed_anywhere_in_its_journal_and_no_photo_is_lost() {
    let (_coordinator, hat) = deployment();
    let before = tree(&hat);
    assert!(hat.run("classify stamps/1 holiday").status.success());
    let sort = format!("sort --job {} holiday --into sorted --mode move", hat.newest_job());
    let limited = |bytes: u64| {
        let program = hat.command(&sort);
        let mut command = Command::new("prlimit");
        command.arg(format!("--fsize={bytes}")).arg("--core=0").arg(program.get_program()).args(program.get_args());
        command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(hat.path()).output().expect("util-linux is installed").status
    };
    let mut killed = 0;
    for bytes in (0..).step_by(61) {
        let status = limited(bytes);
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(Signal::SIGXFSZ as i32), "{bytes}: {status}");
        killed += 1;
        let found = tree(&hat);
        let contents = |tree: &BTreeMap<PathBuf, Vec<u8>>| {
            let mut contents: Vec<_> = tree.values().cloned().collect();
            contents.sort();
            contents
        };
        assert_eq!(contents(&found), contents(&before), "{bytes}");
        hat.run("sort --undo sorted");
        assert_eq!(tree(&hat), before, "{bytes}");
    }
    assert!(killed > 10, "{killed}");
    assert!(hat.run("sort --undo sorted").status.success());
    assert_eq!(tree(&hat), before);
}
