//! Folders as people have them, through `hat` and the real binaries: what is read how, what is left out, and what is said of it.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use sortinghat_tests::{Deployment, Hat, Options, binary, odd_photos as odd, photos};

/// The exit code of a command line that cannot be used.
const USAGE: i32 = 2;
/// The user of whom a system knows nothing.
const NOBODY: u32 = 65534;

#[test]
fn folders_are_read_as_people_mean_them_and_what_is_left_out_is_said() {
    let deployment = Deployment::start(Options::default());
    let (hat, folder) = (deployment.hat(), deployment.folder());
    classes_vanish(&hat, &folder.join("vanish"));
    near_duplicates_across_a_given_split(&hat, &folder.join("leak"));
    litter_of_a_network_storage(&hat, &folder.join("nas"));
    splits_beside_other_folders(&hat, &folder.join("splits"));
    two_readings(&hat, &folder.join("flat"));
    one_name_in_two_unicode_forms(&hat, &folder.join("twins"));
    links(&hat, &folder.join("links"), &folder.join("elsewhere"));
}

#[test]
fn one_file_that_cannot_be_read_costs_only_itself() {
    let deployment = Deployment::start(Options::default());
    let (hat, folder) = (deployment.hat(), deployment.folder());
    let photos = folder.join("photos");
    write_classes(&photos);
    hat.ok(["ingest", "whole", "photos"]);
    hat.ok(["finetune", "whole", "--weights", "none", "--size", "32", "--epochs", "1", "--batch-size", "4"]);

    let locked = photos.join("red/001.png");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("ours");
    symlink("gone.png", photos.join("red/lost.png")).expect("links are supported");
    // Whoever may read everything runs hat as somebody who may not.
    let user = fs::read(&locked).is_ok().then_some(NOBODY);
    let (code, stdout, stderr) = run_as(user, &deployment, &["ingest", "torn", "photos"]);
    assert_eq!(code, 0, "{stderr}");
    for words in ["dataset torn@1: 23 photos in 3 classes", "red/001.png: the file cannot be read: permission denied"] {
        assert!(stdout.contains(words), "{words:?} is not in\n{stdout}");
    }
    assert!(stdout.contains("red/lost.png: the file is gone, or it is a link that leads nowhere"), "{stdout}");

    let (code, stdout, stderr) = run_as(user, &deployment, &["classify", "whole/1", "photos/red"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("001.png") && stdout.contains("permission denied"), "{stdout}");
    assert!(stdout.contains("lost.png") && stdout.contains("the file is gone"), "{stdout}");

    let absolute = photos.join("red/000.png").display().to_string();
    let by_four_ways =
        ["photos/red/000.png", "photos/../photos/red/000.png", "./photos/red/000.png", absolute.as_str()];
    let rows = hat.json(["classify", "whole/1"].into_iter().chain(by_four_ways));
    let predictions = rows.iter().filter(|row| row["type"] == "prediction");
    let named: Vec<&str> = predictions.filter_map(|row| row["path"].as_str()).collect();
    assert_eq!(named, by_four_ways);
    assert!(named.iter().all(|path| folder.join(path).is_file()), "each is found by its path: {named:?}");
}

/// Classes of HEIC only, without a file, and outside of the folder are named, also to those who want to hear little.
fn classes_vanish(hat: &Hat, folder: &Path) {
    write_classes(folder);
    (0..3).for_each(|n| odd::write(&folder.join(format!("birds/IMG_{n}.HEIC")), &[odd::HEIC, &[n]].concat()));
    fs::create_dir(folder.join("fish")).expect("writable");
    let elsewhere = folder.with_file_name("vanish-elsewhere");
    odd::write(&elsewhere.join("0.png"), b"a photo of another place");
    symlink(&elsewhere, folder.join("linked")).expect("links are supported");

    let told = hat.run(["ingest", "vanish", "vanish", "-q"]);
    let shown = hat.ok(["datasets", "show", "vanish"]);
    for (said, what) in [(&told.stderr, "the ingest"), (&shown, "datasets show")] {
        for part in [
            "birds (3 entries: in a format that is not supported)",
            "fish (1 entry: an empty folder)",
            "linked (1 entry: a symbolic link that leads out of the folder)",
        ] {
            assert!(said.contains(part), "{what}: {part:?} is not in\n{said}");
        }
    }
    assert!(!told.stdout.contains("every file was used"), "{}", told.stdout);
    fs::remove_dir_all(folder.join("birds")).expect("just written");
    let told = hat.ok(["ingest", "vanish", "vanish", "-q"]);
    assert!(!told.contains("every file was used"), "{told}");
}

fn near_duplicates_across_a_given_split(hat: &Hat, folder: &Path) {
    write_splits(folder, "valid");
    for n in 2..4 {
        let learned = fs::read(folder.join(format!("train/red/{n:03}.png"))).expect("just written");
        odd::write(&folder.join(format!("valid/red/copy{n}.png")), &odd::one_level_off(&learned));
    }
    hat.ok(["ingest", "leak", "leak", "-q"]);
    let shown = hat.ok(["datasets", "show", "leak"]);
    let says = "warning: 2 held-out photos are near-duplicates of photos to learn from, such as valid/red/copy2.png of";
    assert!(shown.contains(says), "{shown}");
    assert!(shown.contains("2 groups of near-duplicates, 2 of them on both sides of the split"), "{shown}");
    assert!(!shown.contains("each kept on one side"), "{shown}");
}

/// The thumbnails of a network storage look like photos.
fn litter_of_a_network_storage(hat: &Hat, folder: &Path) {
    write_classes(folder);
    let photo = fs::read(folder.join("red/000.png")).expect("just written");
    odd::write(&folder.join("red/@eaDir/000.png/SYNOPHOTO_THUMB_M.png"), &odd::one_level_off(&photo));
    odd::write(&folder.join("#recycle/old.png"), &photo);
    odd::write(&folder.join("green/Thumbs.db"), b"thumbs");
    let told = hat.run(["ingest", "nas", "nas"]);
    assert!(told.stdout.contains("dataset nas@1: 24 photos in 3 classes"), "{}", told.stdout);
    assert!(told.stderr.contains("left out 3 entries (thumbnails"), "{}", told.stderr);
    assert!(hat.ok(["datasets", "show", "nas"]).contains("#recycle/"), "the manifest keeps it");
}

fn splits_beside_other_folders(hat: &Hat, folder: &Path) {
    for (number, held_out) in (1..).zip(["valid", "Validation", "test"]) {
        let _ = fs::remove_dir_all(folder);
        write_splits(folder, held_out);
        odd::write(&folder.join("docs/labels.csv"), b"a,b");
        let told = hat.run(["ingest", "splits", "splits"]);
        let expected = format!("dataset splits@{number}: 24 photos in 3 classes, 6 held out");
        assert!(told.stdout.contains(&expected), "{held_out}: {}\n{}", told.stdout, told.stderr);
        assert!(told.stderr.contains("docs/"), "{}", told.stderr);
    }
    for class in photos::CLASSES {
        fs::create_dir_all(folder.join("val").join(class)).expect("writable");
        let photo = |side: &str| folder.join(side).join(class).join("000.png");
        fs::rename(photo("test"), photo("val")).expect("just written");
    }
    let told = hat.run(["ingest", "splits", "splits", "-q"]);
    assert!(told.stdout.contains("21 photos in 3 classes, 3 held out"), "{}", told.stdout);
    assert!(
        told.stderr.contains("the 3 files in test/ are not in the dataset, because val/ is held out"),
        "{}",
        told.stderr
    );
}

/// Folders that are called like splits and hold no class folders.
fn two_readings(hat: &Hat, folder: &Path) {
    write_classes(folder);
    fs::rename(folder.join("red"), folder.join("train")).expect("just written");
    fs::rename(folder.join("green"), folder.join("test")).expect("just written");
    let refused = hat.run(["ingest", "flat", "flat"]);
    assert_eq!(refused.code, USAGE, "{}", refused.stderr);
    for part in ["as splits, with train/", "3 classes: blue, test, train", "--layout classes or --layout splits"] {
        assert!(refused.stderr.contains(part), "{part:?} is not in\n{}", refused.stderr);
    }
    let made = hat.ok(["ingest", "flat", "flat", "--layout", "classes"]);
    assert!(made.contains("24 photos in 3 classes"), "{made}");
    let refused = hat.run(["ingest", "flat", "leak", "--folds", "3"]);
    assert!(refused.code == USAGE && refused.stderr.contains("--folds would be ignored"), "{}", refused.stderr);
}

fn one_name_in_two_unicode_forms(hat: &Hat, folder: &Path) {
    write_splits(folder, "valid");
    fs::rename(folder.join("train/red"), folder.join("train/caf\u{e9}")).expect("just written");
    fs::rename(folder.join("valid/red"), folder.join("valid/cafe\u{301}")).expect("just written");
    let made = hat.ok(["ingest", "twins", "twins"]);
    assert!(made.contains("24 photos in 3 classes") && made.contains("caf\u{e9}"), "{made}");
}

/// Links inside the folder are followed, and outside if that is asked for.
fn links(hat: &Hat, folder: &Path, elsewhere: &Path) {
    write_classes(folder);
    fs::rename(folder.join("red"), elsewhere).expect("just written");
    symlink(elsewhere, folder.join("red")).expect("links are supported");
    fs::rename(folder.join("blue/000.png"), folder.join("green/blue.png")).expect("just written");
    symlink("../green/blue.png", folder.join("blue/000.png")).expect("links are supported");
    let told = hat.run(["ingest", "links", "links", "-q"]);
    assert!(told.stdout.contains("in 2 classes"), "{}", told.stdout);
    assert!(told.stderr.contains("red/; --follow-links follows such links"), "{}", told.stderr);
    assert!(told.stdout.contains("2 under two labels"), "the link in blue/ and its target in green/: {}", told.stdout);
    let followed = hat.ok(["ingest", "links", "links", "--follow-links"]);
    assert!(followed.contains("in 3 classes"), "{followed}");
}

/// Eight photos each of three classes.
fn write_classes(folder: &Path) {
    photos::write_classes(folder, 8, 64);
}

/// Eight photos each of three classes, of which two are in the folder `held_out` and the others in `train`.
fn write_splits(folder: &Path, held_out: &str) {
    write_classes(folder);
    for class in photos::CLASSES {
        for (side, numbers) in [(held_out, 0..2), ("train", 2..8)] {
            fs::create_dir_all(folder.join(side).join(class)).expect("writable");
            for n in numbers {
                let name = format!("{class}/{n:03}.png");
                fs::rename(folder.join(&name), folder.join(side).join(&name)).expect("just written");
            }
        }
        fs::remove_dir(folder.join(class)).expect("it is empty");
    }
}

/// Runs `hat` in the deployment's folder as this user.
fn run_as(user: Option<u32>, deployment: &Deployment, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary("hat"));
    command
        .args(["--server", &format!("http://{}", deployment.address())])
        .args(arguments)
        .current_dir(deployment.folder())
        .env("NO_COLOR", "1");
    if let Some(user) = user {
        fs::set_permissions(deployment.folder(), fs::Permissions::from_mode(0o755)).expect("ours");
        command.uid(user);
    }
    let output = command.output().expect("hat starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
