//! What a classify predicts can be read while it runs, and stays after it was cancelled.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use sortinghat_tests::{Deployment, Hat, Options, binary, photos, wait_until};

/// How many photos a part has.
const PART: usize = 64;
/// How many photos there are in all: four parts, of which the last is short.
const PHOTOS: usize = 210;

/// A deployment that divides every large job, with a model and a classify of many photos, of which the id is returned.
fn classifying() -> (Deployment, String) {
    let options = Options { shard_items: Some(PART as u32), lease_ttl: "30s", ..Options::default() };
    let deployment = Deployment::start(options);
    photos::write_classes(&deployment.folder().join("photos"), PHOTOS as u32 / 3, 64);
    let hat = deployment.hat();
    hat.ok(["ingest", "shapes", "photos"]);
    hat.ok(["finetune", "shapes", "--backbone", "resnet18", "--weights", "none", "--size", "64", "--epochs", "1"]);
    let id = submit(&hat);
    (deployment, id)
}

fn submit(hat: &Hat) -> String {
    // The passes make each part last a while.
    let submitted = hat.json(["--detach", "classify", "shapes", "photos", "--tta", "--passes", "8"]);
    submitted[0]["id"].as_str().expect("a submitted job has an id").to_owned()
}

fn show(hat: &Hat, job: &str) -> Value {
    hat.json(["jobs", "show", job]).remove(0)
}

/// The rows that `hat jobs predictions` prints with these options.
fn rows(hat: &Hat, job: &str, options: &[&str]) -> Vec<Value> {
    let lines = hat.ok(["jobs", "predictions", job, "--format", "jsonl"].iter().chain(options));
    lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

fn paths(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["path"].as_str().expect("a row has a path")).collect()
}

#[test]
fn the_photos_of_each_part_can_be_read_once_it_is_done_and_stay_after_a_cancel() {
    let (deployment, job) = classifying();
    let hat = deployment.hat();
    wait_until("a part to be done", || (show(&hat, &job)["tasks"]["succeeded"].as_u64() >= Some(1)).then_some(()));
    // Nothing goes on, so that the job is certainly in its middle.
    deployment.signal_executor(Signal::SIGSTOP);
    let early = rows(&hat, &job, &[]);
    assert_eq!(show(&hat, &job)["state"], "running");
    assert!(!early.is_empty() && early.len().is_multiple_of(PART) && early.len() < PHOTOS, "{} rows", early.len());
    deployment.signal_executor(Signal::SIGCONT);
    hat.ok(["jobs", "cancel", &job]);
    wait_until("the job to end", || (show(&hat, &job)["state"] == "cancelled").then_some(()));

    let late = rows(&hat, &job, &[]);
    let kept: BTreeSet<&str> = paths(&late).into_iter().collect();
    assert_eq!(kept.len(), late.len(), "each photo once");
    assert!(paths(&early).iter().all(|path| kept.contains(path)), "nothing of it is lost");
    let followed = hat.run(["jobs", "predictions", &job, "--follow"]);
    assert_eq!((followed.code, followed.stdout.lines().count()), (5, late.len()), "{}", followed.stderr);
    assert!(late.iter().all(|row| row["status"] == "ok" || row["status"] == "unsure"), "{:?}", late[0]);

    // The retry computes the other photos only.
    let again = hat.json(["--detach", "jobs", "retry", &job]);
    let again = again[0]["id"].as_str().expect("a submitted job has an id");
    hat.ok(["jobs", "watch", again]);
    let ended = show(&hat, again);
    let computed =
        ended["attempts"].as_array().expect("attempts").iter().filter(|attempt| attempt["outcome"] == "succeeded");
    let finished = late.len().div_ceil(PART);
    assert_eq!(
        computed.count(),
        1 + (PHOTOS.div_ceil(PART) - finished) + 1,
        "the count, the other parts, the end: {ended}"
    );
    let whole = rows(&hat, again, &["--in-order"]);
    assert_eq!(whole.len(), PHOTOS);
    assert!(late.iter().all(|row| whole.contains(row)), "what was predicted before is a part of it");
}

#[test]
fn a_watcher_gets_every_photo_once_and_the_first_ones_as_soon_as_the_first_part_is_done() {
    let (deployment, job) = classifying();
    let hat = deployment.hat();
    let mut follow = Command::new(binary("hat"));
    follow.args(["--server", &format!("http://{}", deployment.address())]);
    follow.args(["jobs", "predictions", &job, "--follow", "--format", "jsonl"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("hat starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a row").expect("text");
    let arrived = unix_ms();
    let attempts = show(&hat, &job)["attempts"].clone();
    let parts = attempts.as_array().expect("attempts").iter();
    let ended = parts.filter(|attempt| attempt["task"] != 0).filter_map(|attempt| attempt["finished_unix_ms"].as_i64());
    let ended = ended.filter(|ms| *ms > 0).min().expect("a part has ended");
    println!("the first row came {} ms after the end of the first part", arrived - ended);
    assert!(arrived - ended < 10_000, "even on a busy machine");
    let others: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert!(follow.wait().expect("it ends").success());
    let all: Vec<Value> =
        [first].iter().chain(&others).map(|line| serde_json::from_str(line).expect("an object")).collect();
    let once: BTreeSet<&str> = paths(&all).into_iter().collect();
    assert_eq!((all.len(), once.len()), (PHOTOS, PHOTOS));

    hat.ok(["jobs", "watch", &job, "--out", "p.jsonl"]);
    let saved = std::fs::read_to_string(deployment.folder().join("p.jsonl")).expect("saved");
    let saved: Vec<Value> = saved.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(rows(&hat, &job, &["--in-order"]), saved, "the same rows, in the order of the upload");
    let csv = hat.ok(["jobs", "predictions", &job, "--format", "csv", "--class-columns"]);
    let header = csv.lines().next().expect("a header");
    assert!(header.starts_with("path,digest,predicted,probability,second,") && header.contains(",p_"), "{header}");
    assert_eq!(csv.lines().count(), PHOTOS + 1);
}

#[expect(clippy::disallowed_methods, reason = "the coordinator's times are of the machine's clock as well")]
fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("soon enough")
}
