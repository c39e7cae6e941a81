//! What an ingest notices is told, and kept in the dataset's manifest.

use sortinghat_proto::manifest::{
    AbsentClass, LeftOut, LeftOutReason, Remark, SplitPair, UploadManifest, UploadedFile,
};

use super::*;

/// Ingests an upload that a client has described further.
fn ingest_upload(bench: &Bench, upload: &UploadManifest, layout: LayoutChoice) -> Ran {
    let source = bench.objects().put_document(upload).unwrap();
    let spec = IngestSpec { source, layout, ..spec(bench, &Vec::new(), HOLD_OUT, Failures { allowed: false }) };
    bench.run(JobSpec::Ingest(spec), Inputs::default())
}

fn uploaded(bench: &Bench, files: &Files) -> UploadManifest {
    bench.objects().document(&bench.upload(files)).unwrap()
}

fn manifest_of(bench: &Bench, ran: Ran) -> DatasetManifest {
    bench.objects().document(&ran.output().manifest).unwrap()
}

fn remarks_of(bench: &Bench, files: &Files) -> Vec<Remark> {
    dataset_of(bench, files, HOLD_OUT).remarks
}

/// Shapes in `train/` and in the folder of this name.
fn splits(held_out: &str) -> Files {
    let side = |index: usize| if index.is_multiple_of(4) { held_out } else { "train" };
    let all = shapes(12).into_iter().enumerate();
    all.map(|(index, (path, png))| (format!("{}/{path}", side(index)), png)).collect()
}

#[test]
fn a_class_that_loses_all_its_photos_is_named_with_the_reason_and_kept_in_the_manifest() {
    let bench = Bench::new();
    let mut files = shapes(20);
    files.extend(
        (0..3).map(|n| file(&format!("birds/{n}.heic"), [b"\x00\x00\x00\x18ftypheic".as_slice(), &[n]].concat())),
    );
    files.push(file("owls/cut.png", &shape(true, 99)[..40]));
    let left_out = |reason, path: &str| LeftOut { reason, entries: 1, paths: vec![path.to_owned()] };
    let mut upload = uploaded(&bench, &files);
    let gone = UploadedFile {
        unread: Some("permission denied".into()),
        ..UploadedFile::new("rats/1.png", ObjectRef::of(b""))
    };
    upload.files.push(gone);
    upload.left_out =
        vec![left_out(LeftOutReason::EmptyFolder, "fish/"), left_out(LeftOutReason::OutsideLink, "linked/")];

    let ran = ingest_upload(&bench, &upload, LayoutChoice::Auto);
    let notices = ran.notices().join("\n");
    assert!(
        notices.contains("5 classes have no usable photo and are not in the dataset: birds (3 entries: in a format"),
        "{notices}"
    );
    let manifest = manifest_of(&bench, ran);
    assert_eq!(manifest.classes, ["disc", "square"]);
    let absent = |class: &str, why: &str| AbsentClass { class: class.into(), why: why.into() };
    let expected = Remark::ClassesWithoutPhotos {
        classes: vec![
            absent("birds", "3 entries: in a format that is not supported"),
            absent("fish", "1 entry: an empty folder"),
            absent("linked", "1 entry: a symbolic link that leads out of the folder"),
            absent("owls", "1 entry: truncated"),
            absent("rats", "1 entry: cannot be read"),
        ],
    };
    let links = Remark::LeftOut { groups: vec![left_out(LeftOutReason::OutsideLink, "linked/")] };
    assert_eq!(manifest.remarks, [expected, links]);
    assert!(!manifest.uses_everything());
}

#[test]
fn entries_of_which_the_client_lists_only_the_first_are_not_counted_as_all() {
    let bench = Bench::new();
    let mut upload = uploaded(&bench, &shapes(20));
    let paths = vec!["linked/1.png".to_owned(), "linked/2.png".to_owned()];
    upload.left_out = vec![LeftOut { reason: LeftOutReason::OutsideLink, entries: 5, paths }];
    let told = ingest_upload(&bench, &upload, LayoutChoice::Auto).notices().join("\n");
    assert!(told.contains("linked (2 entries and perhaps more: a symbolic link that leads out"), "{told}");
}

#[test]
fn a_file_that_the_client_could_not_read_is_a_rejection_with_its_reason() {
    let bench = Bench::new();
    let mut upload = uploaded(&bench, &shapes(20));
    for name in ["disc/gone.png", "square/locked.png"] {
        let unread = Some("the file cannot be read: permission denied".to_owned());
        upload.files.push(UploadedFile { unread, ..UploadedFile::new(name, ObjectRef::of(b"")) });
    }
    let manifest = manifest_of(&bench, ingest_upload(&bench, &upload, LayoutChoice::Auto));
    assert_eq!((manifest.counts.accepted, manifest.counts.quarantined), (40, 2));
    assert!(manifest.counts.balance());
    let listed = rejections(&bench, &manifest);
    let told: Vec<_> = listed.iter().map(|one| (one.path.as_str(), one.reason, one.message.as_str())).collect();
    let why = "the file cannot be read: permission denied";
    let unreadable = RejectionReason::Unreadable;
    assert_eq!(told, [("disc/gone.png", unreadable, why), ("square/locked.png", unreadable, why)]);
}

#[test]
fn near_duplicates_across_a_given_split_are_counted_and_kept_with_examples() {
    let bench = Bench::new();
    let mut files = splits("valid");
    files.push(file("valid/disc/twin.png", retouched(&shape(true, 1))));
    let manifest = dataset_of(&bench, &files, HOLD_OUT);
    let pair = SplitPair { held_out: "valid/disc/twin.png".into(), learned: "train/disc/001.png".into() };
    let expected = Remark::NearDuplicatesAcrossSplit { groups: 1, held_out: 1, examples: vec![pair] };
    assert!(manifest.remarks.contains(&expected), "{:?}", manifest.remarks);
    let inside = dataset_of(&bench, &splits("valid"), HOLD_OUT).remarks;
    assert!(!inside.iter().any(|remark| matches!(remark, Remark::NearDuplicatesAcrossSplit { .. })), "{inside:?}");
}

#[test]
fn few_photos_and_imbalance_are_kept() {
    let bench = Bench::new();
    assert_eq!(remarks_of(&bench, &shapes(20)), []);
    let mut files: Files = (0..40).map(|n| (format!("disc/{n:03}.png"), shape(true, n))).collect();
    files.extend((0..3).map(|n| (format!("square/{n:03}.png"), shape(false, n))));
    let told: Vec<String> = remarks_of(&bench, &files).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "disc has 40 photos and square has 3: the model will prefer the former",
            "fewer than 20 photos of square: expect little of them",
        ]
    );
}

#[test]
fn a_class_is_one_class_in_every_unicode_form_and_names_that_look_alike_are_named() {
    let bench = Bench::new();
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let folder = |index: usize| if index.is_multiple_of(2) { composed } else { decomposed };
    let mut files: Files = (0..20).map(|n| (format!("{}/{n:03}.png", folder(n as usize)), shape(true, n))).collect();
    files.extend((0..20).map(|n| (format!("Tea/{n:03}.png"), shape(false, n))));
    files.extend((40..60).map(|n| (format!("tea /{n:03}.png"), shape(false, n))));
    let manifest = dataset_of(&bench, &files, HOLD_OUT);
    assert_eq!(manifest.classes, ["Tea", composed, "tea "]);
    assert_eq!(
        manifest.remarks,
        [
            Remark::SimilarNames { groups: vec![vec!["Tea".into(), "tea ".into()]] },
            Remark::OneNameInSeveralForms { classes: vec![composed.into()] },
        ]
    );

    let twins: Files = splits("valid")
        .into_iter()
        .map(|(path, png)| {
            let name = if path.starts_with("train") { composed } else { decomposed };
            (path.replace("disc", name), png)
        })
        .collect();
    assert_eq!(dataset_of(&bench, &twins, HOLD_OUT).classes, [composed, "square"]);
}

#[test]
fn splits_are_read_beside_other_folders_and_what_is_left_out_is_named() {
    let bench = Bench::new();
    let mut files = splits("Val");
    files.push(file("docs/labels.csv", "a,b"));
    files.push(file("test/disc/1.png", shape(true, 70)));
    let manifest = dataset_of(&bench, &files, HOLD_OUT);
    assert_eq!((manifest.split, manifest.classes.len()), (SplitKind::Given, 2));
    let test = Remark::TestFolderLeftOut { folders: vec!["test".into()], files: 1, held_out: vec!["Val".into()] };
    let docs = Remark::FoldersBesideSplit { folders: vec!["docs".into()], files: 1, photos: 0 };
    assert_eq!(manifest.remarks[..2], [test, docs]);
    assert!(manifest.remarks[0].is_warning() && !manifest.remarks[1].is_warning());
    let listed = rejections(&bench, &manifest);
    let told: Vec<_> = listed.iter().map(|one| (one.path.as_str(), one.reason)).collect();
    let beside = RejectionReason::BesideSplit;
    assert_eq!(told, [("docs/labels.csv", beside), ("test/disc/1.png", beside)]);

    let held_out = dataset_of(&bench, &splits("test"), HOLD_OUT);
    assert_eq!((held_out.split, held_out.class_counts[0].valid), (SplitKind::Given, 3));
}

#[test]
fn a_folder_that_can_be_read_in_two_ways_is_refused_unless_the_spec_says_which() {
    let bench = Bench::new();
    let files: Files = shapes(20)
        .into_iter()
        .map(|(path, png)| (path.replace("disc", "train").replace("square", "test"), png))
        .collect();
    let refusal = refused(&bench, &files);
    assert_eq!(refusal.field, "ingest.layout");
    assert!(refusal.message.contains("as splits") && refusal.message.contains("2 classes: test, train"), "{refusal:?}");
    let upload = uploaded(&bench, &files);
    let manifest = manifest_of(&bench, ingest_upload(&bench, &upload, LayoutChoice::Classes));
    assert_eq!(manifest.classes, ["test", "train"]);
}

#[test]
fn notes_of_photos_are_counted_with_examples() {
    let bench = Bench::new();
    let mut files = shapes(20);
    files[0].0 = "disc/000.jpg".to_owned();
    // It ends in a maker's trailer instead of its end marker.
    let without_end = include_bytes!("../../photos/tests/data/cases/samsung_no_eoi_trailer.jpg");
    files.push(file("square/phone.jpg", &without_end[..]));
    let wrong_checksum = include_bytes!("../../photos/tests/data/cases/crc0.png");
    files.push(file("square/scan.png", &wrong_checksum[..]));
    let remarks = remarks_of(&bench, &files);
    assert_eq!(
        remarks,
        [
            Remark::Mended { photos: 2, examples: vec!["square/phone.jpg".into(), "square/scan.png".into()] },
            Remark::WrongExtension { photos: 1, examples: vec!["disc/000.jpg".into()] },
        ]
    );
}
