//! The library, as programs use it.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use sortinghat_client::{
    Client, ClientError, Existing, JobFilter, SourceFile, Submission, Update, UploadProgress, folder, is_final,
};
use sortinghat_proto::{
    IngestSpec, JobKind, JobSpec, ObjectRef, Split,
    layout::LayoutChoice,
    limits,
    manifest::UploadManifest,
    v1::{ErrorCode, JobState},
};

use crate::coordinator::Coordinator;

/// A folder with two photos of the same content and one that is sent in several pieces.
fn photos() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("red")).expect("writable");
    let large: Vec<u8> = (0..2 * limits::MAX_PIECE_BYTES + 7).map(|n| (n % 251) as u8).collect();
    for (name, content) in [("red/1.png", &b"photo"[..]), ("red/2.png", &b"photo"[..]), ("red/3.png", &large)] {
        fs::write(folder.path().join(name), content).expect("writable");
    }
    folder
}

fn files(folder: &Path) -> Vec<SourceFile> {
    folder::list(folder, folder::Links::Inside).expect("readable").files
}

/// How many files an upload had to send.
async fn sent(client: &Client, files: &[SourceFile]) -> (ObjectRef, u64) {
    let missing = AtomicU64::new(u64::MAX);
    let keep = |progress| {
        if let UploadProgress::Sent(amount) = progress {
            missing.store(amount.of_files, Ordering::Relaxed);
        }
    };
    let manifest = client.upload(files, keep).await.expect("accepted");
    (manifest, missing.into_inner())
}

fn ingest(source: ObjectRef) -> JobSpec {
    JobSpec::Ingest(IngestSpec {
        dataset_name: "stamps".parse().expect("a name"),
        source,
        split: Split::ValidPercent(20),
        seed: 0,
        allow_failures: false,
        derivative_short_side_px: 512,
        layout: LayoutChoice::Auto,
    })
}

/// The code of a refusal.
fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> ErrorCode {
    match answer.expect_err("it must be refused") {
        ClientError::Refused(refusal) => refusal.code,
        other => panic!("not a refusal: {other}"),
    }
}

#[test]
fn an_upload_sends_each_content_once_and_lists_every_file() {
    let coordinator = Coordinator::start();
    let (client, folder) = (coordinator.client(), photos());
    coordinator.wait_for(async {
        let files = files(folder.path());
        let (manifest, first) = sent(&client, &files).await;
        assert_eq!(first, 2, "two files have the same content");
        assert_eq!(sent(&client, &files).await, (manifest.clone(), 0), "the server has them all");
        let listed: UploadManifest = client.read_document(&manifest).await.expect("it is there");
        let paths: Vec<&str> = listed.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["red/1.png", "red/2.png", "red/3.png"]);
        let large = client.read_object(&listed.files[2].object).await.expect("it is there");
        assert_eq!(large, fs::read(&files[2].location).expect("readable"));
    });
}

#[test]
fn a_large_file_is_sent_in_parts_and_a_changed_one_costs_only_itself() {
    let coordinator = Coordinator::start();
    let (client, folder) = (coordinator.client(), photos());
    let large: Vec<u8> = (0..(17_usize << 20) + 7).map(|n| (n % 251) as u8).collect();
    fs::write(folder.path().join("red/4.tif"), &large).expect("writable");
    coordinator.wait_for(async {
        let files = files(folder.path());
        let (manifest, sent) = sent(&client, &files).await;
        assert_eq!(sent, 3);
        let listed: UploadManifest = client.read_document(&manifest).await.expect("it is there");
        assert_eq!(client.read_object(&listed.files[3].object).await.expect("joined"), large);
        let part = ObjectRef::of(&large[8 << 20..16 << 20]);
        client.read_object(&part).await.expect("its parts are objects");

        // Only its end changes, after it was hashed.
        let other: Vec<u8> = large.iter().map(|byte| byte ^ 1).collect();
        fs::write(&files[3].location, &other).expect("writable");
        let meddle = |progress| {
            if matches!(progress, UploadProgress::Hashed(amount) if amount.files == 4) {
                fs::write(&files[3].location, [&other[..17 << 20], b"another"].concat()).expect("writable");
            }
        };
        let manifest = client.upload(&files, meddle).await.expect("the others are there");
        let listed: UploadManifest = client.read_document(&manifest).await.expect("it is there");
        let why = listed.files[3].unread.as_ref();
        assert!(why.is_some_and(|why| why.contains("changed")), "{why:?}");

        let content = other.into();
        let object = client.upload_bytes(content).await.expect("accepted");
        assert_eq!(client.read_object(&object).await.expect("joined").len(), large.len());
    });
}

#[test]
fn a_file_that_is_gone_costs_only_itself_and_an_unknown_object_is_not_found() {
    let coordinator = Coordinator::start();
    let (client, folder) = (coordinator.client(), photos());
    coordinator.wait_for(async {
        let files = files(folder.path());
        fs::remove_file(&files[0].location).expect("it is there");
        let manifest = client.upload(&files, |_| {}).await.expect("the others are there");
        let listed: UploadManifest = client.read_document(&manifest).await.expect("it is there");
        let gone = &listed.files[0];
        assert_eq!((gone.path.as_str(), &gone.object), ("red/1.png", &ObjectRef::of(b"")));
        assert!(gone.unread.as_ref().is_some_and(|why| why.contains("gone")), "{gone:?}");
        assert!(listed.files[1..].iter().all(|file| file.unread.is_none()), "{listed:?}");
        client.read_object(&gone.object).await.expect("every object of an upload exists");

        let saved = folder.path().join("saved");
        let unknown = ObjectRef::of(b"nobody has uploaded this");
        assert_eq!(code(client.save_object(&unknown, &saved, Existing::Keep).await), ErrorCode::NotFound);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing is left behind");
        let known = client.upload_bytes(b"content"[..].into()).await.expect("accepted");
        client.save_object(&known, &saved, Existing::Keep).await.expect("writable");
        assert_eq!(fs::read(&saved).expect("just saved"), b"content");
        fs::write(&saved, b"changed since").expect("writable");
        let kept = client.save_object(&known, &saved, Existing::Keep).await.expect_err("it is there");
        assert!(matches!(kept, ClientError::File { .. }), "{kept}");
        assert_eq!(fs::read(&saved).expect("kept"), b"changed since");
        client.save_object(&known, &saved, Existing::Replace).await.expect("writable");
        assert_eq!(fs::read(&saved).expect("replaced"), b"content");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 2, "nothing else is left behind");
    });
}

#[test]
fn a_file_that_changes_or_goes_while_others_are_uploaded_costs_only_itself() {
    let coordinator = Coordinator::start();
    let (client, folder) = (coordinator.client(), photos());
    fs::write(folder.path().join("red/4.png"), b"the fourth").expect("writable");
    fs::write(folder.path().join("red/5.png"), b"the fifth").expect("writable");
    coordinator.wait_for(async {
        let files = files(folder.path());
        // Once all are hashed and none is sent, the first of two copies and the fifth file go, and the fourth changes.
        let meddle = |progress| {
            if matches!(progress, UploadProgress::Hashed(amount) if amount.files == 5) {
                fs::remove_file(&files[0].location).expect("it is there");
                fs::remove_file(&files[4].location).expect("it is there");
                fs::write(&files[3].location, b"another").expect("writable");
            }
        };
        let manifest = client.upload(&files, meddle).await.expect("the others are there");
        let listed: UploadManifest = client.read_document(&manifest).await.expect("it is there");
        let why: Vec<Option<&str>> = listed.files.iter().map(|file| file.unread.as_deref()).collect();
        assert_eq!(why[..3], [None; 3], "a copy has the content of the first file");
        assert!(
            why[3].is_some_and(|why| why.contains("changed")) && why[4].is_some_and(|why| why.contains("gone")),
            "{why:?}"
        );
        for file in &listed.files {
            client.read_object(&file.object).await.expect("every object of an upload exists");
        }
    });
}

#[test]
fn one_key_makes_one_job_and_another_spec_under_it_is_refused() {
    let coordinator = Coordinator::start();
    let client = coordinator.client();
    coordinator.wait_for(async {
        let source = client.upload(&files(photos().path()), |_| {}).await.expect("accepted");
        let submission = Submission::new(ingest(source.clone()));
        let first = client.submit(&submission).await.expect("accepted");
        assert_eq!(client.submit(&submission).await.expect("the same").id, first.id);
        let JobSpec::Ingest(spec) = ingest(source) else { unreachable!("made above") };
        let other = Submission { spec: JobSpec::Ingest(IngestSpec { seed: 1, ..spec }), ..submission };
        assert_eq!(code(client.submit(&other).await), ErrorCode::IdempotencyConflict);
    });
}

#[test]
fn jobs_are_listed_in_pages_found_by_prefix_counted_and_cancelled() {
    let coordinator = Coordinator::start();
    let client = coordinator.client();
    coordinator.wait_for(async {
        let source = client.upload(&files(photos().path()), |_| {}).await.expect("accepted");
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(client.submit(&Submission::new(ingest(source.clone()))).await.expect("accepted").id);
        }
        ids.reverse();

        let filter = JobFilter { states: vec![JobState::Queued], kind: Some(JobKind::Ingest), ..JobFilter::default() };
        let (mut listed, mut token) = (Vec::new(), String::new());
        loop {
            let page = client.list_jobs(&filter, 2, &token).await.expect("allowed");
            assert!(page.jobs.len() <= 2);
            listed.extend(page.jobs.into_iter().map(|job| job.id));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, ids, "newest first");

        let found = client.find_job(&ids[0].to_uppercase()).await.expect("it exists");
        assert_eq!(found.id, ids[0]);
        assert_eq!(code(client.find_job("0").await), ErrorCode::InvalidArgument, "all ids start with it");
        assert_eq!(code(client.find_job("zzz").await), ErrorCode::NotFound);

        let counted = client.count_cancellable_jobs(&filter, None).await.expect("allowed");
        assert_eq!((counted.matching, counted.more), (5, false));
        let none = JobFilter { kind: Some(JobKind::Finetune), ..JobFilter::default() };
        assert_eq!(client.cancel_jobs(&none, None).await.expect("allowed").matching, 0);
        let cancelled = client.cancel_job(&ids[0]).await.expect("it exists");
        assert_eq!(cancelled.state(), JobState::Cancelled);
    });
}

#[test]
fn a_watch_tells_everything_once_and_ends_with_the_job() {
    let coordinator = Coordinator::start();
    let client = coordinator.client();
    coordinator.wait_for(async {
        let source = client.upload(&files(photos().path()), |_| {}).await.expect("accepted");
        let job = client.submit(&Submission::new(ingest(source))).await.expect("accepted");
        let mut watch = client.watch(&job.id, 0);
        assert!(matches!(watch.next().await, Ok(Some(Update::Event(event))) if event.sequence == 1));
        assert_eq!(watch.next().await.expect("it goes on"), Some(Update::UpToDate));
        client.cancel_job(&job.id).await.expect("it exists");
        assert!(matches!(watch.next().await, Ok(Some(Update::Event(event))) if event.sequence == 2));
        assert_eq!(watch.next().await.expect("it goes on"), None);
        assert!(is_final(client.get_job(&job.id).await.expect("it exists").state()));
        assert_eq!(code(client.watch("01kd0000000000000000000000", 0).next().await), ErrorCode::NotFound);
    });
}

#[test]
fn names_of_datasets_and_models_are_removed_once() {
    let coordinator = Coordinator::start();
    coordinator.start_worker();
    let client = coordinator.client();
    coordinator.wait_for(async {
        let source = client.upload(&files(photos().path()), |_| {}).await.expect("accepted");
        let job = client.submit(&Submission::new(ingest(source))).await.expect("accepted");
        let mut watch = client.watch(&job.id, 0);
        while watch.next().await.expect("it goes on").is_some() {}

        let names = |datasets: Vec<sortinghat_proto::v1::Dataset>| datasets.into_iter().map(|one| one.name);
        let listed: Vec<String> = names(client.list_datasets().await.expect("allowed")).collect();
        assert_eq!(listed, ["stamps@1"]);
        assert_eq!(client.get_dataset("stamps").await.expect("it exists").name, "stamps@1");
        client.delete_dataset("stamps@1").await.expect("it exists");
        assert_eq!(code(client.delete_dataset("stamps@1").await), ErrorCode::NotFound);
        assert_eq!(code(client.delete_model("stamps/1").await), ErrorCode::NotFound);
        assert!(client.list_models().await.expect("allowed").is_empty());
        assert_eq!(client.list_workers().await.expect("allowed").len(), 1);
    });
}
