//! Jobs that wait, the queue, and an empty server.

use crate::{coordinator::Coordinator, hat::Hat};

#[test]
fn an_empty_server_says_what_to_do_first() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    let transcript = hat.transcript(&[
        "jobs",
        "jobs --json",
        "jobs --quiet",
        "queue",
        "queue --json",
        "datasets",
        "datasets list --json",
        "models",
        "models list --json",
        "workers",
        "workers --json",
        "whoami",
        "whoami --json",
        "down",
        "jobs cancel --all",
    ]);
    hat.assert_snapshot("an_empty_server", &transcript);
}

#[test]
fn a_job_that_waits_is_listed_shown_and_explained() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    let submitted = hat.transcript(&[
        "ingest stamps photos --detach",
        "ingest stamps photos --detach --json --priority 3 --require device=cuda --lane interactive",
    ]);
    let id = hat.newest_job();
    let lines = [
        "jobs".to_owned(),
        "jobs --state queued --kind ingest -n 1".to_owned(),
        "jobs list --state failed".to_owned(),
        format!("jobs show {id}"),
        format!("jobs show {id} --json"),
        format!("jobs why {id}"),
        format!("jobs why {id} --json"),
        format!("jobs logs {id}"),
        format!("jobs logs {id} --json"),
        "jobs show 0".to_owned(),
        "jobs show zzz".to_owned(),
        "queue".to_owned(),
    ];
    let shown = hat.transcript(&lines.each_ref().map(String::as_str));
    hat.assert_snapshot("a_job_that_waits", &(submitted + "\n" + &shown));
}

#[test]
fn a_paused_queue_says_so_until_it_is_resumed() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    hat.run("ingest stamps photos --detach");
    let why = format!("jobs why {}", hat.newest_job());
    let lines =
        ["queue pause", "queue pause --json", "queue", &why, "queue resume", "queue resume --json", "queue show"];
    hat.assert_snapshot("a_paused_queue", &hat.transcript(&lines));
}

#[test]
fn jobs_are_cancelled_by_id_or_all_at_once_and_can_be_retried() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    for _ in 0..3 {
        hat.run("ingest stamps photos --detach");
    }
    let id = hat.newest_job();
    let lines = [
        format!("jobs retry {id}"),
        format!("jobs cancel {id} zzz"),
        format!("jobs cancel {id}"),
        format!("jobs cancel {id} --json"),
        format!("jobs watch {id}"),
        format!("jobs watch {id} --json"),
        format!("jobs watch {id} --out p.csv"),
        format!("jobs retry {id} --detach"),
        "jobs cancel --all".to_owned(),
        "jobs cancel --all --json".to_owned(),
        "jobs cancel --all --kind ingest --state queued --yes".to_owned(),
        "jobs cancel --all --kind classify --yes --json".to_owned(),
    ];
    hat.assert_snapshot("cancelled_jobs", &hat.transcript(&lines.each_ref().map(String::as_str)));
}

#[test]
fn jobs_are_found_by_their_labels_and_removed_with_what_they_have_made() {
    let (_coordinator, hat) = Coordinator::with_model();
    hat.write("me.jpg", b"me");
    let classify = "classify stamps/1 me.jpg --label user=42 --label app=shop --keep-for 7days";
    assert!(hat.run(classify).status.success());
    assert!(hat.run("classify stamps/1 me.jpg --label user=43 --keep").status.success());
    let kept = hat.newest_job();
    assert!(hat.run("ingest stamps photos --detach --not-before 1day").status.success());
    let waiting = hat.newest_job();
    let found = hat.run("jobs --label user=42 --json");
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("one job");
    let id = found["id"].as_str().expect("a job has an id");
    let lines = [
        "jobs --label user=42 --label app=shop".to_owned(),
        "jobs --label user=42 --label app=other".to_owned(),
        "jobs --label user".to_owned(),
        "jobs --label user=42 --before 1day".to_owned(),
        format!("jobs show {id}"),
        format!("jobs show {kept}"),
        format!("jobs predictions {id}"),
        format!("jobs predictions {id} --format csv --class-columns"),
        format!("jobs predictions {waiting}"),
        format!("jobs rm {id} {waiting}"),
        format!("jobs rm {id} --erase"),
        format!("jobs rm {id}"),
        format!("jobs rm {kept} --json --quiet"),
        "jobs --label user=42".to_owned(),
        "models show stamps/1".to_owned(),
    ];
    hat.assert_snapshot("labelled_jobs", &hat.transcript(&lines.each_ref().map(String::as_str)));
}
