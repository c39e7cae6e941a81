//! Each job kind, with kill -9 of each process in the middle of a job. The job ends once, with the result of an undisturbed run.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use serde_json::Value;
use sortinghat_proto::JobKind;
use sortinghat_tests::{Deployment, Options, Reply, Victim, Web, photos, wait_until};

/// Runs a job of each kind undisturbed, and then with each process killed in the middle of it, and compares the results.
#[test]
fn a_process_that_is_killed_in_the_middle_of_a_job_changes_no_result() {
    // It serves the files of a folder that is known later.
    let served = Arc::new(OnceLock::<PathBuf>::new());
    let web = Web::serve({
        let served = served.clone();
        move |asked| match fs::read(served.get().expect("the folder is known").join(&asked.path[1..])) {
            Ok(photo) => Reply::ok(photo),
            Err(_) => Reply::status("404 Not Found"),
        }
    });
    let mut deployment = Deployment::start(Options { web: vec![web.address()], ..Options::default() });
    let folder = deployment.folder().join("photos");
    photos::write_classes(&folder, 60, 320);
    let large = deployment.folder().join("many-large");
    let files = photos::write_classes(&large, 160, 1000);
    let rows = files
        .iter()
        .map(|file| format!("{},{}\n", &file.path[..file.path.len() - 8], web.url(&format!("/{}", file.path))));
    let table: String = std::iter::once("class,url\n".to_owned()).chain(rows).collect();
    fs::write(deployment.folder().join("urls.csv"), table).expect("the temporary folder is writable");
    served.set(large).expect("it is set once");
    deployment.hat().ok(["ingest".as_ref(), "shapes".as_ref(), folder.as_os_str()]);
    for &kind in JobKind::ALL {
        let calm = finish(&deployment, &submit(&deployment, kind, &folder));
        let calm = result(&deployment, kind, &calm);
        for victim in [Victim::Coordinator, Victim::Worker, Victim::Executor] {
            let job = submit(&deployment, kind, &folder);
            wait_until("the job to be in its middle", || in_the_middle(&deployment, &job).then_some(()));
            deployment.kill_and_replace(victim);
            let disturbed = finish(&deployment, &job);
            assert_eq!(result(&deployment, kind, &disturbed), calm, "{kind}, {victim:?}");
            let attempts = disturbed["attempts"].as_array().expect("attempts are listed");
            let successes = attempts.iter().filter(|attempt| attempt["outcome"] == "succeeded").count();
            assert_eq!(successes, 1, "{kind}, {victim:?}: {disturbed}");
            let was_lost = victim != Victim::Coordinator;
            assert!(!was_lost || attempts.len() >= 2, "{kind} was too quick for {victim:?}: {disturbed}");
        }
    }
}

/// Submits a job of this kind and returns its id.
fn submit(deployment: &Deployment, kind: JobKind, folder: &Path) -> String {
    let folder = folder.to_str().expect("temporary folders are UTF-8");
    let arguments: &[&str] = match kind {
        // The photos are large, so that the ingest takes long enough to be disturbed.
        JobKind::Ingest => &["ingest", "large", "many-large"],
        // An epoch has many steps, so that there is progress at any time.
        JobKind::Finetune => &[
            "finetune",
            "shapes@1",
            "--backbone",
            "resnet18",
            "--weights",
            "none",
            "--size",
            "64",
            "--epochs",
            "3",
            "--batch-size",
            "8",
        ],
        // All photos are evaluated, as a fast machine evaluates the held-out ones within a second.
        JobKind::Evaluate => &["evaluate", "shapes/1", "--on", folder, "--tta", "--passes", "32"],
        // The same photos, from a web server.
        JobKind::Gather => &["gather", "gathered", "--urls", "urls.csv", "--allow-http", "--anew"],
        JobKind::Classify => &["classify", "shapes/1", folder, "--tta", "--passes", "32"],
        JobKind::Audit => &["audit", "shapes@1", "--backbone", "resnet18", "--weights", "none", "--size", "160"],
    };
    let lines = deployment.hat().json(["--detach"].iter().chain(arguments));
    lines[0]["id"].as_str().expect("a submitted job has an id").to_owned()
}

/// Follows the job, which must succeed, to its end and returns it.
fn finish(deployment: &Deployment, job: &str) -> Value {
    deployment.hat().ok(["jobs", "watch", job]);
    let job = show(deployment, job);
    assert_eq!(job["state"], "succeeded", "{job}");
    job
}

fn show(deployment: &Deployment, job: &str) -> Value {
    deployment.hat().json(["jobs", "show", job]).remove(0)
}

fn in_the_middle(deployment: &Deployment, job: &str) -> bool {
    let job = show(deployment, job);
    assert_ne!(job["state"], "succeeded", "the job ended before it could be disturbed");
    job["progress"]["done"].as_u64().is_some_and(|done| done > 0)
}

/// What a job has made, without what differs between two runs that nothing disturbs: the duration of each epoch of a model, and the
/// report of an evaluation, which says which job measured it and when.
fn result(deployment: &Deployment, kind: JobKind, job: &Value) -> String {
    match kind {
        // The manifest names every part by digest.
        JobKind::Ingest | JobKind::Gather | JobKind::Classify => job["output"]["manifest"]["digest"].to_string(),
        JobKind::Finetune => {
            let name = job["output"]["name"].as_str().expect("a model has a name");
            let model = deployment.hat().json(["models", "show", name]).remove(0);
            model["manifest"]["weights"]["digest"].to_string()
        }
        JobKind::Evaluate | JobKind::Audit => {
            let id = job["id"].as_str().expect("a job has an id");
            let mut told = deployment.hat().json(["jobs", "watch", id]).pop().expect("the result");
            let evaluation = told["manifest"].as_object_mut().expect("a document");
            evaluation.remove("report").expect("it has a report");
            told["manifest"].to_string()
        }
    }
}
