//! Every process is replaced in an orderly way, one after the other, under load.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use sortinghat_tests::{Deployment, Hat, Options, Victim, photos, wait_until};

const NETWORK: [&str; 8] = ["--backbone", "resnet18", "--weights", "none", "--size", "32", "--batch-size", "8"];

#[test]
fn a_rolling_restart_fails_no_call_and_wastes_no_attempt() {
    let mut deployment = Deployment::start(Options { lease_ttl: "10s", ..Options::default() });
    deployment.add_worker();
    photos::write_classes(&deployment.folder().join("photos"), 40, 96);
    let hat = deployment.hat();
    hat.ok(["ingest", "shapes", "photos"]);
    hat.ok(["finetune", "shapes@1", "--epochs", "1"].iter().chain(&NETWORK));
    let training = hat.json(["--detach", "finetune", "shapes@1", "--epochs", "12"].iter().chain(&NETWORK));

    let (is_over, sorted) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let user = scope.spawn(|| sort_photos_until(&is_over, &sorted, &hat));
        for victim in [Victim::Worker, Victim::Coordinator].into_iter().cycle().take(6) {
            let before = sorted.load(Ordering::Relaxed);
            wait_until("photos to be sorted", || {
                (sorted.load(Ordering::Relaxed) > before || user.is_finished()).then_some(())
            });
            deployment.replace(victim);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    hat.ok(["jobs", "watch", training[0]["id"].as_str().expect("a submitted job has an id")]);

    let jobs = hat.json(["jobs"]);
    assert!(jobs.len() >= 3 + 6, "{} jobs", jobs.len());
    for job in &jobs {
        assert_eq!(job["state"], "succeeded", "{job}");
        let shown = hat.json(["jobs", "show", job["id"].as_str().expect("an id")]).remove(0);
        let attempts = shown["attempts"].as_array().expect("attempts are listed").iter();
        let ends: BTreeSet<&str> = attempts.filter_map(|attempt| attempt["outcome"].as_str()).collect();
        assert!(ends.is_subset(&BTreeSet::from(["returned", "succeeded"])), "{shown}");
    }
}

/// Sorts photos again and again, as a user who waits for each answer.
fn sort_photos_until(is_over: &AtomicBool, sorted: &AtomicUsize, hat: &Hat) {
    while !is_over.load(Ordering::Relaxed) {
        hat.ok(["classify", "shapes/1", "photos", "--out", "predictions.csv"]);
        sorted.fetch_add(1, Ordering::Relaxed);
    }
}
