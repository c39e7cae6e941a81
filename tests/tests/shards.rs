//! Jobs in shards on two workers, with kill -9 in the middle. The result is the same to the byte as that of one task on one worker.

use serde_json::Value;
use sortinghat_tests::{Deployment, Options, Victim, photos, wait_until};

/// The number of items in a shard: a multiple of the photos that a network classifies at a time.
const SHARD_ITEMS: u32 = 64;

#[test]
fn a_divided_ingest_and_classify_survive_the_death_of_a_worker_and_of_the_coordinator() {
    let mut deployment = Deployment::start(Options::default());
    photos::write_classes(&deployment.folder().join("photos"), 80, 640);
    let ingest = ["ingest", "shapes", "photos"];
    let classify = ["classify", "shapes/1", "photos", "--tta", "--passes", "16"];
    let whole_dataset = result(&deployment, &submit(&deployment, &ingest));
    let network = ["--backbone", "resnet18", "--weights", "none", "--size", "64", "--recipe", "fastai2"];
    deployment.hat().ok(["finetune", "shapes@1"].iter().chain(&network));
    let whole_predictions = result(&deployment, &submit(&deployment, &classify));

    deployment.divide_above(SHARD_ITEMS);
    deployment.add_worker();
    for victim in [Victim::Worker, Victim::Executor, Victim::Coordinator] {
        let (dataset, predictions) =
            (disturbed(&mut deployment, &ingest, victim), disturbed(&mut deployment, &classify, victim));
        assert_eq!((dataset, predictions), (whole_dataset.clone(), whole_predictions.clone()), "{victim:?}");
    }
}

/// Runs a job in shards, kills the victim once a shard has ended while others run, and returns the result.
fn disturbed(deployment: &mut Deployment, arguments: &[&str], victim: Victim) -> Value {
    let job = submit(deployment, arguments);
    wait_until("the job to be in its middle", || {
        let tasks = show(deployment, &job)["tasks"].clone();
        (tasks["succeeded"].as_u64() >= Some(1) && tasks["running"].as_u64() >= Some(1)).then_some(())
    });
    deployment.kill_and_replace(victim);
    let made = result(deployment, &job);
    let ended = show(deployment, &job);
    assert_eq!((&ended["tasks"]["total"], &ended["tasks"]["succeeded"]), (&4.into(), &4.into()), "{ended}");
    let succeeded = ended["attempts"].as_array().expect("attempts are listed").iter();
    let mut tasks: Vec<&Value> =
        succeeded.filter(|attempt| attempt["outcome"] == "succeeded").map(|attempt| &attempt["task"]).collect();
    tasks.sort_by_key(|task| task.as_u64());
    assert_eq!(tasks, [0, 1, 2, 3, 4, 5], "each task once: {ended}");
    made
}

/// Submits a job and returns its id.
fn submit(deployment: &Deployment, arguments: &[&str]) -> String {
    let lines = deployment.hat().json(["--detach"].iter().chain(arguments));
    lines[0]["id"].as_str().expect("a submitted job has an id").to_owned()
}

fn show(deployment: &Deployment, job: &str) -> Value {
    deployment.hat().json(["jobs", "show", job]).remove(0)
}

/// Follows the job, which must succeed, to its end. Returns the digest of its manifest, which names every part by digest.
fn result(deployment: &Deployment, job: &str) -> Value {
    deployment.hat().ok(["jobs", "watch", job]);
    let job = show(deployment, job);
    assert_eq!(job["state"], "succeeded", "{job}");
    job["output"]["manifest"]["digest"].clone()
}
