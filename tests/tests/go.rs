//! Clients that are written in Go: grpcurl runs the commands of the page of the API, and both it and buf read why a call is refused.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use sortinghat_proto::Digest;
use sortinghat_tests::{Deployment, Options, cache, photos, start_coordinator};

#[test]
fn the_commands_of_the_page_of_the_api_lead_from_photos_to_predictions() {
    let deployment = Deployment::start(Options::default());
    let folder = deployment.folder().join("elsewhere");
    let uploaded = photos::write_classes(&folder.join("photos"), 4, 64);
    // What follows the end of a PNG is no part of the picture. This file needs three pieces.
    let mut large = fs::read(&uploaded[0].location).expect("just written");
    large.resize(5 << 19, 0);
    fs::write(&uploaded[0].location, large).expect("writable");
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md")).expect("the page exists");
    let (_, commands) = page.split_once("## By grpcurl").expect("the page has this part");
    let script = commands.split("```").nth(1).and_then(|block| block.strip_prefix("sh\n")).expect("it has commands");
    let answer = run(shell(&folder, &deployment.address().to_string()).args(["-c", script]));
    assert_eq!(answer, (0, String::new()));
    let predictions = fs::read(folder.join("predictions.json")).expect("the commands wrote it");
    let predictions: Value = serde_json::from_slice(&predictions).expect("a JSON document");
    assert_eq!(predictions["format"], "sortinghat.predictions/1");
    assert_eq!(predictions["counts"]["results"], uploaded.len());
}

#[test]
fn a_refusal_reaches_programs_in_go_with_its_details() {
    let deployment = Deployment::start(Options::default());
    let server = deployment.address().to_string();
    let body = r#"{"idempotency_key": "a b", "spec": {"ingest": {"dataset_name": "x"}}}"#;
    let grpcurl = r#"grpcurl -plaintext -d "$BODY" "$SERVER" sortinghat.v1.JobService/SubmitJob"#;
    let (code, said) = run(shell(deployment.folder(), &server).env("BODY", body).args(["-c", grpcurl]));
    assert_ne!(code, 0);
    let sentence = "an idempotency key is at most 128 visible ASCII characters";
    let details = ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "sortinghat.v1.Failure"];
    let decoded = ["Code: InvalidArgument", sentence, "idempotency_key", "ERROR_CODE_INVALID_ARGUMENT"];
    for expected in decoded.iter().chain(&details) {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }

    let buf = r#"buf curl --protocol grpc --http2-prior-knowledge -d "$BODY" "http://$SERVER/sortinghat.v1.JobService/SubmitJob""#;
    let (code, said) = run(shell(deployment.folder(), &server).env("BODY", body).args(["-c", buf]));
    assert_ne!(code, 0);
    for expected in ["invalid_argument", sentence].iter().chain(&details) {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}

#[test]
fn a_token_opens_the_calls_and_without_one_a_program_learns_what_to_send() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = folder.path().join("tokens.toml");
    let sha256 = Digest::of(b"secret");
    fs::write(&tokens, format!("[[tokens]]\nsha256 = '{sha256}'\ntenant = 'lab'\nrole = 'user'\n")).expect("writable");
    let log = folder.path().join("coordinator.log");
    let any = "127.0.0.1:0".parse().expect("an address");
    let (_coordinator, address) = start_coordinator(&folder.path().join("data"), any, &log, |command| {
        command.arg("--credentials").arg(&tokens);
    });
    let list = |token: &str| {
        let call = format!(r#"grpcurl -plaintext {token} "$SERVER" sortinghat.v1.JobService/ListJobs"#);
        run(shell(folder.path(), &address.to_string()).args(["-c", &call]))
    };
    let (code, said) = list("-H 'authorization: Bearer secret'");
    assert!(code == 0 && said.starts_with('{'), "{said}");
    for token in ["", "-H 'authorization: Bearer guess'"] {
        let (_, said) = list(token);
        assert!(said.contains("Code: Unauthenticated") && said.contains("PERMISSION_DENIED"), "{said}");
    }
}

/// A shell in `folder` that finds the tools.
fn shell(folder: &Path, server: &str) -> Command {
    let tools = [cache("grpcurl").join("bin"), cache("tools").join("bin")].map(|folder| folder.display().to_string());
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", tools.join(":")))
        .env("SERVER", server)
        .env("TOKEN", "none");
    command
}

/// Runs a command; returns its exit code and all that it said.
fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("the command starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}
