//! What cannot be done is refused with what happened, which thing, and what to do next.

use std::{fs, path::Path};

use sortinghat_tests::{Answer, Deployment, Hat, Options, photos};

#[test]
fn every_bad_request_has_a_clear_answer() {
    let deployment = Deployment::start(Options::default());
    let hat = deployment.hat();
    let folder = deployment.folder().join("photos");
    photos::write_classes(&folder, 8, 64);
    hat.ok(["ingest".as_ref(), "shapes".as_ref(), folder.as_os_str()]);

    names_and_values(&hat);
    unusable_folders(&hat, deployment.folder());
    missing_weights(&hat);
    nothing_there(&hat, deployment.folder());
}

fn names_and_values(hat: &Hat) {
    refused(hat, &["finetune", "nowhere"], 3, "nowhere");
    refused(hat, &["finetune", "shapes/1"], 2, "hat ingest");
    refused(hat, &["classify", "shapes@1", "photos/red/000.png"], 2, "hat finetune");
    refused(hat, &["finetune", "shapes@1", "--backbone", "vgg16"], 2, "efficientnet_lite0");
    refused(hat, &["finetune", "shapes@1", "--epochs", "0"], 2, "epochs");
    refused(hat, &["finetune", "shapes@1", "--lr", "-1"], 2, "lr");
    refused(hat, &["finetune", "shapes@1", "--fold", "0", "--weights", "none"], 1, "fold");
    refused(hat, &["jobs", "show", "00000000000000000000000000"], 3, "00000000000000000000000000");
}

fn unusable_folders(hat: &Hat, folder: &Path) {
    let one_class = folder.join("one-class");
    photos::write_classes(&one_class, 4, 64);
    fs::remove_dir_all(one_class.join("red")).expect("just written");
    fs::remove_dir_all(one_class.join("green")).expect("just written");
    refused(hat, &["ingest", "one", "one-class"], 1, "class");

    let lonely = folder.join("lonely");
    photos::write_classes(&lonely, 4, 64);
    for number in 1..4 {
        fs::remove_file(lonely.join(format!("red/{number:03}.png"))).expect("just written");
    }
    refused(hat, &["ingest", "lonely", "lonely"], 1, "red");

    let broken = folder.join("broken");
    photos::write_classes(&broken, 4, 64);
    for number in 0..20 {
        fs::write(broken.join(format!("red/broken{number}.png")), b"\x89PNG\r\n\x1a\n and no more").expect("writable");
    }
    refused(hat, &["ingest", "broken", "broken"], 1, "--allow-failures");
    hat.ok(["ingest", "broken", "broken", "--allow-failures"]);
}

/// No hub answers on loopback-only machines and resnet50 is not in the folder of weights: the job says where it looked.
fn missing_weights(hat: &Hat) {
    refused(hat, &["finetune", "shapes@1", "--weights", "hub:nobody/nothing"], 1, "nobody/nothing");
}

fn nothing_there(hat: &Hat, folder: &Path) {
    refused(hat, &["ingest", "none", "does-not-exist"], 2, "does-not-exist");
    fs::create_dir_all(folder.join("empty")).expect("writable");
    refused(hat, &["ingest", "none", "empty"], 2, "empty");
}

/// Runs `hat`, which must fail with this exit code and say this on stderr.
fn refused(hat: &Hat, arguments: &[&str], code: i32, says: &str) -> Answer {
    let answer = hat.run(arguments);
    assert_eq!(answer.code, code, "hat {arguments:?}\nstdout: {}\nstderr: {}", answer.stdout, answer.stderr);
    assert!(answer.stderr.contains(says), "hat {arguments:?} does not mention {says:?}: {}", answer.stderr);
    answer
}
