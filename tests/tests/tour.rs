//! The tour in the README, on real photos with real pretrained weights, but smaller: three classes, one epoch, 96 pixels.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sortinghat_tests::{Deployment, Hat, Options, cache};

const CLASSES: [&str; 3] = ["animals", "food", "vehicles"];

#[test]
fn the_tour_leads_from_a_folder_of_photos_to_predictions() {
    let weights_dir = Some(cache("weights"));
    let mut deployment = Deployment::start(Options { weights_dir, lease_ttl: "10s", ..Options::default() });
    let hat = deployment.hat();
    let photos = deployment.folder().join("photos");
    copy_stamps(&photos, 30);

    ingest(&hat, &photos);
    finetune(&hat);
    evaluate(&hat, deployment.folder());
    classify_one(&hat);
    classify_folder(&hat, deployment.folder());
    listings(&hat);

    assert!(deployment.terminate(sortinghat_tests::Victim::Worker), "the worker drains");
    assert!(deployment.terminate(sortinghat_tests::Victim::Coordinator), "the coordinator drains");
}

/// Copies the first `per_class` pictures of each class, and one file that is not a picture.
fn copy_stamps(into: &Path, per_class: usize) {
    for class in CLASSES {
        let mut pictures = pictures_below(&cache("photos/stamps").join(class));
        pictures.sort();
        let folder = into.join(class);
        fs::create_dir_all(&folder).expect("the test's folder is writable");
        for (number, picture) in pictures.iter().take(per_class).enumerate() {
            fs::copy(picture, folder.join(format!("{number:02}.png"))).expect("stamps are readable");
        }
    }
    fs::write(into.join("food/broken.jpg"), b"\xff\xd8\xff no more").expect("the test's folder is writable");
}

fn pictures_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}; run `make deps`", folder.display()));
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    paths.flat_map(|path| if path.is_dir() { pictures_below(&path) } else { vec![path] }).collect()
}

fn ingest(hat: &Hat, photos: &Path) {
    let answer = hat.run(["ingest".as_ref(), "stamps".as_ref(), photos.as_os_str()]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stdout.contains("stamps@1"), "{}", answer.stdout);
    assert!(answer.stdout.contains("broken.jpg"), "the quarantined file is named: {}", answer.stdout);
    let dataset = hat.json(["datasets", "show", "stamps@1"]).remove(0);
    let counts = &dataset["manifest"]["counts"];
    assert_eq!((&counts["inputs"], &counts["quarantined"]), (&91.into(), &1.into()), "{counts}");
    assert_eq!(dataset["manifest"]["classes"], serde_json::json!(CLASSES));
}

fn finetune(hat: &Hat) {
    let table = hat.ok(["finetune", "stamps@1", "--epochs", "1", "--size", "96", "--batch-size", "16"]);
    assert!(table.contains("trn_loss") && table.contains("val_loss"), "{table}");
    assert!(table.contains("stamps/1"), "{table}");
}

fn evaluate(hat: &Hat, folder: &Path) {
    let report = folder.join("report.html");
    let words = hat.ok(["evaluate", "stamps/1", "--tta", "--report", report.to_str().expect("UTF-8")]);
    assert!(words.contains("held-out photos of stamps@1") && words.contains("95%"), "{words}");
    let page = fs::read_to_string(report).expect("the report was saved");
    assert!(
        page.contains("</html>") && !page.contains("http://") && !page.contains("https://"),
        "it is self-contained"
    );
    let evaluation = hat.json(["evaluate", "stamps/1"]).pop().expect("the last line is the result");
    let plain = &evaluation["manifest"]["plain"];
    let (correct, photos) = (plain["correct"].as_u64().expect("a count"), plain["photos"].as_u64().expect("a count"));
    // Chance gives a third with three classes. Pretrained features give far more after one epoch.
    assert!(photos >= 15 && correct * 10 >= photos * 6, "{plain}");
}

fn classify_one(hat: &Hat) {
    let chelsea = cache("photos/scikit-image/chelsea.png");
    let words = hat.ok(["classify".as_ref(), "stamps/1".as_ref(), chelsea.as_os_str()]);
    assert!(words.starts_with("The most resembling class is animals with probability 0."), "{words}");
}

fn classify_folder(hat: &Hat, folder: &Path) {
    let photos = folder.join("photos");
    for format in ["csv", "jsonl", "parquet"] {
        let out = folder.join(format!("predictions.{format}"));
        let arguments =
            ["classify".as_ref(), "stamps/1".as_ref(), photos.as_os_str(), "--out".as_ref(), out.as_os_str()];
        hat.ok(arguments);
        assert!(fs::metadata(&out).expect("written").len() > 1000, "{format}");
    }
    let csv = fs::read_to_string(folder.join("predictions.csv")).expect("written");
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(rows.len(), 91, "one row or one error for each file");
    assert!(rows.is_sorted_by_key(|row| row.split(',').next()), "in the order of the upload");
    assert_eq!(fs::read_to_string(folder.join("predictions.jsonl")).expect("written").lines().count(), 91);
}

fn listings(hat: &Hat) {
    assert!(hat.ok(["datasets"]).contains("stamps@1"));
    assert!(hat.ok(["models"]).contains("stamps/1"));
    assert!(hat.ok(["workers"]).contains("cpu"));
    assert_eq!(hat.json(["jobs"]).len(), 8);
    hat.ok(["datasets", "rm", "stamps@1"]);
    assert_eq!(hat.run(["datasets", "show", "stamps@1"]).code, 3, "not found is exit code 3");
}
