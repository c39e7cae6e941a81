//! Python: a client that was written from the page of the API, and libraries that read datasets directly.

use std::{path::Path, process::Command};

use sortinghat_tests::{Deployment, Options, cache, photos};

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

/// Runs a script of `tests/python` with the Python that `make test-deps` installs; it must succeed.
fn python(script: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let interpreter = cache("python").join("bin/python");
    let output = Command::new(interpreter).arg(script).args(arguments).output().expect("Python starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
}
