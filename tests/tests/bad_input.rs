//! Bad input through `hat` and the real binaries. Each kind has a clear message and an exit code, and stops nothing else.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use png::{BitDepth, ColorType};
use sortinghat_tests::{Answer, Deployment, Hat, Options, cache, odd_photos as odd, photos};

/// The exit codes of `hat`, which its help documents.
const JOB_FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;

#[test]
fn every_kind_of_bad_photo_has_a_clear_message() {
    let deployment = Deployment::start(Options::default());
    let (hat, folder) = (deployment.hat(), deployment.folder());
    set_aside_with_their_reasons(&hat, &folder.join("odd"));
    read_as_people_see_them(&hat, &folder.join("dressed"));
    copies_and_contradictions(&hat, &folder.join("copies"));
    names_that_lead_elsewhere(&hat, &folder.join("names"), folder);
    too_few_photos(&hat, folder);
    over_half_failed(&hat, &folder.join("broken"));
}

#[test]
fn every_bad_request_has_a_clear_message() {
    let deployment = Deployment::start(Options::default());
    let hat = deployment.hat();
    photos::write_classes(&deployment.folder().join("photos"), 8, 64);
    hat.ok(["ingest", "shapes", "photos"]);
    unknown_things(&hat);
    values_out_of_range(&hat);
    options_that_would_be_ignored(&hat);
    weights_that_cannot_be_had(&hat, deployment.folder());
    a_loss_that_diverges(&hat, deployment.folder());
}

/// Undecodable, truncated, empty, foreign and too large files are each named with the reason, and the good files beside them are used.
fn set_aside_with_their_reasons(hat: &Hat, folder: &Path) {
    photos::write_classes(folder, 8, 64);
    let whole = fs::read(folder.join("red/000.png")).expect("just written");
    let files: [(&str, Vec<u8>, &str); 10] = [
        ("page.jpg", b"<html>404 not found</html>".to_vec(), "not an image of any known format"),
        ("cut.png", whole[..whole.len() / 2].to_vec(), "cut off"),
        ("empty.png", Vec::new(), "the file is empty"),
        ("drawing.svg", odd::SVG.to_vec(), "rsvg-convert"),
        ("phone.heic", odd::HEIC.to_vec(), "heif-convert"),
        ("phone.jpg", odd::HEIC.to_vec(), "heif-convert"),
        ("album.zip", odd::ZIP.to_vec(), "unpack it"),
        ("bomb.png", odd::png_that_announces(60_000, 60_000), "60000 x 60000 pixels, more than the allowed"),
        ("strip.png", odd::png_that_announces(100_000, 1), "65535 on a side"),
        ("notes.txt", b"remember the milk".to_vec(), "not an image"),
    ];
    for (name, content, _) in &files {
        odd::write(&folder.join("red").join(name), content);
    }
    // The content of this file is a good PNG.
    fs::rename(folder.join("green/000.png"), folder.join("green/000.jpg")).expect("just written");
    let answer = ok(hat, &["ingest", "odd", "odd"]);
    assert!(answer.stdout.contains("dataset odd@1: 24 photos"), "{}", answer.stdout);
    says(&answer, "1 photo has the extension of another format");
    says(&answer, "2 files skipped: heic is not supported");
    let rejected = hat.ok(["datasets", "show", "odd@1", "--rejected"]);
    for (name, _, reason) in &files {
        let line = rejected.lines().find(|line| line.starts_with(&format!("red/{name}\t")));
        assert!(line.is_some_and(|line| line.contains(reason)), "{name}: {reason:?} is not in\n{rejected}");
    }
    assert_eq!(rejected.lines().count(), files.len(), "{rejected}");
}

/// EXIF orientation, alpha, palette, grey, 16 bits, CMYK and animations are photos like any other.
fn read_as_people_see_them(hat: &Hat, folder: &Path) {
    photos::write_classes(folder, 2, 64);
    let made = [
        ("alpha", ColorType::Rgba, BitDepth::Eight),
        ("palette", ColorType::Indexed, BitDepth::Eight),
        ("grey", ColorType::Grayscale, BitDepth::Eight),
        ("grey-alpha", ColorType::GrayscaleAlpha, BitDepth::Eight),
        ("sixteen", ColorType::Rgb, BitDepth::Sixteen),
    ];
    for (seed, (name, color, depth)) in (1..).zip(made) {
        odd::write(&folder.join(format!("red/{name}.png")), &odd::png(64, 48, color, depth, seed));
    }
    let collected = ["pil_sample_cmyk.jpg", "exif_imagemagick_orientation.png", "dispose_bgnd.gif", "anim_frame1.webp"];
    for name in collected {
        fs::copy(cache("pillow-images").join(name), folder.join("red").join(name)).expect("installed for tests");
    }
    let answer = ok(hat, &["ingest", "dressed", "dressed"]);
    let photos = 6 + made.len() + collected.len();
    assert!(answer.stdout.contains(&format!("dataset dressed@1: {photos} photos")), "{}", answer.stdout);
    assert!(answer.stdout.contains("every file was used"), "{}", answer.stdout);
}

/// The same photo twice, almost twice, and under two labels.
fn copies_and_contradictions(hat: &Hat, folder: &Path) {
    photos::write_classes(folder, 8, 64);
    let copy = |from: &str, to: &str| fs::copy(folder.join(from), folder.join(to)).expect("just written");
    copy("red/000.png", "red/again.png");
    copy("red/001.png", "green/the-same.png");
    let nearly = odd::one_level_off(&fs::read(folder.join("blue/000.png")).expect("just written"));
    odd::write(&folder.join("blue/nearly.png"), &nearly);
    let answer = ok(hat, &["ingest", "copies", "copies"]);
    for words in [
        "dataset copies@1: 24 photos",
        "1 group of near-duplicates, each kept on one side of the split",
        "red/again.png: the same file as red/000.png",
        "the same file lies in green and red; keep one of them",
    ] {
        assert!(answer.stdout.contains(words), "{words:?} is not in\n{}", answer.stdout);
    }
    says(&answer, "none of them is used until one is removed");
}

/// Links are not followed, and no name leads out of the folder.
fn names_that_lead_elsewhere(hat: &Hat, folder: &Path, outside: &Path) {
    photos::write_classes(folder, 2, 64);
    let secret = outside.join("secret.png");
    odd::write(&secret, &odd::png(64, 64, ColorType::Rgb, BitDepth::Eight, 99));
    symlink(&secret, folder.join("red/link.png")).expect("links are supported");
    symlink(outside, folder.join("elsewhere")).expect("links are supported");
    odd::write(&folder.join("red/up..\\..\\evil.png"), &odd::png(64, 64, ColorType::Rgb, BitDepth::Eight, 98));
    odd::write(&folder.join("red/$(touch evil) .png"), &odd::png(64, 64, ColorType::Rgb, BitDepth::Eight, 97));
    let before = entries(outside);
    let answer = ok(hat, &["ingest", "names", "names"]);
    assert!(answer.stdout.contains("dataset names@1: 8 photos in 3 classes"), "{}", answer.stdout);
    says(&answer, "left out 2 entries (a symbolic link that leads out of the folder): elsewhere/, red/link.png");
    assert_eq!(entries(outside), before, "nothing is written where a name points");
}

/// A class with too few photos, one class, no photo, no file, no folder.
fn too_few_photos(hat: &Hat, folder: &Path) {
    let lonely = folder.join("lonely");
    photos::write_classes(&lonely, 4, 64);
    (1..4).for_each(|n| fs::remove_file(lonely.join(format!("red/{n:03}.png"))).expect("just written"));
    refused(hat, &["ingest", "few", "lonely"], JOB_FAILED, "each class needs at least two usable photos: red has 1");

    photos::write_classes(&folder.join("single"), 4, 64);
    for class in ["red", "green"] {
        fs::remove_dir_all(folder.join("single").join(class)).expect("just written");
    }
    refused(hat, &["ingest", "few", "single"], JOB_FAILED, "at least two classes, found blue");

    odd::write(&folder.join("words/red/a.txt"), b"one");
    odd::write(&folder.join("words/green/b.txt"), b"two");
    refused(hat, &["ingest", "few", "words"], JOB_FAILED, "no usable photo among 2 files");
    fs::create_dir(folder.join("bare")).expect("the test's folder is writable");
    refused(hat, &["ingest", "few", "bare"], USAGE, "there are no files in bare");
    refused(hat, &["ingest", "few", "nowhere"], USAGE, "there is no folder nowhere");
    refused(hat, &["datasets", "show", "few"], NOT_FOUND, "few");
}

/// Too many broken photos stop an ingest, unless that is allowed; foreign formats do not count for it.
fn over_half_failed(hat: &Hat, folder: &Path) {
    photos::write_classes(folder, 4, 64);
    (0..30).for_each(|n| odd::write(&folder.join(format!("red/{n}.heic")), &[odd::HEIC, &[n]].concat()));
    ok(hat, &["ingest", "broken", "broken"]);
    (0..13)
        .for_each(|n| odd::write(&folder.join(format!("red/bad{n}.png")), &[b"\x89PNG\r\n\x1a\n", &[n][..]].concat()));
    let answer = refused(hat, &["ingest", "broken", "broken"], JOB_FAILED, "13 of 25 photos cannot be read or decoded");
    assert!(answer.stderr.contains("for example red/bad0.png") && answer.stderr.contains("--allow-failures"));
    let allowed = ok(hat, &["ingest", "broken", "broken", "--allow-failures"]);
    says(&allowed, "13 photos cannot be read or decoded and were set aside");
}

fn unknown_things(hat: &Hat) {
    refused(hat, &["finetune", "nowhere"], NOT_FOUND, "nowhere");
    refused(hat, &["finetune", "shapes@9"], NOT_FOUND, "shapes@9");
    refused(hat, &["finetune", "shapes/1"], USAGE, "hat ingest");
    refused(hat, &["evaluate", "shapes/1"], NOT_FOUND, "there is no model shapes");
    refused(hat, &["classify", "shapes@1", "photos/red/000.png"], USAGE, "hat finetune");
    refused(hat, &["jobs", "show", "00000000000000000000000000"], NOT_FOUND, "00000000000000000000000000");
    refused(hat, &["finetune", "shapes@1", "--backbone", "vgg16"], USAGE, "efficientnet_lite0");
    refused(hat, &["finetune", "shapes@1", "--momentum", "0.9"], USAGE, "--momentum");
    refused(hat, &["ingest", "Shapes!", "photos"], USAGE, "Shapes!");
}

fn values_out_of_range(hat: &Hat) {
    let cases: [(&str, &str, &str); 9] = [
        ("--epochs", "0", "1..=1000"),
        ("--batch-size", "1", "2..=4096"),
        ("--size", "16", "32..=1024"),
        ("--lr", "-1", "above 0 and at most 10"),
        ("--mixup", "0", "above 0 and at most 1"),
        ("--cutmix", "1.5", "above 0 and at most 1"),
        ("--label-smoothing", "1", "0 or more and below 1"),
        ("--crop", "stretch", "random-resized"),
        ("--min-scale", "NaN", "above 0 and at most 1"),
    ];
    for (option, value, allowed) in cases {
        let answer = refused(hat, &["finetune", "shapes@1", option, value], USAGE, option);
        assert!(answer.stderr.contains(allowed), "{option}: {allowed:?} is not in\n{}", answer.stderr);
    }
    refused(hat, &["ingest", "a", "photos", "--valid-percent", "60"], USAGE, "1..=50");
    refused(hat, &["finetune", "shapes@1", "--fold", "0", "--weights", "none"], JOB_FAILED, "has no folds");
}

fn options_that_would_be_ignored(hat: &Hat) {
    let cases: [(&[&str], &str); 6] = [
        (&["finetune", "shapes@1", "--min-scale", "0.5"], "--crop random-resized"),
        (&["finetune", "shapes@1", "--mixup", "0.4", "--cutmix", "1"], "--cutmix"),
        (&["finetune", "shapes@1", "--find-lr", "--lr", "0.01"], "--find-lr"),
        (&["evaluate", "shapes/1", "--passes", "4"], "--tta"),
        (&["ingest", "a", "photos", "--folds", "5", "--valid-percent", "20"], "--valid-percent"),
        (&["classify", "shapes/1", "photos", "--out", "predictions.xlsx"], ".parquet"),
    ];
    for (arguments, words) in cases {
        refused(hat, arguments, USAGE, words);
    }
}

/// A job whose weights are missing never uses random weights instead, but says what is missing and who can install it.
fn weights_that_cannot_be_had(hat: &Hat, folder: &Path) {
    let answer = refused(hat, &["finetune", "shapes@1", "--backbone", "resnet50"], JOB_FAILED, "resnet50");
    assert!(answer.stderr.contains("ask whoever runs the worker to install them"), "{}", answer.stderr);
    refused(hat, &["finetune", "shapes@1", "--weights", "hub:nobody/nothing"], JOB_FAILED, "nobody/nothing");
    refused(hat, &["finetune", "shapes@1", "--weights", "mine.safetensors"], USAGE, "there is no such file");
    odd::write(&folder.join("mine.pth"), b"\x80\x02pickle");
    refused(hat, &["finetune", "shapes@1", "--weights", "mine.pth"], USAGE, "only safetensors");
    odd::write(&folder.join("mine.safetensors"), &[0xff; 64]);
    refused(hat, &["finetune", "shapes@1", "--weights", "mine.safetensors"], JOB_FAILED, "safetensors");
}

/// Weights that are NaN give features and a loss that are NaN. The job fails at once, and names the weights or the step.
fn a_loss_that_diverges(hat: &Hat, folder: &Path) {
    odd::write(&folder.join("nan.safetensors"), &odd::resnet18_of_nan());
    let arguments = ["finetune", "shapes@1", "--backbone", "resnet18", "--size", "32", "--weights", "nan.safetensors"];
    refused(hat, &arguments, JOB_FAILED, "use other weights");
    let arguments = [arguments.as_slice(), &["--recipe", "fastai2"]].concat();
    let answer = refused(hat, &arguments, JOB_FAILED, "loss became NaN in the");
    assert!(answer.stderr.contains("step 0") && answer.stderr.contains("lower learning rate"), "{}", answer.stderr);
}

fn ok(hat: &Hat, arguments: &[&str]) -> Answer {
    let answer = hat.run(arguments);
    assert_eq!(answer.code, 0, "hat {arguments:?}\nstdout: {}\nstderr: {}", answer.stdout, answer.stderr);
    answer
}

/// Notices go to stderr while a job is followed.
fn says(answer: &Answer, words: &str) {
    assert!(answer.stderr.contains(words), "{words:?} is not in\n{}", answer.stderr);
}

/// Runs `hat`, which must fail with this exit code and these words on stderr.
fn refused(hat: &Hat, arguments: &[&str], code: i32, words: &str) -> Answer {
    let answer = hat.run(arguments);
    assert_eq!(answer.code, code, "hat {arguments:?}\nstdout: {}\nstderr: {}", answer.stdout, answer.stderr);
    assert!(answer.stderr.contains(words), "hat {arguments:?} does not mention {words:?}:\n{}", answer.stderr);
    answer
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the test's folder is readable");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}
