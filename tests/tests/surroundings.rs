//! What surrounds the processes is wrong or goes away: another object store, the working folder, the folder for temporary files.

use std::{fs, io::Write as _, path::PathBuf, process::Command};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
};
use sortinghat_tests::{Background, Deployment, Options, Process, binary, photos, wait_until};

#[test]
fn a_working_folder_and_a_folder_for_temporary_files_that_go_away_harm_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [working, temporary] = ["working", "temporary"].map(|name| folder.path().join(name));
    for made in [&working, &temporary] {
        fs::create_dir(made).expect("writable");
    }
    let background = Background::start(folder.path().join("data"), |hat| {
        hat.current_dir(&working).env("TMPDIR", &temporary);
    })
    .0;
    photos::write_classes(&folder.path().join("photos"), 8, 64);
    for gone in [&working, &temporary] {
        fs::remove_dir_all(gone).expect("nothing else uses it");
    }
    let executor = wait_until("the worker to have an executor", || background.executor());
    kill(executor, Signal::SIGKILL).expect("it is ours");
    wait_until("the worker to have another executor", || background.executor().filter(|next| *next != executor));

    let output =
        background.hat().args(["ingest", "shapes"]).arg(folder.path().join("photos")).output().expect("hat starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A small file system in memory, unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, if this process may do that.
    fn mount(folder: PathBuf) -> Option<Self> {
        fs::create_dir(&folder).expect("writable");
        match mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some("size=48m")) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                eprintln!("SKIPPED: a file system cannot be mounted here ({error}), so no disk can be filled");
                None
            }
        }
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).expect("there is room for a name");
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).expect("it was written");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A file that is still open does not keep the folder.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn on_a_full_disk_nothing_ends_and_work_is_taken_again_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = SmallDisk::mount(folder.path().join("data")) else { return };
    let background = Background::start(disk.0.clone(), |hat| {
        hat.current_dir(folder.path()).env("TMPDIR", folder.path());
    })
    .0;
    photos::write_classes(&folder.path().join("photos"), 8, 64);
    let ingest =
        || background.hat().args(["ingest", "shapes"]).arg(folder.path().join("photos")).output().expect("hat starts");
    let record = fs::read(disk.0.join("hat.json")).expect("written");

    disk.fill();
    let refused = wait_until("new work to be refused", || {
        let output = ingest();
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    });
    assert!(refused.contains("room"), "{refused}");
    assert!(background.hat().arg("jobs").output().expect("hat starts").status.success(), "reads go on");
    // An executor is replaced all the same.
    let executor = wait_until("the worker to have an executor", || background.executor());
    kill(executor, Signal::SIGKILL).expect("it is ours");
    wait_until("the worker to have another executor", || background.executor().filter(|next| *next != executor));

    disk.free();
    wait_until("work to be taken again", || ingest().status.success().then_some(()));
    let same = fs::read(disk.0.join("hat.json")).expect("written");
    assert_eq!(same, record, "neither the server nor the worker has ended");
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
