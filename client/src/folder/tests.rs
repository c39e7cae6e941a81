use std::os::unix::{ffi::OsStrExt as _, fs::symlink};

use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(root: &Path, path: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below root")).expect("writable");
    fs::write(path, b"x").expect("writable");
}

fn link(target: impl AsRef<Path>, root: &Path, path: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below root")).expect("writable");
    symlink(target, path).expect("links are supported");
}

fn listed(root: &Path) -> Listing {
    list(root, Links::Inside).expect("readable")
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.files.iter().map(|file| file.path.as_str()).collect()
}

fn skipped(listing: &Listing) -> Vec<(&str, LeftOutReason)> {
    listing.skipped.iter().map(|skipped| (skipped.path.as_str(), skipped.reason)).collect()
}

#[test]
fn files_come_sorted_by_their_whole_path_with_names_of_any_script() {
    let folder = folder();
    for path in ["a/z.png", "a-b/1.png", "a.png", "猫/写真 1.jpg", "b/ü.png"] {
        write(folder.path(), path);
    }
    let listing = listed(folder.path());
    assert_eq!(paths(&listing), ["a-b/1.png", "a.png", "a/z.png", "b/ü.png", "猫/写真 1.jpg"]);
    assert_eq!(listing, listed(folder.path()));
}

#[test]
fn litter_hidden_files_and_names_that_are_not_utf8_are_left_out_and_named() {
    let folder = folder();
    for path in ["a/1.png", "a/.DS_Store", "a/@eaDir/1.png/THUMB.jpg", "#recycle/old.png", ".git/config", "a/.x.png"] {
        write(folder.path(), path);
    }
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.png")), b"x").expect("writable");
    let listing = listed(folder.path());
    assert_eq!(paths(&listing), ["a/1.png"]);
    assert_eq!(
        skipped(&listing),
        [
            ("#recycle/", LeftOutReason::Litter),
            (".git/", LeftOutReason::Hidden),
            ("a/.DS_Store", LeftOutReason::Litter),
            ("a/.x.png", LeftOutReason::Hidden),
            ("a/@eaDir/", LeftOutReason::Litter),
            ("\u{fffd}.png", LeftOutReason::NotUtf8),
        ]
    );
    let groups = listing.left_out();
    let litter = groups.iter().find(|group| group.reason == LeftOutReason::Litter).expect("there is some");
    assert_eq!((litter.entries, litter.paths[0].as_str()), (3, "#recycle/"), "the nearest to the top comes first");
}

#[test]
fn links_are_followed_inside_the_folder_and_outside_only_if_that_is_asked_for() {
    let (folder, elsewhere) = (folder(), folder());
    let root = folder.path();
    write(elsewhere.path(), "far/1.png");
    write(root, "pool/1.png");
    link("../pool/1.png", root, "cats/one.png");
    link("pool", root, "dogs");
    link(elsewhere.path(), root, "linked");
    link(elsewhere.path().join("far/1.png"), root, "cats/far.png");

    let listing = listed(root);
    assert_eq!(paths(&listing), ["cats/one.png", "dogs/1.png", "pool/1.png"]);
    let outside = [("cats/far.png", LeftOutReason::OutsideLink), ("linked/", LeftOutReason::OutsideLink)];
    assert_eq!(skipped(&listing), outside);

    let listing = list(root, Links::Everywhere).expect("readable");
    assert_eq!(paths(&listing), ["cats/far.png", "cats/one.png", "dogs/1.png", "linked/far/1.png", "pool/1.png"]);
    assert!(listing.files.iter().all(|file| fs::read(&file.location).is_ok()), "each is found where it is said to be");
}

#[test]
fn links_that_lead_in_a_circle_end() {
    let folder = folder();
    let root = folder.path();
    write(root, "a/1.png");
    write(root, "b/2.png");
    link(root, root, "a/top");
    link(".", root, "a/self");
    link("../b", root, "a/to-b");
    link("../a", root, "b/to-a");
    let listing = listed(root);
    assert_eq!(paths(&listing), ["a/1.png", "a/to-b/2.png", "b/2.png", "b/to-a/1.png"]);
    assert!(listing.skipped.iter().all(|skipped| skipped.reason == LeftOutReason::CircularLink), "{listing:?}");
}

#[test]
fn a_link_that_leads_nowhere_is_a_file_or_a_folder_that_cannot_be_read() {
    let folder = folder();
    write(folder.path(), "a/1.png");
    link("gone.png", folder.path(), "a/2.png");
    link("gone", folder.path(), "b");
    let listing = listed(folder.path());
    assert_eq!(paths(&listing), ["a/1.png", "a/2.png"]);
    assert_eq!(skipped(&listing), [("b/", LeftOutReason::BrokenLink)]);
}

#[test]
fn a_folder_without_a_file_is_named_once_where_it_begins() {
    let folder = folder();
    write(folder.path(), "cats/1.png");
    write(folder.path(), "only-litter/Thumbs.db");
    fs::create_dir_all(folder.path().join("fish/deep/deeper")).expect("writable");
    fs::create_dir_all(folder.path().join("cats/old")).expect("writable");
    let listing = listed(folder.path());
    let empty = listing.skipped.iter().filter(|skipped| skipped.reason == LeftOutReason::EmptyFolder);
    assert_eq!(empty.map(|skipped| skipped.path.as_str()).collect::<Vec<_>>(), ["cats/old/", "fish/", "only-litter/"]);
}

#[test]
fn an_empty_folder_has_no_files_and_a_missing_one_is_an_error() {
    let folder = folder();
    assert_eq!(listed(folder.path()), Listing::default());
    let error = list(&folder.path().join("missing"), Links::Inside).expect_err("no such folder");
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn ten_thousand_files_are_listed_each_once() {
    let folder = folder();
    for class in 0..10 {
        let class = folder.path().join(format!("class {class}"));
        fs::create_dir(&class).expect("writable");
        (0..1000).for_each(|n| fs::write(class.join(format!("{n}.png")), b"").expect("writable"));
    }
    let listing = listed(folder.path());
    assert_eq!(listing.files.len(), 10_000);
    assert!(listing.files.is_sorted_by(|a, b| a.path < b.path));
}
