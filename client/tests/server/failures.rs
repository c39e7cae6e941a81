//! Commands that fail before there is a job.

use sortinghat_coordinator::config::Settings;
use sortinghat_proto::Digest;

use crate::{coordinator::Coordinator, hat::Hat};

/// An address at which nobody listens.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn without_a_server_every_command_says_how_to_start_one() {
    let hat = Hat::at(NOBODY);
    hat.write_photos();
    let transcript = hat.transcript(&[
        "jobs",
        "jobs --json",
        "ingest stamps photos",
        "queue --server nonsense",
        "queue --server ftp://127.0.0.1 --json",
        "SORTINGHAT_TOKEN=secret queue --server http://192.0.2.1:7878",
        "queue --token-file nowhere",
        "queue --ca-file nowhere --json",
        "down",
        "down --json",
        "up",
        "up --json",
    ]);
    hat.assert_snapshot("without_a_server", &transcript);
}

#[test]
fn a_command_line_that_cannot_be_used_is_refused_before_anything_is_sent() {
    let hat = Hat::at(NOBODY);
    hat.write_photos();
    hat.write("model.pth", b"a checkpoint");
    hat.write("empty/green/.hidden", b"");
    hat.write("heic/1.HEIC", b"");
    let transcript = hat.transcript(&[
        "sort",
        "sort --json",
        "jobs --kind training",
        "jobs cancel",
        "ingest Stamps photos",
        "ingest Stamps photos --json",
        "ingest stamps nowhere",
        "ingest stamps photos/red/1.png",
        "ingest stamps photos/red",
        "ingest stamps heic",
        "ingest stamps empty",
        "ingest stamps photos --folds 1",
        "finetune stamps@0",
        "finetune stamps --min-scale 0.5",
        "finetune stamps --lr 11",
        "finetune stamps --deadline soon",
        "evaluate stamps@1",
        "evaluate stamps --follow-links",
        "evaluate stamps --on stamps --follow-links",
        "evaluate stamps --force --detach",
        "classify stamps/1",
        "datasets rm",
        "models show stamps@1",
    ]);
    hat.assert_snapshot("unusable_command_lines", &transcript);
}

#[test]
fn weights_that_cannot_be_used_are_refused() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    hat.write("model.pth", b"a checkpoint");
    let transcript = hat.transcript(&[
        "finetune stamps --weights model.pth",
        "finetune stamps --weights nowhere.safetensors",
        "finetune stamps --weights none",
        "finetune stamps --json",
    ]);
    hat.assert_snapshot("weights", &transcript);
}

#[test]
fn the_commands_that_a_hint_names_act_on_the_server_that_was_typed() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(NOBODY);
    hat.write_photos();
    let server = format!("--server {}", coordinator.url);
    for (line, hint) in [
        ("datasets show stamps@1", "`hat datasets [server]` and `hat models [server]` list what there is"),
        ("finetune stamps", "`hat ingest NAME FOLDER [server]` makes datasets, and `hat datasets [server]` lists them"),
        ("jobs show 01", "`hat jobs [server]` lists all jobs"),
        ("workers", "no worker is running: `sortinghat-worker run` starts one"),
    ] {
        let output = hat.run(&format!("{line} {server}"));
        let said = String::from_utf8(output.stderr).expect("text").replace(&server, "[server]");
        assert!(said.contains(hint), "hat {line}: {said}");
    }
    hat.run(&format!("queue pause {server}"));
    let paused = hat.run(&format!("queue {server}"));
    let paused = String::from_utf8(paused.stdout).expect("text");
    assert!(paused.contains(&format!("until `hat queue resume {server}`")), "{paused}");
}

#[test]
fn a_token_decides_who_is_let_in() {
    let tokens = tempfile::NamedTempFile::new().expect("a temporary file");
    let sha256 = Digest::of(b"secret");
    let line = format!("[[tokens]]\nid = 'anna'\nsha256 = '{sha256}'\ntenant = 'team'\nrole = 'user'\n");
    std::fs::write(tokens.path(), line).expect("writable");
    let settings = Settings { credentials: Some(tokens.path().to_owned()), ..Settings::default() };
    let coordinator = Coordinator::start_with(settings);
    let hat = Hat::at(&coordinator.url);
    hat.write("token", b"secret\n");
    let transcript = hat.transcript(&[
        "queue",
        "queue --json",
        "SORTINGHAT_TOKEN=wrong queue",
        "SORTINGHAT_TOKEN=secret queue",
        "queue --token secret",
        "queue --token-file token",
        "whoami --token-file token",
        "whoami --token-file token --json",
        "doctor --json",
    ]);
    hat.assert_snapshot("tokens", &transcript);
}

#[test]
fn doctor_names_what_is_missing_and_what_to_do() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    let alone = hat.transcript(&["doctor"]);
    coordinator.start_worker();
    hat.write("weights/resnet18.safetensors", b"weights");
    while hat.run("workers --json").stdout.is_empty() {}
    let working = hat.transcript(&["doctor --weights-dir weights", "doctor --json"]);
    let nobody = Hat::at(NOBODY);
    hat.assert_snapshot("doctor", &(alone + "\n" + &working));
    nobody.assert_snapshot("doctor_without_a_server", &nobody.transcript(&["doctor"]));
}
