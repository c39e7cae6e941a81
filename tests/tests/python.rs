//! What Python sees: a client generated from the protocol's files, and the dataset's Parquet through three readers.
//!
//! The environment comes from `deploy/install.sh python`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use sortinghat_tests::{Deployment, Options, photos};

#[test]
fn a_python_client_generated_from_the_protocol_submits_a_job_and_reads_it_back() {
    let deployment = Deployment::start(Options::default());
    let job = run_script("client_roundtrip.py", [deployment.address()]);
    let shown = deployment.hat().json(["jobs", "show", job.trim()]).remove(0);
    assert_eq!(shown["id"], job.trim(), "hat knows the job that Python submitted");
}

#[test]
fn pyarrow_duckdb_and_hugging_face_datasets_read_a_dataset_as_it_is() {
    let deployment = Deployment::start(Options::default());
    let folder = deployment.folder().join("photos");
    photos::write_classes(&folder, 8, 64);
    deployment.hat().ok(["ingest", "shapes", folder.to_str().expect("temporary folders are UTF-8")]);
    let dataset = deployment.hat().json(["datasets", "show", "shapes@1"]).remove(0);
    let shards = dataset["manifest"]["shards"].as_array().expect("a dataset lists its shards");
    let files = shards.iter().map(|shard| {
        let digest = shard["digest"].as_str().expect("a shard has a digest");
        object_file(&deployment.folder().join("objects"), digest)
    });
    let seen: Value = serde_json::from_str(&run_script("read_dataset.py", files)).expect("the script prints JSON");
    assert_eq!(seen["rows"], 24);
    assert_eq!(seen["by_label"], serde_json::json!({"0": 8, "1": 8, "2": 8}));
}

/// Runs a script of `tests/python`, which must succeed, and returns what it printed.
fn run_script<A: AsRef<std::ffi::OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let python = cache().join("python/bin/python");
    assert!(python.exists(), "{} is missing: run deploy/install.sh python", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name);
    let output = Command::new(python).arg(script).args(arguments).output().expect("Python starts");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the scripts print UTF-8")
}

/// Where `deploy/install.sh` installs to.
fn cache() -> PathBuf {
    env::var_os("SORTINGHAT_CACHE").map_or_else(
        || PathBuf::from(env::var_os("HOME").expect("a user has a home")).join(".cache/sortinghat"),
        PathBuf::from,
    )
}

/// The file of an object in a local store: `t/<tenant>/sha256/<first two digits>/<digest>`, of the only tenant.
fn object_file(objects: &Path, digest: &str) -> PathBuf {
    let tenants = objects.join("t").read_dir().expect("the store has tenants");
    tenants
        .map(|tenant| tenant.expect("the store is readable").path().join("sha256").join(&digest[..2]).join(digest))
        .find(|file| file.exists())
        .expect("a committed dataset's shards exist")
}
