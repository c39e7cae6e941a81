//! Photos from archives and from lists of paths.

use std::{
    fs::File,
    io::Write as _,
    process::{Output, Stdio},
};

use sortinghat_proto::{ObjectRef, manifest::UploadManifest};

use crate::{coordinator::Coordinator, hat::Hat};

/// A server with the model stamps/1, and the folder `photos` also as the tar `photos.tar`.
fn deployment() -> (Coordinator, Hat) {
    let (coordinator, hat) = Coordinator::with_model();
    let mut archive = tar::Builder::new(File::create(hat.path().join("photos.tar")).expect("writable"));
    archive.append_dir_all(".", hat.path().join("photos")).and_then(|()| archive.finish()).expect("writable");
    (coordinator, hat)
}

/// Runs a command line with this on standard input.
fn run_with_input(hat: &Hat, line: &str, input: &str) -> Output {
    let mut command = hat.command(line);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hat starts");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("hat reads");
    child.wait_with_output().expect("it was started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The upload of the newest job.
fn newest_upload(coordinator: &Coordinator, hat: &Hat) -> UploadManifest {
    let client = coordinator.client();
    let shown = hat.run("jobs show --json --quiet");
    let job: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("a job");
    let source: ObjectRef = serde_json::from_value(job["spec"]["source"].clone()).expect("a source");
    coordinator.wait_for(client.read_document(&source)).expect("an upload")
}

#[test]
fn an_archive_of_a_folder_is_the_same_upload_as_the_folder() {
    let (coordinator, hat) = deployment();
    let folder = newest_upload_of(&coordinator, &hat, "ingest stamps photos");
    for line in [
        "ingest stamps photos.tar",
        "evaluate stamps/1 --on photos.tar --report r.html",
        "classify stamps/1 photos.tar",
    ] {
        assert_eq!(newest_upload_of(&coordinator, &hat, line), folder, "{line}");
    }
    let both = newest_upload_of(&coordinator, &hat, "classify stamps/1 photos.tar photos/red/1.png");
    assert_eq!(both.files[0].path, "photos.tar/green/1.png");
    assert_eq!(both.files[5].path, "photos/red/1.png");
    let output = hat.run("classify stamps/1 photos.tar");
    assert!(text(&output.stdout).contains("green/1.png\tred\t0.750"), "{}", text(&output.stdout));
}

fn newest_upload_of(coordinator: &Coordinator, hat: &Hat, line: &str) -> UploadManifest {
    let output = hat.run(line);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    newest_upload(coordinator, hat)
}

#[test]
fn a_list_of_paths_is_read_from_standard_input() {
    let (coordinator, hat) = deployment();
    let list = "./photos\nphotos/red/1.png\nphotos/red/gone.png\n./photos/green/2.png\n";
    let output = run_with_input(&hat, "classify stamps/1 -", list);
    let rows = text(&output.stdout);
    let upload = newest_upload(&coordinator, &hat);
    let paths: Vec<&str> = upload.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["photos/red/1.png", "photos/red/gone.png", "photos/green/2.png"], "{rows}");
    assert!(upload.files[1].unread.as_deref().is_some_and(|why| why.contains("gone")));

    let labelled = run_with_input(&hat, "ingest stamps - --layout classes", "photos/red/1.png\nphotos/red/2.png\n");
    assert!(labelled.status.success(), "{}", text(&labelled.stderr));
    for (line, list, why) in [
        ("ingest stamps -", "/red/1.png\n", "its first folder is no class"),
        ("ingest stamps -", "me.png\n", "in no class folder"),
        ("classify stamps/1 -", "", "no photos"),
        ("classify stamps/1 -", "a.png\na.png\n", "named twice"),
    ] {
        let output = run_with_input(&hat, line, list);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
}

#[test]
fn an_archive_that_cannot_be_read_is_refused_and_nothing_is_submitted() {
    let (_coordinator, hat) = deployment();
    hat.write("bad.zip", b"PK\x03\x04 and nothing else");
    hat.write("bad.tar.zst", b"not zstd");
    let newest = hat.newest_job();
    let transcript = hat.transcript(&[
        "ingest stamps bad.zip",
        "classify stamps/1 bad.tar.zst",
        "classify stamps/1 nowhere.zip",
        "evaluate stamps/1 --on ./nowhere.tar",
        "ingest stamps hat.rar",
    ]);
    assert_eq!(hat.newest_job(), newest, "nothing was submitted");
    hat.assert_snapshot("archives", &transcript);
}

#[test]
fn a_table_gives_paths_labels_and_splits_and_results_name_photos_by_its_paths() {
    let (coordinator, hat) = deployment();
    hat.write("all/1.png", b"one");
    hat.write("all/2.png", b"two");
    hat.write(
        "all/photos.csv",
        b"\xef\xbb\xbfPath,Label,note\r\n1.png,red,=1+1\r\n./2.png,green,\r\n../photos/red/1.png,red,\r\n",
    );
    let upload = newest_upload_of(&coordinator, &hat, "ingest stamps all/photos.csv");
    let files: Vec<(&str, &str)> = upload.files.iter().map(|file| (file.path.as_str(), file.shown())).collect();
    let expected =
        [("red/1.png", "1.png"), ("green/2.png", "./2.png"), ("red/photos/red/1.png", "../photos/red/1.png")];
    assert_eq!(files, expected);
    assert_eq!(upload.files[1].object, ObjectRef::of(b"two"));

    hat.write("all/splits.tsv", b"image\tclass\tset\n1.png\tred\ttrain\n2.png\tred\tval\n");
    let upload = newest_upload_of(&coordinator, &hat, "ingest stamps all/splits.tsv");
    let paths: Vec<&str> = upload.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["train/red/1.png", "val/red/2.png"]);
    let shown: serde_json::Value = serde_json::from_slice(&hat.run("jobs show --json --quiet").stdout).expect("a job");
    assert!(shown["spec"].to_string().to_lowercase().contains("splits"), "{shown}");

    let rows = text(&hat.run("classify stamps/1 all/photos.csv").stdout);
    assert!(rows.contains("./2.png\tred\t0.750"), "{rows}");
    assert!(hat.run("evaluate stamps/1 --on all/photos.csv --report r.html").status.success());
}

#[test]
fn a_table_that_cannot_be_used_is_refused_with_its_line() {
    let (_coordinator, hat) = deployment();
    let newest = hat.newest_job();
    for (name, content) in [
        ("columns.csv", "a,b\n1.png,red\n"),
        ("labels.csv", "path\n1.png\n"),
        ("slash.csv", "path,label\n1.png,a/b\n"),
        ("empty.csv", "path,label\n"),
        ("split.csv", "path,label,split\n1.png,red,7\n"),
        ("twice.csv", "path,label\n1.png,red\n1.png,red\n"),
        ("short.csv", "path,label\n1.png\n"),
        ("good.csv", "path,label,group\n1.png,red,me\n"),
    ] {
        hat.write(name, content.as_bytes());
    }
    let transcript = hat.transcript(&[
        "ingest stamps columns.csv",
        "ingest stamps labels.csv",
        "ingest stamps slash.csv",
        "ingest stamps empty.csv",
        "ingest stamps split.csv",
        "ingest stamps twice.csv",
        "ingest stamps short.csv",
        "ingest stamps good.csv --layout classes",
        "evaluate stamps/1 --on labels.csv",
    ]);
    assert_eq!(hat.newest_job(), newest, "nothing was submitted");
    hat.assert_snapshot("tables", &transcript);
}
