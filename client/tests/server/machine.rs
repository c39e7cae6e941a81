//! The commands that are about this machine: up, down and doctor.

use crate::hat::Hat;

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
