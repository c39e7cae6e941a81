//! Trainings whose process dies or whose worker leaves go on from their last checkpoint to the weights of an undisturbed run. Tasks that always die
//! end, and their worker lives on.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use sortinghat_tests::{Deployment, Options, Victim, photos, wait_until};
use tokio::time::Instant;

/// The size from which an object can only be a checkpoint or a model, in bytes.
const LARGE_BYTES: u64 = 10 << 20;
/// How many steps an epoch has.
const EPOCH: u64 = 12;
/// How many epochs a training has that is disturbed once, and one that is disturbed ten times.
const SHORT: &str = "5";
const LONG: &str = "15";

/// A deployment with a dataset, whose trainings also store checkpoints within an epoch.
fn deployment() -> Deployment {
    // The lease is long enough for a starved machine to renew it, so that only the test ends an attempt.
    let options = Options { checkpoint_interval: "100ms", lease_ttl: "15s", ..Options::default() };
    let deployment = Deployment::start(options);
    let folder = deployment.folder().join("photos");
    photos::write_classes(&folder, 40, 96);
    deployment.hat().ok(["ingest".as_ref(), "shapes".as_ref(), folder.as_os_str()]);
    deployment
}

#[test]
fn a_killed_executor_costs_a_training_the_steps_since_its_last_checkpoint_and_changes_no_bit() {
    let mut deployment = deployment();
    let calm = learned(&deployment, &ended(&deployment, &train(&deployment, SHORT)));
    let job = train(&deployment, SHORT);
    stop_past_a_step(&deployment, &job);
    deployment.kill_and_replace(Victim::Executor);
    let disturbed = ended(&deployment, &job);
    assert_eq!(outcomes(&disturbed), ["crashed", "succeeded"]);
    let places = places_of_resumption(&deployment, &job);
    assert!(places.len() == 1 && !places[0].ends_with(" 0"), "went on past a step of an epoch: {places:?}");
    assert_eq!(learned(&deployment, &disturbed), calm);
}

#[test]
fn a_terminated_worker_hands_its_training_over_and_the_next_one_goes_on_at_the_same_step() {
    let mut deployment = deployment();
    let calm = learned(&deployment, &ended(&deployment, &train(&deployment, SHORT)));
    let job = train(&deployment, SHORT);
    wait_for_checkpoint(&deployment, &job);
    let asked = Instant::now();
    assert!(deployment.terminate(Victim::Worker), "the worker exits with 0");
    println!("the worker handed its training over and exited within {:?}", asked.elapsed());
    assert_eq!(show(&deployment, &job)["state"], "queued", "given back before the lease ran out");
    deployment.start_worker_again();
    let disturbed = ended(&deployment, &job);
    assert_eq!(outcomes(&disturbed), ["returned", "succeeded"]);
    let places = places_of_resumption(&deployment, &job);
    println!("went on at {places:?}");
    assert_eq!(places.len(), 1);
    assert_eq!(learned(&deployment, &disturbed), calm);
}

#[test]
fn a_training_that_makes_progress_between_ten_deaths_succeeds_with_the_same_weights() {
    let mut deployment = deployment();
    let calm = learned(&deployment, &ended(&deployment, &train(&deployment, LONG)));
    let job = train(&deployment, LONG);
    for _ in 0..10 {
        wait_for_checkpoint(&deployment, &job);
        deployment.kill_and_replace(Victim::Executor);
        wait_until("the death to be known", || (show(&deployment, &job)["state"] != "running").then_some(()));
    }
    let disturbed = ended(&deployment, &job);
    assert_eq!(outcomes(&disturbed).iter().filter(|outcome| *outcome == "crashed").count(), 10);
    assert_eq!(learned(&deployment, &disturbed), calm);
}

#[test]
fn a_task_whose_executor_dies_three_times_fails_and_the_only_worker_lives_on() {
    let mut deployment = Deployment::start(Options::default());
    let folder = deployment.folder().join("photos");
    // The work takes seconds on any machine, and a death comes about a second after a start.
    photos::write_classes(&folder, 240, 1000);
    let submitted = deployment.hat().json(["--detach", "ingest", "poison", folder.to_str().expect("UTF-8")]);
    let job = submitted[0]["id"].as_str().expect("a submitted job has an id").to_owned();
    for death in 1..=3 {
        wait_until("the executor to be at it", || (progress(&show(&deployment, &job)) > 0).then_some(()));
        deployment.kill_and_replace(Victim::Executor);
        wait_until("the death to be known", || {
            let crashed = outcomes(&show(&deployment, &job)).iter().filter(|outcome| *outcome == "crashed").count();
            (crashed == death).then_some(())
        });
    }
    assert_ne!(deployment.hat().run(["jobs", "watch", &job]).code, 0);
    let failed = show(&deployment, &job);
    assert_eq!((&failed["state"], &failed["failure"]["code"]), (&"failed".into(), &"POISON".into()), "{failed}");
    assert_eq!(outcomes(&failed), ["crashed"; 3]);
    photos::write_classes(&deployment.folder().join("harmless"), 5, 96);
    deployment.hat().ok(["ingest", "harmless", "harmless"]);
}

/// Submits a training of this many epochs and returns its id.
fn train(deployment: &Deployment, epochs: &str) -> String {
    let network = ["--backbone", "efficientnet_lite0", "--weights", "none", "--size", "32"];
    let length = ["--batch-size", "8", "--epochs", epochs];
    let lines = deployment.hat().json(["--detach", "finetune", "shapes@1"].iter().chain(&network).chain(&length));
    lines[0]["id"].as_str().expect("a submitted job has an id").to_owned()
}

/// Stops the executor at a time when its last reported checkpoint, and any checkpoint that it has not reported yet, were taken within an epoch.
fn stop_past_a_step(deployment: &Deployment, job: &str) {
    loop {
        let before = wait_for_checkpoint(deployment, job);
        deployment.signal_executor(Signal::SIGSTOP);
        let mut kept =
            large_objects(&deployment.folder().join("objects")).into_iter().filter(|file| !before.contains(file));
        if kept.all(|(file, _)| !batches_done(&file).is_multiple_of(EPOCH)) {
            return;
        }
        deployment.signal_executor(Signal::SIGCONT);
    }
}

/// Waits until the running attempt has stored a checkpoint and reported a step after it. Returns the large objects that existed before.
fn wait_for_checkpoint(deployment: &Deployment, job: &str) -> BTreeSet<Stored> {
    let objects = deployment.folder().join("objects");
    let in_training = |job: &Value| job["progress"]["phase"] == "train" && progress(job) > 0;
    wait_until("training to begin", || in_training(&show(deployment, job)).then_some(()));
    let before = large_objects(&objects);
    wait_until("a checkpoint", || (!large_objects(&objects).is_subset(&before)).then_some(()));
    let step = progress(&show(deployment, job));
    wait_until("a step after it", || {
        let job = show(deployment, job);
        assert_eq!(job["state"], "running", "the training was too short to be disturbed: {job}");
        (in_training(&job) && progress(&job) > step).then_some(())
    });
    before
}

/// How many batches of its epoch a checkpoint has completed. The file begins with the length of a JSON header.
fn batches_done(checkpoint: &Path) -> u64 {
    let mut file = File::open(checkpoint).expect("a checkpoint opens");
    let mut length = [0; 8];
    file.read_exact(&mut length).expect("a length");
    let header: Value = serde_json::from_reader(file.take(u64::from_le_bytes(length))).expect("a header");
    let state = header["__metadata__"]["sortinghat.checkpoint"].as_str().expect("a checkpoint's state");
    let (_, batch) = state.split_once("batch = ").expect("a position");
    batch.lines().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Follows the job, which must succeed, to its end and returns it.
fn ended(deployment: &Deployment, job: &str) -> Value {
    deployment.hat().ok(["jobs", "watch", job]);
    let job = show(deployment, job);
    assert_eq!(job["state"], "succeeded", "{job}");
    job
}

fn show(deployment: &Deployment, job: &str) -> Value {
    deployment.hat().json(["jobs", "show", job]).remove(0)
}

fn progress(job: &Value) -> u64 {
    job["progress"]["done"].as_u64().unwrap_or(0)
}

/// How each attempt ended, in order.
fn outcomes(job: &Value) -> Vec<String> {
    let attempts = job["attempts"].as_array().expect("attempts are listed").iter();
    attempts.map(|attempt| attempt["outcome"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The places from which attempts went on, in order.
fn places_of_resumption(deployment: &Deployment, job: &str) -> Vec<String> {
    let events = deployment.hat().json(["jobs", "logs", job]);
    let notices = events.iter().filter_map(|event| event["notice"]["message"].as_str());
    notices.filter(|message| message.starts_with("resumed from ")).map(str::to_owned).collect()
}

/// The losses of every epoch, which show where two trainings begin to differ, and the digest of the weights.
fn learned(deployment: &Deployment, job: &Value) -> Vec<String> {
    let name = job["output"]["name"].as_str().expect("a model has a name");
    let manifest = deployment.hat().json(["models", "show", name]).remove(0)["manifest"].take();
    let epochs = manifest["history"].as_array().expect("a model has a history").iter();
    let loss = |epoch: &Value, of: &str| epoch[of].as_f64().expect("an epoch has losses").to_string();
    let losses = epochs.map(|epoch| loss(epoch, "train_loss") + " " + &loss(epoch, "valid_loss"));
    let digest = manifest["weights"]["digest"].as_str().expect("a model has weights").to_owned();
    losses.chain([digest]).collect()
}

/// A stored object: its file, and which file that is. A checkpoint that an earlier attempt has stored, too, is stored again, as another file.
type Stored = (PathBuf, u64);

/// The checkpoints and models below a folder. A file that vanishes in the meantime was still being written.
fn large_objects(folder: &Path) -> BTreeSet<Stored> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let large = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => large_objects(&entry.path()),
        Ok(metadata) if metadata.len() >= LARGE_BYTES && !entry.file_name().to_string_lossy().contains('#') => {
            BTreeSet::from([(entry.path(), metadata.ino())])
        }
        _ => BTreeSet::new(),
    };
    entries.flat_map(large).collect()
}
