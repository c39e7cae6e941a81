//! `make chaos` in the size that every change must pass, over each store.

use std::{fs, path::Path, process::Command};

use sortinghat_tests::binary;

/// Runs the chaos example. The test prints its output: every fault, the times of recovery, and the results of the jobs.
fn survive(store: &str, faults: u32, jobs: u32) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{store}"));
    // An earlier run that failed may have left its logs in this folder.
    let _ = fs::remove_dir_all(&folder);
    let mut command = Command::new(binary("examples/chaos"));
    command.args(["--store", store, "--seed", "1", "--faults", &faults.to_string(), "--jobs", &jobs.to_string()]);
    let status = command.arg("--folder").arg(&folder).status().expect("it starts");
    assert!(status.success(), "a promise was broken: logs and state are in {}", folder.display());
}

#[test]
fn twenty_faults_over_seven_hundred_jobs_lose_and_double_nothing() {
    survive("embedded", 20, 700);
}

#[test]
fn faults_of_two_coordinators_and_their_redis_lose_and_double_nothing() {
    survive("redis", 10, 300);
}
