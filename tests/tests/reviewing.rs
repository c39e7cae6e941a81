//! Every option of a fine-tune, and a person's decisions about an evaluation, through `hat`.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sortinghat_tests::{Deployment, Hat, Options, photos};

/// Arguments for a small network with random weights, which trains within seconds on any machine.
const SMALL: [&str; 8] = ["--backbone", "resnet18", "--weights", "none", "--size", "32", "--batch-size", "16"];

#[test]
fn a_model_is_made_with_every_option_and_judged_with_a_persons_decisions() {
    let deployment = Deployment::start(Options { lease_ttl: "10s", ..Options::default() });
    let (hat, folder) = (deployment.hat(), deployment.folder());
    photos::write_classes(&folder.join("photos"), 20, 48);
    // Two blue photos in the red folder: labels that a review should find.
    for number in ["000", "001"] {
        fs::rename(
            folder.join(format!("photos/blue/{number}.png")),
            folder.join(format!("photos/red/wrong{number}.png")),
        )
        .expect("just written");
    }
    hat.ok(["ingest", "shapes", "photos", "--seed", "1"]);
    every_option_is_used_and_recorded(&hat);
    decisions_stand_beside_the_raw_accuracy(&hat, folder);
    another_folder_is_measured(&hat, folder);
}

fn every_option_is_used_and_recorded(hat: &Hat) {
    let options = ["--epochs", "2", "--find-lr", "--mixup", "0.4", "--label-smoothing", "0.1"];
    let crop = ["--crop", "random-resized", "--min-scale", "0.5"];
    let arguments = ["finetune", "shapes@1"].iter().chain(&SMALL).chain(&options).chain(&crop);
    let answer = hat.run(arguments);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stderr.contains("found: valley"), "{}", answer.stderr);
    let made = hat.json(["models", "show", "shapes/1"]).remove(0)["manifest"].clone();
    assert_eq!(made["mixing"], json!({ "mixup": { "alpha": 0.4 } }));
    assert_eq!(made["crop"], json!({ "random_resized": { "min_scale": 0.5 } }));
    assert_eq!((&made["label_smoothing"], &made["base_lr"]), (&json!(0.1), &made["rate_search"]["valley"]));
    let losses = made["rate_search"]["losses"].as_array().expect("a curve");
    assert!((20..=100).contains(&losses.len()), "{}", losses.len());
    let shown = hat.ok(["models", "show", "shapes/1"]);
    for words in ["MixUp 0.4", "label smoothing 0.1", "random crops of at least 0.5", "learning rate found (valley"] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    let plain = ["finetune", "shapes@1", "--epochs", "8", "--lr", "0.02", "--cutmix", "1"];
    hat.ok(plain.iter().chain(&SMALL));
    let made = hat.json(["models", "show", "shapes/2"]).remove(0)["manifest"].clone();
    assert_eq!((&made["mixing"], &made["rate_search"]), (&json!({ "cutmix": { "alpha": 1.0 } }), &Value::Null));
}

fn decisions_stand_beside_the_raw_accuracy(hat: &Hat, folder: &Path) {
    let found = evaluation(hat, &["shapes/2", "--report", "raw.html"]);
    let looked_at = found["mistakes"].as_array().expect("photos to look at");
    let of = |index: usize| looked_at[index]["digest"].clone();
    let label = found["classes"][looked_at[1]["label"].as_u64().expect("an index") as usize].clone();
    let other = found["classes"].as_array().expect("classes").iter().find(|class| **class != label).expect("three");
    let decisions = json!({ "format": "sortinghat.decisions/1", "decisions": [
        { "digest": of(0), "path": "0.png", "verdict": "exclude" },
        { "digest": of(1), "path": "1.png", "verdict": "relabel", "class": other },
        { "digest": of(2), "path": "2.png", "verdict": "keep" },
    ]});
    fs::write(folder.join("decisions.json"), decisions.to_string()).expect("the test's folder is writable");

    let words = hat.ok(["evaluate", "shapes/2", "--decisions", "decisions.json"]);
    for part in [
        "with your decisions:",
        "\nraw ",
        "\ncleaned ",
        "1 excluded, 1 relabelled, 1 kept",
        "  exclude  ",
        "  relabel  ",
    ] {
        assert!(words.contains(part), "{part:?} is not in\n{words}");
    }
    let cleaned = evaluation(hat, &["shapes/2", "--decisions", "decisions.json", "--report", "cleaned.html"]);
    assert_eq!(cleaned["plain"], found["plain"], "the raw accuracy stays");
    let photos = found["plain"]["photos"].as_u64().expect("a count");
    assert_eq!(cleaned["cleaned"]["score"]["photos"], json!(photos - 1));
    let page = fs::read_to_string(folder.join("cleaned.html")).expect("the report was saved");
    for photo in 0..3 {
        let begins = format!("{{\"digest\":{},\"path\":\"{photo}.png\",\"verdict\":", of(photo));
        assert!(page.contains(&begins), "a report begins with the decisions that its evaluation was given: {begins}");
    }

    let refused = |text: &str, code: i32, says: &str| {
        fs::write(folder.join("bad.json"), text).expect("the test's folder is writable");
        let answer = hat.run(["evaluate", "shapes/2", "--decisions", "bad.json"]);
        assert_eq!(answer.code, code, "{}", answer.stderr);
        assert!(answer.stderr.contains(says), "{says:?} is not in\n{}", answer.stderr);
    };
    refused("[]", 2, "the file that the report of `hat evaluate` saves");
    let unknown = decisions.to_string().replace(&other.to_string(), "\"violet\"");
    refused(&unknown, 1, "\"violet\", which is no class of the model");
}

/// A folder of new photos is out of sample, and its labels are reviewed. A folder that the model has learned from is not.
fn another_folder_is_measured(hat: &Hat, folder: &Path) {
    photos::write_classes(&folder.join("known"), 4, 48);
    let answer = hat.run(["evaluate", "shapes/2", "--on", "known"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stdout.contains("the 12 photos of the uploaded folder"), "{}", answer.stdout);
    assert!(answer.stderr.contains("the model has learned from"), "{}", answer.stderr);
    assert!(answer.stdout.contains("\nthe model has learned from"), "it is part of the result: {}", answer.stdout);
    assert_eq!(evaluation(hat, &["shapes/2", "--on", "known"])["doubts"], Value::Null);

    photos::write_classes(&folder.join("new"), 30, 40);
    for number in ["000", "001", "002"] {
        let (from, to) = (format!("new/blue/{number}.png"), format!("new/red/wrong{number}.png"));
        fs::rename(folder.join(from), folder.join(to)).expect("just written");
    }
    let found = evaluation(hat, &["shapes/2", "--on", "new"]);
    assert_eq!(found["plain"]["photos"], json!(90));
    let doubts = found["doubts"].as_array().expect("labels of new photos are reviewed");
    let wrong = doubts.iter().filter(|doubt| doubt["path"].as_str().is_some_and(|path| path.contains("wrong"))).count();
    assert!(wrong >= 2, "{doubts:?}");

    let answer = hat.run(["evaluate", "shapes/2", "--on", "./nowhere"]);
    assert_eq!((answer.code, answer.stderr.contains("there is no such folder")), (2, true), "{}", answer.stderr);
}

/// The result of `hat evaluate` in JSON.
fn evaluation(hat: &Hat, arguments: &[&str]) -> Value {
    let lines = hat.json(std::iter::once("evaluate").chain(arguments.iter().copied()));
    lines.last().expect("the last line is the result")["manifest"].clone()
}
