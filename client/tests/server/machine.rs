//! The commands that are about this machine: up, down and doctor.

use std::fs::{self, File};

use crate::{coordinator::Coordinator, hat::Hat};

const NOBODY: &str = "http://127.0.0.1:1";
const FAILS: &str = "echo 'error: the disk is full' >&2; exit 3";

/// The record of a `hat up` that was killed. Its process ids are too large to exist.
const RECORD: &[u8] = br#"{
    "url": "http://127.0.0.1:7878",
    "hat": { "pid": 4194305, "start_ticks": 1 },
    "children": [{ "pid": 4194306, "start_ticks": 1 }]
}"#;

#[test]
fn a_coordinator_that_ends_at_once_is_reported_with_the_end_of_its_log() {
    let hat = Hat::at(NOBODY);
    hat.write_program("sortinghat-coordinator", FAILS);
    let transcript =
        hat.transcript(&["up --data-dir data", "up --data-dir other --background", "up --data-dir data --json"]);
    hat.assert_snapshot("up_without_a_coordinator", &transcript);
}

#[test]
fn down_clears_up_after_a_server_that_was_killed() {
    let hat = Hat::at(NOBODY);
    hat.write("data/hat.json", RECORD);
    hat.write("other/hat.json", RECORD);
    hat.write("damaged/hat.json", &RECORD[..20]);
    let transcript = hat.transcript(&[
        "down --data-dir data",
        "down --data-dir data",
        "down --data-dir other --json",
        "down --data-dir damaged",
    ]);
    hat.assert_snapshot("down", &transcript);
}

#[test]
fn doctor_lets_the_worker_say_what_it_would_compute_on() {
    let hat = Hat::at(NOBODY);
    hat.write_program("sortinghat-coordinator", "exit 0");
    hat.write_program("sortinghat-worker", "echo 'cpu: there is no GPU'");
    let working = hat.transcript(&["doctor"]);
    hat.write_program("sortinghat-worker", FAILS);
    let failing = hat.transcript(&["doctor --json"]);
    hat.assert_snapshot("doctor_and_the_worker", &(working + "\n" + &failing));
}

/// The record of a `hat up` that serves at `url`. It names this process, which runs.
fn record_at(url: &str) -> String {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux says");
    let (_, after_name) = stat.rsplit_once(')').expect("the name is in brackets");
    let start_ticks = after_name.split_whitespace().nth(19).expect("proc(5) lists it");
    let pid = std::process::id();
    format!(
        r#"{{"url": "{url}", "hat": {{"pid": {pid}, "start_ticks": {start_ticks}}}, "children": [], "device": "cpu"}}"#
    )
}

#[test]
fn a_command_acts_on_the_server_that_was_named_and_on_no_other() {
    let other = Coordinator::start();
    let hat = Hat::at(&other.url);
    hat.write_photos();
    assert!(hat.run("ingest stamps photos --detach").status.success());
    hat.write("dead/hat.json", RECORD);
    let transcript = hat.transcript(&[
        "jobs --data-dir nothing",
        "jobs cancel --all --yes --data-dir nothing",
        "datasets rm stamps@1 --data-dir nothing --json",
        "jobs cancel --all --yes --data-dir dead",
        "queue pause --data-dir dead --json",
        "jobs --data-dir dead --server http://127.0.0.1:1",
        "down --server http://127.0.0.1:1",
        "up --server http://127.0.0.1:1",
    ]);
    hat.assert_snapshot("another_server", &transcript);
    let listed = String::from_utf8(hat.run("jobs").stdout).expect("text");
    assert!(listed.contains("queued"), "the other server was left alone: {listed}");
}

#[test]
fn the_server_of_a_folder_is_found_and_named_before_something_is_cancelled() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(NOBODY);
    hat.write_photos();
    hat.write("data/hat.json", record_at(&coordinator.url).as_bytes());
    assert!(hat.run("ingest stamps photos --detach --data-dir data").status.success());
    let answer = hat.run("jobs cancel --all --data-dir data");
    let said = String::from_utf8(answer.stderr).expect("text");
    let server = format!("{} (the server of {})", coordinator.url, hat.path().join("data").display());
    assert!(said.contains(&format!("1 job would be cancelled on {server}")), "{said}");
    assert!(said.starts_with(&format!("acting on {server}\n")), "{said}");
}

#[test]
fn up_on_a_server_that_runs_already_is_an_error_if_it_asks_for_something_else() {
    let hat = Hat::at(NOBODY);
    hat.write("data/hat.json", record_at("http://127.0.0.1:7878").as_bytes());
    let lock = File::create(hat.path().join("data/hat.lock")).expect("writable");
    lock.lock().expect("nobody else holds it");
    let up = |options: &str| {
        let answer = hat.run(&format!("up --data-dir data {options}"));
        (answer.status.code(), String::from_utf8(answer.stderr).expect("text"))
    };
    for (options, words) in [
        ("--listen 127.0.0.1:7879", "serves at http://127.0.0.1:7878, not at 127.0.0.1:7879"),
        ("--listen 127.0.0.1:7879 --background", "not at 127.0.0.1:7879"),
        ("--device cuda:0", "with --device cpu and not with cuda:0"),
        ("--weights-dir elsewhere", "home/.cache/sortinghat/weights and not with "),
    ] {
        let (code, said) = up(options);
        assert_eq!(code, Some(7), "{options}: {said}");
        assert!(said.contains(words) && said.contains("`hat down --data-dir "), "{options}: {said}");
    }
    let usual = "--weights-dir home/.cache/sortinghat/weights";
    for options in ["", "--listen 127.0.0.1:7878", "--listen 127.0.0.1:0 --device cpu", usual] {
        let (code, said) = up(options);
        assert_eq!((code, said.contains("already runs here")), (Some(0), true), "{options}: {said}");
    }
}
