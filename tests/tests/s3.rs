//! The whole path with every object in an S3 bucket.

use sortinghat_tests::{Deployment, Options, S3Server, photos};

#[test]
fn photos_become_predictions_through_a_bucket_and_no_object_is_outside_the_prefix() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = S3Server::start(folder.path());
    let deployment = Deployment::start(Options { bucket: Some(server.bucket()), ..Options::default() });
    let hat = deployment.hat();
    photos::write_classes(&deployment.folder().join("photos"), 20, 64);
    hat.ok(["ingest", "shapes", "photos"]);
    // The weights have 45 MB, so they are uploaded in parts.
    let network = ["--backbone", "resnet18", "--weights", "none", "--size", "32", "--batch-size", "8", "--epochs", "1"];
    hat.ok(["finetune", "shapes@1"].iter().chain(&network));
    hat.ok(["evaluate", "shapes/1", "--tta", "--report", "report.html"]);
    hat.ok(["classify", "shapes/1", "photos", "--out", "predictions.jsonl"]);

    let predictions = std::fs::read_to_string(deployment.folder().join("predictions.jsonl")).expect("written");
    assert_eq!(predictions.lines().filter(|line| line.contains("\"probability\"")).count(), 60);
    let keys = server.bucket().keys();
    assert!(keys.len() > 60, "{} objects", keys.len());
    let is_ours = |key: &String| key.starts_with("some/where/t/local/sha256/") || key == "some/where/queue-id";
    assert!(keys.iter().all(is_ours), "{keys:?}");
    assert!(!deployment.folder().join("objects").exists());
}
