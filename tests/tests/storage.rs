//! An object store that does not answer for a while.

use std::time::Duration;

use serde_json::Value;
use sortinghat_tests::{Deployment, Hat, Options, Proxy, S3Server, Weather, photos, wait_until};
use tokio::{runtime::Runtime, time::Instant};

#[test]
fn a_bucket_that_hangs_is_told_within_ten_seconds_and_the_job_goes_on_with_what_it_has_done() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = S3Server::start(folder.path());
    let runtime = Runtime::new().expect("threads");
    let proxy = runtime.block_on(Proxy::start(vec![server.bucket().address()])).expect("a free port");
    let bucket = server.bucket().behind(proxy.address());
    let deployment = Deployment::start(Options { bucket: Some(bucket), ..Options::default() });
    let hat = deployment.hat();
    photos::write_classes(&deployment.folder().join("photos"), 100, 64);
    let submitted = hat.json(["--detach", "ingest", "shapes", "photos"]);
    let job = submitted[0]["id"].as_str().expect("the id of the job").to_owned();
    // The job is to be hit in its middle.
    proxy.set(Weather::Slow(Duration::from_millis(20)));
    wait_until("the job to have done something", || {
        show(&hat, &job)["progress"]["done"].as_u64().filter(|done| *done > 10)
    });

    proxy.set(Weather::Partition);
    let hung = Instant::now();
    wait_until("the reason to be told", || {
        let why = hat.ok(["jobs", "why", &job]);
        (why.contains("cannot work now") && why.contains("the object store")).then_some(())
    });
    assert!(hung.elapsed() < Duration::from_secs(10), "it took {:?}", hung.elapsed());

    proxy.set(Weather::Clear);
    hat.ok(["jobs", "watch", &job]);
    let ended = show(&hat, &job);
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["attempts"].as_array().map(Vec::len), Some(1), "it has not begun anew: {}", ended["attempts"]);
}

fn show(hat: &Hat, job: &str) -> Value {
    hat.json(["jobs", "show", job]).remove(0)
}
