//! What jobs have made.

use crate::{
    coordinator::Coordinator,
    hat::Hat,
    worker::{FAILING, MEASURED},
};

/// A server with a worker, and photos to work on.
fn deployment() -> (Coordinator, Hat) {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let hat = Hat::at(&coordinator.url);
    hat.write_photos();
    (coordinator, hat)
}

/// The same with the model stamps/1.
fn deployment_with_a_model() -> (Coordinator, Hat) {
    let (coordinator, hat) = deployment();
    for line in ["ingest stamps photos", "finetune stamps"] {
        let output = hat.run(line);
        assert!(output.status.success(), "hat {line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    (coordinator, hat)
}

#[test]
fn an_ingest_ends_with_the_dataset_and_the_files_that_were_not_used() {
    let (_coordinator, hat) = deployment();
    let transcript = hat.transcript(&[
        "ingest stamps photos",
        "ingest stamps photos --valid-percent 50 --json",
        "workers",
        "workers --json",
        "datasets",
        "datasets --json",
        "datasets show stamps",
        "datasets show stamps@1 --json",
        "datasets show stamps@1 --rejected",
        "datasets show stamps@1 --rejected --json",
        "datasets rm stamps",
        "datasets rm stamps@1",
        "datasets rm stamps@2 --json",
        "datasets rm stamps@2",
        "datasets show Stamps!",
    ]);
    hat.assert_snapshot("ingest", &transcript);
}

#[test]
fn an_audit_ends_with_the_labels_that_look_wrong_and_a_page_to_decide_about_them() {
    let (_coordinator, hat) = deployment();
    hat.run("ingest stamps photos");
    let audited = hat.transcript(&[
        "audit stamps",
        "audit stamps@1 --report labels.html",
        "audit stamps@1 --report labels.html",
        "audit stamps@1 --report labels.pdf",
        "audit stamps/1",
        "audit stamps --detach --force",
        "audit nothing --json",
    ]);
    let id = hat.newest_job();
    let watch = format!("jobs watch {id} --out labels.csv");
    let saved = hat.transcript(&[watch.as_str(), "jobs --kind audit"]);
    hat.assert_snapshot("audit", &(audited + "\n" + &saved));
    let labels = std::fs::read_to_string(hat.path().join("labels.csv")).expect("it was saved");
    assert!(labels.contains("'=red/2.png"), "no spreadsheet runs a cell: {labels}");
}

#[test]
fn a_gathering_ends_with_the_dataset_and_the_counts_of_each_step() {
    let (_coordinator, hat) = deployment();
    hat.write("urls.csv", b"class,url,author\nred,https://example.org/1.png,Ann\ngreen,http://example.org/2.png,\n");
    hat.write("no-urls.csv", b"path,label\na.png,red\n");
    let transcript = hat.transcript(&[
        "gather web red green=grass --per-class 3 --provider commons --licence by --dry-run",
        "gather web red green=grass --dry-run --json",
        "gather web --urls urls.csv --dry-run",
        "gather web --urls urls.csv --dry-run --json",
        "gather web --urls no-urls.csv",
        "gather web red red=crimson",
        "gather web red green --per-class 3",
        "gather web --urls urls.csv --json",
        "datasets show web",
        "datasets show web@1 --sources",
        "datasets show web@1 --sources --json",
        "jobs show --json",
    ]);
    hat.assert_snapshot("gather", &transcript);
}

#[test]
fn a_fine_tune_ends_with_the_table_of_its_training_and_one_line() {
    let (_coordinator, hat) = deployment();
    hat.run("ingest stamps photos");
    let trained = hat.transcript(&["finetune stamps", "finetune stamps@1 --name others --json"]);
    let id = hat.newest_job();
    let lines = [
        format!("jobs show {id}"),
        format!("jobs why {id}"),
        format!("jobs logs {id} --follow"),
        format!("jobs watch {id} --quiet"),
        format!("jobs watch {id} --out report.html"),
        "jobs".to_owned(),
        "models".to_owned(),
        "models --json".to_owned(),
        "models show stamps".to_owned(),
        "models show stamps/1 --json".to_owned(),
        "models rm others/1".to_owned(),
        "models rm stamps/1 --json".to_owned(),
        "models rm stamps/1 --json".to_owned(),
    ];
    let shown = hat.transcript(&lines.each_ref().map(String::as_str));
    hat.assert_snapshot("finetune", &(trained + "\n" + &shown));
}

#[test]
fn an_evaluation_ends_with_the_scores_and_saves_its_report() {
    let (_coordinator, hat) = deployment_with_a_model();
    let transcript = hat.transcript(&[
        "evaluate stamps",
        "evaluate stamps/1 --tta --report with-tta.html --on stamps@1",
        "evaluate stamps/1 --json --on photos",
        "evaluate stamps/1 --on ./nowhere",
        "evaluate stamps/1 --decisions nowhere.json",
        "evaluate stamps/7",
    ]);
    hat.assert_snapshot("evaluate", &transcript);
    hat.run("evaluate stamps/1");
    for report in ["stamps-report.html", "with-tta.html", "stamps-1-report.html", "stamps-1-report-2.html"] {
        let saved = std::fs::read_to_string(hat.path().join(report)).expect(report);
        assert_eq!(saved, "<html>a report</html>", "{report}");
    }
}

#[test]
fn a_classification_answers_for_one_photo_and_lists_or_saves_several() {
    let (_coordinator, hat) = deployment_with_a_model();
    hat.write("me.jpg", b"me");
    hat.write("phone.heic", b"phone");
    hat.write("holiday/1.jpg", b"one");
    hat.write("holiday/.hidden", b"hidden");
    hat.write("holiday/2.heic", b"two");
    hat.write("heic/1.heic", b"one");
    hat.write("heic/2.heic", b"two");
    hat.write("bare/.hidden", b"hidden");
    let transcript = hat.transcript(&[
        "classify stamps/1 me.jpg",
        "classify stamps/1 me.jpg --json",
        "classify stamps/1 phone.heic",
        "classify stamps/1 phone.heic --json",
        "classify stamps/1 holiday",
        "classify stamps/1 holiday me.jpg --json",
        "classify stamps/1 holiday --out predictions.csv",
        "classify stamps/1 holiday --out predictions.jsonl --json",
        "classify stamps/1 holiday --out predictions.xlsx",
        "classify stamps me.jpg --quiet",
        "classify stamps/1 holiday --quiet",
        "classify stamps/1 heic",
        "classify stamps/1 heic --out heic.csv",
        "classify stamps/1 me.jpg me.jpg",
        "classify stamps/1 me.jpg holiday/../me.jpg",
        "classify stamps/1 nowhere.jpg",
        "classify stamps/1 me.jpg nowhere",
        "classify stamps/1 bare",
    ]);
    hat.assert_snapshot("classify", &transcript);
    assert!(!hat.path().join("heic.csv").exists(), "a file without a prediction is not written");
    let saved = |name: &str| std::fs::read_to_string(hat.path().join(name)).expect(name);
    hat.assert_snapshot("predictions.csv", &saved("predictions.csv"));
    hat.assert_snapshot("predictions.jsonl", &saved("predictions.jsonl"));
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_there_is_a_job() {
    let (_coordinator, hat) = deployment_with_a_model();
    hat.write("mine.csv", b"mine");
    hat.write("mine.html", b"mine");
    let newest = hat.newest_job();
    let transcript = hat.transcript(&[
        "classify stamps/1 photos --out nowhere/p.csv",
        "classify stamps/1 photos --out mine.csv",
        "classify stamps/1 photos --force",
        "evaluate stamps/1 --report nowhere/r.html",
        "evaluate stamps/1 --report mine.html --json",
        "evaluate stamps/1 --report r.csv",
        "evaluate stamps/1 --report photos",
    ]);
    hat.assert_snapshot("files_that_cannot_be_written", &transcript);
    assert_eq!(hat.newest_job(), newest, "nothing was submitted");
    let read = |name: &str| std::fs::read_to_string(hat.path().join(name)).expect(name);
    assert_eq!(read("mine.csv"), "mine");
    assert!(hat.run("classify stamps/1 photos --out mine.csv --force").status.success());
    assert!(read("mine.csv").starts_with("path,digest,predicted"));
}

#[test]
fn an_evaluation_saves_its_report_or_its_predictions_by_the_ending_of_the_name() {
    let (_coordinator, hat) = deployment_with_a_model();
    assert!(hat.run("evaluate stamps/1").status.success());
    let id = hat.newest_job();
    let watch = |name: &str| hat.run(&format!("jobs watch {id} --out {name}"));
    let read = |name: &str| std::fs::read_to_string(hat.path().join(name)).expect(name);
    assert!(watch("x.csv").status.success() && watch("x.html").status.success());
    assert_eq!((read("x.csv").as_str(), read("x.html").as_str()), (MEASURED, "<html>a report</html>"));
    for name in ["x.parquet", "x.jsonl", "x", "x.csv"] {
        assert_eq!(watch(name).status.code(), Some(2), "{name}");
    }
}

#[test]
fn a_photo_that_was_left_out_is_told_even_if_no_hints_are_wanted_and_to_programs_as_an_object() {
    let (_coordinator, hat) = deployment_with_a_model();
    hat.write("elsewhere/1.jpg", b"one");
    hat.write("holiday/2.jpg", b"two");
    let (target, link) = (hat.path().join("elsewhere/1.jpg"), hat.path().join("holiday/\u{202e}1.jpg"));
    std::os::unix::fs::symlink(target, link).expect("links are supported");
    let said = |line: &str| String::from_utf8(hat.run(line).stderr).expect("text");
    let told = said("classify stamps/1 holiday --quiet");
    assert!(told.starts_with("warning: ") && told.contains("--follow-links"), "{told}");
    let told = said("classify stamps/1 holiday --json");
    assert!(told.is_ascii(), "no character turns the direction of writing: {told}");
    let told: serde_json::Value = serde_json::from_str(&told).expect("one object");
    assert!(told["warning"]["message"].as_str().is_some_and(|text| text.contains("\u{202e}1.jpg")), "{told}");
}

#[test]
fn a_photo_whose_path_is_too_long_behind_the_name_of_its_folder_is_left_out_and_told() {
    let (_coordinator, hat) = deployment_with_a_model();
    hat.write("me.jpg", b"me");
    hat.write("holiday/1.jpg", b"one");
    let folder = "./".repeat(510) + "holiday";
    let output = hat.run(&format!("classify stamps/1 me.jpg {folder}"));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success() && said.contains("warning: ") && said.contains("holiday/1.jpg"), "{said}");
    let listed = String::from_utf8(output.stdout).expect("text");
    assert!(listed.starts_with("The most resembling class is "), "one photo is left: {listed}");
}

#[test]
fn a_dataset_with_folds_says_how_to_train_and_nothing_of_held_out_photos() {
    let (_coordinator, hat) = deployment();
    hat.assert_snapshot("folds", &hat.transcript(&["ingest stamps photos --folds 5", "datasets show stamps"]));
}

#[test]
fn a_job_that_fails_says_why_and_the_exit_code_tells_it_apart() {
    let (_coordinator, hat) = deployment();
    let failed = hat.transcript(&[&format!("ingest {FAILING} photos"), &format!("ingest {FAILING} photos --json")]);
    let id = hat.newest_job();
    let lines = [
        format!("jobs show {id}"),
        format!("jobs why {id} --json"),
        format!("jobs logs {id}"),
        format!("jobs cancel {id}"),
        format!("jobs retry {id}"),
        "finetune few".to_owned(),
    ];
    let shown = hat.transcript(&lines.each_ref().map(String::as_str));
    hat.assert_snapshot("a_failed_job", &(failed + "\n" + &shown));
}
