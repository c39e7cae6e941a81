//! What surrounds the processes is wrong or goes away: another object store, the working folder, the folder for temporary files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use sortinghat_tests::{Deployment, Options, Process, binary, photos, wait_until};

/// A server and a worker that `hat up --background` keeps running, and `hat down` ends when this is dropped.
struct Background {
    data_dir: PathBuf,
}

impl Background {
    /// Starts them in this folder, with this folder for temporary files.
    fn start(data_dir: PathBuf, working_folder: &Path, temporary_folder: &Path) -> Self {
        let background = Self { data_dir };
        let mut command = background.hat(["up", "--background", "--listen", "127.0.0.1:0", "--device", "cpu"]);
        let output = command.current_dir(working_folder).env("TMPDIR", temporary_folder).output().expect("hat starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        background
    }

    fn hat<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(binary("hat"));
        command
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(arguments)
            .env("NO_COLOR", "1")
            .env_remove("SORTINGHAT_SERVER");
        command
    }

    /// The executor of the worker, which is the second process that `hat up` has started.
    fn executor(&self) -> Option<Pid> {
        let record: Value = serde_json::from_slice(&fs::read(self.data_dir.join("hat.json")).ok()?).ok()?;
        let worker = record["children"][1]["pid"].as_u64()?;
        let children = fs::read_to_string(format!("/proc/{worker}/task/{worker}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A failed test has said more than this could.
        let _ = self.hat(["down"]).output();
    }
}

#[test]
fn a_working_folder_and_a_folder_for_temporary_files_that_go_away_harm_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [working, temporary] = ["working", "temporary"].map(|name| folder.path().join(name));
    for made in [&working, &temporary] {
        fs::create_dir(made).expect("writable");
    }
    let background = Background::start(folder.path().join("data"), &working, &temporary);
    photos::write_classes(&folder.path().join("photos"), 8, 64);
    for gone in [&working, &temporary] {
        fs::remove_dir_all(gone).expect("nothing else uses it");
    }
    let executor = wait_until("the worker to have an executor", || background.executor());
    kill(executor, Signal::SIGKILL).expect("it is ours");
    wait_until("the worker to have another executor", || background.executor().filter(|next| *next != executor));

    let output = background.hat(["ingest", "shapes"]).arg(folder.path().join("photos")).output().expect("hat starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_worker_with_another_object_store_takes_nothing_and_says_so() {
    let deployment = Deployment::start(Options::default());
    let (hat, folder) = (deployment.hat(), deployment.folder());
    let mut command = Command::new(binary("sortinghat-worker"));
    command.args(["run", "--device", "cpu", "--coordinator", &format!("http://{}", deployment.address())]);
    // Its objects are in its data folder, as nothing else is said.
    command.arg("--data-dir").arg(folder.join("stray"));
    let _stray = Process::start(&mut command, &folder.join("stray.log"));
    let told = wait_until("the stray worker to join and to say what is wrong", || {
        let unable = hat.json(["workers"]).into_iter().find(|worker| worker["health"]["is_able"] == false)?;
        unable["health"]["detail"].as_str().filter(|detail| detail.contains("--object-store")).map(str::to_owned)
    });
    assert!(told.contains(&folder.join("stray").display().to_string()), "{told}");
    wait_until("the other worker to be able to work", || {
        hat.json(["workers"]).into_iter().find(|worker| worker["health"]["is_able"] == true)
    });
    assert!(hat.ok(["workers"]).contains("cannot work"));
    let doctor = hat.run(["doctor"]).stdout;
    assert!(doctor.contains("warn  workers") && doctor.contains("cannot work"), "{doctor}");

    photos::write_classes(&folder.join("photos"), 8, 64);
    for _ in 0..6 {
        hat.ok(["ingest", "shapes", "photos"]);
    }
    let jobs = hat.json(["jobs"]);
    assert!(jobs.len() == 6 && jobs.iter().all(|job| job["state"] == "succeeded"), "{jobs:?}");
}
