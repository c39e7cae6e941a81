//! Names of datasets, models and jobs: short ids, the newest job, completion, and what is said of a name that does not exist.

use std::time::Duration;

use tokio::time::Instant;

use crate::{coordinator::Coordinator, hat::Hat};

/// The standard output and standard error of a command that may fail.
fn both(hat: &Hat, line: &str) -> (String, String) {
    let output = hat.run(line);
    (String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn tables_name_jobs_by_the_ends_of_their_ids_and_every_command_takes_these() {
    let coordinator = Coordinator::start();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    for _ in 0..3 {
        hat.run("ingest stamps photos --detach");
    }
    let (table, _) = both(&hat, "jobs");
    let short: Vec<&str> = table.lines().skip(1).filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(short.len(), 3, "{table}");
    for id in &short {
        let (shown, _) = both(&hat, &format!("jobs show {id}"));
        let whole = shown.lines().next().expect("the first line has the id");
        assert!(whole.ends_with(id) && whole.len() > 26, "{id}: {shown}");
        assert!(both(&hat, &format!("jobs why {}", id.to_uppercase())).0.contains(id));
    }
    assert!(both(&hat, &format!("jobs cancel {}", short[0])).0.ends_with("is cancelled\n"));
    assert!(!both(&hat, &format!("jobs retry {} --detach", short[0])).0.is_empty());
}

#[test]
fn without_an_id_the_newest_job_is_meant_and_named() {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    let nothing = hat.transcript(&["jobs why", "jobs watch --json"]);
    hat.run("ingest older photos");
    hat.run("ingest stamps photos");
    let newest = hat.transcript(&["jobs why", "jobs watch", "jobs logs", "jobs logs --quiet", "jobs show"]);
    hat.assert_snapshot("the_newest_job", &(nothing + "\n" + &newest));
}

#[test]
fn a_name_that_does_not_exist_is_answered_with_one_that_is_like_it() {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    hat.run("ingest stamps photos --quiet");
    hat.run("finetune stamps --quiet");
    let transcript = hat.transcript(&[
        "datasets show stmaps",
        "datasets rm stamps@2",
        "finetune stamp",
        "models show stamp/1",
        "classify stmaps photos/red/1.png",
        "evaluate stamps --on stamps@7",
        "datasets show cars",
        "datasets show stmaps --quiet",
        "datasets show stmaps --json",
        "dataset",
    ]);
    hat.assert_snapshot("similar_names", &transcript);
    let id = hat.newest_job();
    let (right, last) = id.split_at(25);
    let wrong = if last == "0" { "1" } else { "0" };
    let (_, said) = both(&hat, &format!("jobs why {}{wrong}", &right[20..]));
    assert!(said.contains(&format!("did you mean {} (finetune of stamps@1)?", &id[20..])), "{said}");
}

#[test]
fn a_shell_completes_the_names_of_datasets_models_and_jobs() {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    hat.run("ingest stamps photos --quiet");
    hat.run("finetune stamps --quiet");
    let job = hat.newest_job();
    assert_eq!(hat.completed("hat finetune st"), ["stamps\tthe newest: stamps@1", "stamps@1\t4 photos in 2 classes"]);
    assert_eq!(hat.completed("hat classify stamps/"), ["stamps/1\t75.0% of 2"]);
    let jobs = hat.completed("hat jobs why ");
    assert!(jobs.contains(&format!("{}\tfinetune of stamps@1", &job[20..])), "{jobs:?}");
    assert!(hat.completed(&format!("hat jobs why {}", &job[..12])).contains(&format!("{job}\tfinetune of stamps@1")));
    let on = hat.completed("hat evaluate stamps/1 --on ");
    assert!(
        on.iter().any(|one| one.starts_with("stamps@1")) && on.iter().any(|one| one.starts_with("photos/")),
        "{on:?}"
    );
    // The server of the line counts, as it does when the line is run.
    let nobody = Hat::at("http://127.0.0.1:1");
    assert_eq!(nobody.completed(&format!("hat --server {} classify st", coordinator.url)).len(), 2);
}

#[test]
fn completion_is_silent_and_quick_if_no_server_answers() {
    // Nobody answers at this address, which is reserved for documentation, and nothing refuses the connection either.
    for url in ["http://127.0.0.1:1", "http://192.0.2.1:7878"] {
        let hat = Hat::at(url);
        let since = Instant::now();
        assert!(hat.completed("hat finetune st").is_empty(), "{url}");
        assert!(since.elapsed() < Duration::from_secs(5), "{url}: {:?}", since.elapsed());
    }
    assert!(Hat::at("http://127.0.0.1:1").completed("hat fine").iter().any(|one| one.starts_with("finetune")));
}
