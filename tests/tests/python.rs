//! Python: our client, a client that was written from the page of the API, and libraries that read datasets directly.

use std::{path::Path, process::Command};

use sortinghat_tests::{Deployment, Options, binary, cache, photos};

#[test]
fn the_client_for_python_does_what_its_page_says() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python");
    succeed(interpreter().arg(client.join("generate.py")));
    let hat = binary("hat");
    let programs = hat.parent().expect("programs lie in a folder");
    succeed(interpreter().arg(client.join("tests/test_client.py")).env("SORTINGHAT_BIN", programs));
}

#[test]
fn the_page_of_the_api_is_enough_for_a_client_in_python() {
    let deployment = Deployment::start(Options::default());
    let folder = deployment.folder().join("photos");
    photos::write_classes(&folder, 4, 64);
    python("api_tour.py", &[&deployment.address().to_string(), folder.to_str().expect("temporary folders are UTF-8")]);
}

#[test]
fn duckdb_and_hugging_face_datasets_read_a_dataset_as_it_is() {
    let deployment = Deployment::start(Options::default());
    let folder = deployment.folder().join("photos");
    photos::write_classes(&folder, 10, 64);
    let hat = deployment.hat();
    hat.ok(["ingest".as_ref(), "shapes".as_ref(), folder.as_os_str()]);
    let dataset = hat.json(["datasets", "show", "shapes"]).remove(0);
    let digest = dataset["manifest"]["shards"][0]["digest"].as_str().expect("a dataset has a shard");
    let shard = deployment.folder().join(format!("objects/t/local/sha256/{}/{digest}", &digest[..2]));
    python("read_dataset.py", &[shard.to_str().expect("temporary folders are UTF-8")]);
}

/// Runs a script of `tests/python`; it must succeed.
fn python(script: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    succeed(interpreter().arg(script).args(arguments));
}

/// The Python that `make test-deps` installs.
fn interpreter() -> Command {
    Command::new(cache("python").join("bin/python"))
}

/// # Panics
/// If the command does not succeed, with what it said.
fn succeed(command: &mut Command) {
    let output = command.output().expect("Python starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
}
