//! Runs ingest jobs over a temporary object store: what becomes of every file, and whether the dataset gives the photos back.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

mod remarks;
#[allow(dead_code, reason = "shared with the tests of the other jobs, which use the rest")]
#[path = "../shapes/mod.rs"]
mod shapes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use shapes::{Bench, Inputs, Ran, shape, shapes};
use sortinghat_photos::{DecodeLimits, Photo, decode, derivative::encode_png};
use sortinghat_proto::{
    IngestSpec, JobSpec, ObjectRef, Refusal, Split,
    layout::{LayoutChoice, Side},
    manifest::{ClassCount, Credit, DatasetManifest, IngestCounts, Rejection, RejectionReason, SplitKind},
    v1::ErrorCode,
};
use sortinghat_worker::{
    dataset::{Dataset, Origin, PhotoRecord, Place, ShardWriter},
    task::{Done, JobError, Part},
};

const HOLD_OUT: Split = Split::ValidPercent(20);

/// Path and content.
type Files = Vec<(String, Vec<u8>)>;

struct Failures {
    allowed: bool,
}

fn spec(bench: &Bench, files: &Files, split: Split, failures: Failures) -> IngestSpec {
    IngestSpec {
        dataset_name: "shapes".parse().unwrap(),
        source: bench.upload(files),
        split,
        seed: 1,
        allow_failures: failures.allowed,
        derivative_short_side_px: 48,
        layout: LayoutChoice::Auto,
    }
}

fn ingest(bench: &Bench, files: &Files, split: Split, failures: Failures) -> Ran {
    bench.run(JobSpec::Ingest(spec(bench, files, split, failures)), Inputs::default())
}

fn dataset_of(bench: &Bench, files: &Files, split: Split) -> DatasetManifest {
    let ran = ingest(bench, files, split, Failures { allowed: false });
    bench.objects().document(&ran.output().manifest).unwrap()
}

fn refused(bench: &Bench, files: &Files) -> Refusal {
    match ingest(bench, files, HOLD_OUT, Failures { allowed: false }).result {
        Err(JobError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn open(bench: &Bench, manifest: &DatasetManifest) -> Dataset {
    Dataset::open(manifest.shards.iter().map(|shard| bench.objects().open(&shard.object).unwrap())).unwrap()
}

fn rejections(bench: &Bench, manifest: &DatasetManifest) -> Vec<Rejection> {
    let Some(object) = &manifest.rejections else { return Vec::new() };
    let lines = bench.objects().read(object).unwrap();
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn pixels(bytes: &[u8]) -> Photo {
    decode(bytes, &DecodeLimits::default()).unwrap()
}

/// The same picture with a few altered pixels: another file, and a near-duplicate.
fn retouched(png: &[u8]) -> Vec<u8> {
    let mut photo = pixels(png);
    photo.pixels[..30].fill(0);
    encode_png(photo.width, photo.height, &photo.pixels)
}

fn file(path: &str, content: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (path.to_owned(), content.into())
}

#[test]
fn a_folder_for_each_class_becomes_a_stratified_dataset() {
    let bench = Bench::new();
    let files = shapes(20);
    let ran = ingest(&bench, &files, HOLD_OUT, Failures { allowed: false });
    assert_eq!(ran.notices(), Vec::<String>::new());
    let output = ran.output();
    assert_eq!(output.summary, "40 photos in 2 classes, 32 to learn from and 8 held out");

    let manifest: DatasetManifest = bench.objects().document(&output.manifest).unwrap();
    assert_eq!(manifest.classes, ["disc", "square"]);
    assert_eq!(manifest.class_counts, [ClassCount { train: 16, valid: 4 }; 2]);
    assert_eq!((manifest.split, manifest.photos()), (SplitKind::ValidPercent(20), 40));
    assert_eq!(manifest.rejections, None);
    let dataset = open(&bench, &manifest);
    for record in dataset.records() {
        let (_, content) = files.iter().find(|(path, _)| *path == record.path).unwrap();
        assert_eq!(record.digest, ObjectRef::of(content).digest);
        assert!(record.path.starts_with(&manifest.classes[record.label]));
        assert_eq!((record.width, record.height, record.original_format.as_str()), (80, 64, "png"));
    }
    let held = dataset.records().iter().filter(|record| record.place == Place::Side(Side::Valid)).count();
    assert_eq!(held, 8, "the shards say the same as the manifest");
}

#[test]
fn train_and_valid_folders_are_kept_as_given_and_near_duplicates_across_them_are_reported() {
    let bench = Bench::new();
    let side = |index: usize| if index.is_multiple_of(4) { "valid" } else { "train" };
    let mut files: Files = shapes(12)
        .into_iter()
        .enumerate()
        .map(|(index, (path, png))| (format!("{}/{path}", side(index)), png))
        .collect();
    files.push(file("valid/disc/twin.png", retouched(&shape(true, 1))));
    let ran = ingest(&bench, &files, HOLD_OUT, Failures { allowed: false });
    let notices = ran.notices();
    assert!(notices.iter().any(|notice| notice.contains("1 held-out photo is a near-duplicate")), "{notices:?}");

    let manifest: DatasetManifest = bench.objects().document(&ran.output().manifest).unwrap();
    assert_eq!(manifest.split, SplitKind::Given);
    assert_eq!(manifest.class_counts, [ClassCount { train: 9, valid: 4 }, ClassCount { train: 9, valid: 3 }]);
    for record in open(&bench, &manifest).records() {
        let expected = if record.path.starts_with("valid/") { Side::Valid } else { Side::Train };
        assert_eq!(record.place, Place::Side(expected), "{}", record.path);
    }
}

#[test]
fn every_file_is_counted_once_and_those_not_used_are_listed_with_their_reason() {
    let bench = Bench::new();
    let mut files = shapes(5);
    let whole = shape(true, 60);
    files.extend([
        file("disc/copy.png", shape(true, 0)),
        file("disc/both.png", shape(true, 61)),
        file("square/both.png", shape(true, 61)),
        file("square/cut.png", &whole[..whole.len() / 2]),
        file("square/empty.png", ""),
        file("square/lost.jpg", "<html>404</html>"),
        file("square/phone.heic", b"\x00\x00\x00\x18ftypheic\x00\x00".to_vec()),
        file("square/drawing.svg", "<svg width=\"1\"/>"),
        file("square/notes.txt", "hello"),
        file("readme.txt", "hello all"),
    ]);
    let ran = ingest(&bench, &files, HOLD_OUT, Failures { allowed: false });
    let notices = ran.notices().join("\n");
    assert!(notices.contains("1 file skipped: heic is not supported; convert it to JPEG"), "{notices}");
    assert!(notices.contains("3 photos cannot be read or decoded"), "{notices}");
    let manifest: DatasetManifest = bench.objects().document(&ran.output().manifest).unwrap();
    let expected = IngestCounts {
        inputs: 20,
        accepted: 10,
        duplicates: 1,
        conflicting: 2,
        quarantined: 3,
        unsupported: 2,
        ignored: 2,
    };
    assert_eq!(manifest.counts, expected);
    let listed: Vec<(String, RejectionReason)> =
        rejections(&bench, &manifest).into_iter().map(|rejection| (rejection.path, rejection.reason)).collect();
    let reason = |path: &str, reason| (path.to_owned(), reason);
    assert_eq!(
        listed,
        [
            reason("disc/both.png", RejectionReason::Conflicting),
            reason("disc/copy.png", RejectionReason::Duplicate),
            reason("readme.txt", RejectionReason::NoClass),
            reason("square/both.png", RejectionReason::Conflicting),
            reason("square/cut.png", RejectionReason::Truncated),
            reason("square/drawing.svg", RejectionReason::Unsupported),
            reason("square/empty.png", RejectionReason::Empty),
            reason("square/lost.jpg", RejectionReason::NotAPhoto),
            reason("square/notes.txt", RejectionReason::NotAPhoto),
            reason("square/phone.heic", RejectionReason::Unsupported),
        ]
    );
}

#[test]
fn an_ingest_in_shards_makes_the_same_dataset_to_the_byte() {
    let bench = Bench::new();
    let mut files = shapes(20);
    let whole = shape(true, 60);
    files.extend([
        file("disc/copy.png", shape(true, 0)),
        file("square/copy.png", shape(false, 3)),
        file("disc/both.png", shape(true, 61)),
        file("square/both.png", shape(true, 61)),
        file("square/cut.png", &whole[..whole.len() / 2]),
        file("square/notes.txt", "hello"),
        file("readme.txt", "hello all"),
        ("disc/zz twin of 2.png".to_owned(), retouched(&shape(true, 2))),
    ]);
    for split in [HOLD_OUT, Split::Folds(4)] {
        let spec = JobSpec::Ingest(spec(&bench, &files, split, Failures { allowed: false }));
        let whole = bench.run(spec.clone(), Inputs::default()).output();
        for shard_items in [7, 16] {
            assert_eq!(bench.run_in_shards(&spec, None, shard_items), whole);
        }
    }
}

#[test]
fn half_of_all_photos_must_decode_and_not_of_a_shard() {
    let bench = Bench::new();
    let finish = |broken: u32| {
        let mut files = shapes(10);
        files
            .extend((0..broken).map(|number| file(&format!("disc/broken {number}.png"), format!("no photo {number}"))));
        let spec = JobSpec::Ingest(spec(&bench, &files, HOLD_OUT, Failures { allowed: false }));
        let run = |part| bench.run(spec.clone(), Inputs { part: Some(part), ..Inputs::default() });
        let shards = (0..files.len() as u64).map(|item| run(Part::Shard(item..item + 1)).output().manifest);
        run(Part::Finish(shards.collect())).result
    };
    assert!(matches!(finish(12), Ok(Done::Made(_))), "12 of 32");
    let Err(JobError::Refused(refusal)) = finish(21) else { panic!("21 of 41") };
    assert!(refusal.message.starts_with("21 of 41 photos cannot be read or decoded"), "{}", refusal.message);
}

#[test]
fn near_duplicates_share_a_group_and_a_side_or_fold() {
    let bench = Bench::new();
    let mut files = shapes(10);
    for index in [2, 5, 8] {
        files.push((format!("disc/twin of {index}.png"), retouched(&shape(true, index))));
    }
    for split in [HOLD_OUT, Split::Folds(4)] {
        let manifest = dataset_of(&bench, &files, split);
        assert_eq!((manifest.near_duplicate_groups, manifest.photos()), (3, 23));
        let dataset = open(&bench, &manifest);
        let mut groups: BTreeMap<u64, Vec<&PhotoRecord>> = BTreeMap::new();
        dataset.records().iter().for_each(|record| groups.entry(record.group).or_default().push(record));
        assert_eq!(groups.len(), 20);
        assert!(groups.values().all(|group| group.iter().all(|record| record.place == group[0].place)), "{groups:?}");
    }
}

#[test]
fn a_set_of_which_over_half_fails_is_refused_unless_failures_are_allowed() {
    let bench = Bench::new();
    let mut files = shapes(2);
    files.extend((0..5).map(|index| file(&format!("disc/broken{index}.png"), format!("{index}"))));
    let refusal = refused(&bench, &files);
    assert_eq!(refusal.code, ErrorCode::UnusableData);
    assert!(refusal.message.contains("5 of 9 photos cannot be read or decoded"), "{}", refusal.message);
    assert!(refusal.message.contains("allow failures to go on"), "{}", refusal.message);
    let ran = ingest(&bench, &files, HOLD_OUT, Failures { allowed: true });
    assert!(ran.output().summary.ends_with("; 5 files not used"));
}

#[test]
fn files_in_formats_that_are_not_read_never_make_a_set_unusable() {
    let bench = Bench::new();
    let mut files = shapes(2);
    files.extend(
        (0..50).map(|index| {
            file(&format!("disc/{index}.heic"), [b"\x00\x00\x00\x18ftypheic".as_slice(), &[index]].concat())
        }),
    );
    let manifest = dataset_of(&bench, &files, HOLD_OUT);
    assert_eq!((manifest.counts.accepted, manifest.counts.unsupported), (4, 50));
}

#[test]
fn sets_that_cannot_be_learned_from_are_refused_with_the_counts() {
    let bench = Bench::new();
    let one_class: Files = shapes(3).into_iter().filter(|(path, _)| path.starts_with("disc/")).collect();
    assert!(refused(&bench, &one_class).message.contains("at least two classes, found disc"));
    let lone: Files =
        shapes(3).into_iter().filter(|(path, _)| path.starts_with("disc/") || path.ends_with("0.png")).collect();
    assert!(refused(&bench, &lone).message.contains("square has 1"));
    let nothing = vec![file("disc/notes.txt", "hello")];
    let refusal = refused(&bench, &nothing);
    assert!(refusal.message.contains("no usable photo among 1 file: disc/notes.txt: "), "{}", refusal.message);
    let flat = vec![file("1.txt", "one"), file("2.txt", "two")];
    let refusal = refused(&bench, &flat);
    assert!(refusal.message.contains("2 such as 1.txt: it lies in no class folder"), "{}", refusal.message);
    let one_sided: Files = shapes(2)
        .into_iter()
        .map(|(path, png)| (format!("{}/{path}", if path.starts_with("disc/000") { "valid" } else { "train" }), png))
        .collect();
    let refusal = refused(&bench, &one_sided);
    assert!(refusal.message.contains("square has 2 and 0"), "{}", refusal.message);
}

#[test]
fn a_dataset_gives_back_every_picture_from_many_threads() {
    let bench = Bench::new();
    let files = shapes(20);
    let manifest = dataset_of(&bench, &files, HOLD_OUT);
    let dataset = open(&bench, &manifest);
    let originals: BTreeMap<&str, &Vec<u8>> = files.iter().map(|(path, png)| (path.as_str(), png)).collect();
    let read = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for offset in 0..4 {
            let (dataset, originals, read) = (&dataset, &originals, &read);
            scope.spawn(move || {
                for step in 0..dataset.records().len() {
                    let index = (step * 7 + offset * 11) % dataset.records().len();
                    let stored = pixels(&dataset.image(index).unwrap());
                    let whole = pixels(originals[dataset.records()[index].path.as_str()]);
                    let expected = sortinghat_photos::derivative::reduced(whole, 48);
                    assert_eq!((stored.width, stored.height), (60, 48));
                    assert_eq!(stored.pixels, expected.pixels, "photo {index}");
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(read.into_inner(), 160);
    assert!(dataset.image(40).is_err());
}

fn origin(index: usize) -> Origin {
    let credit = Credit { author: (index > 3).then(|| "Ann".to_owned()), ..Credit::default() };
    let url = format!("https://example.org/{index}.png");
    Origin { provider: "openverse".into(), query: Some("disc".into()), rank: index as u64 + 1, url, credit }
}

#[test]
fn small_photos_keep_every_pixel_in_a_shard_and_shards_follow_each_other() {
    let classes = ["disc".to_owned(), "square".to_owned()];
    let photos: Vec<Vec<u8>> = (0..40).map(|index| shape(true, index)).collect();
    let mut writer = ShardWriter::new(&classes, photos[0].len() * 18, true).unwrap();
    let mut shards = Vec::new();
    for (index, photo) in photos.iter().enumerate() {
        let record = PhotoRecord {
            path: format!("disc/{index}.png"),
            label: 0,
            digest: ObjectRef::of(photo).digest,
            place: Place::Fold(index as u32 % 5),
            group: index as u64,
            width: 80,
            height: 64,
            original_format: "png".into(),
            origin: (index % 2 == 0).then(|| Box::new(origin(index))),
        };
        shards.extend(writer.push(record, photo.clone()).unwrap());
    }
    shards.extend(writer.finish().unwrap());
    assert!(shards.len() >= 2, "one shard would prove little");
    let files = shards.iter().map(|shard| {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&shard.bytes).unwrap();
        file
    });
    let dataset = Dataset::open(files).unwrap();
    assert_eq!(dataset.records().len(), 40);
    for (index, photo) in photos.iter().enumerate() {
        assert_eq!(dataset.image(index).unwrap(), photo);
        assert_eq!(dataset.records()[index].place, Place::Fold(index as u32 % 5));
        let found = dataset.records()[index].origin.as_deref();
        assert_eq!(found, (index % 2 == 0).then(|| origin(index)).as_ref(), "some photos were gathered, others not");
    }
}

#[test]
fn the_same_photos_give_the_same_dataset_on_any_number_of_threads_and_in_any_order() {
    let bench = Bench::new();
    let mut files = shapes(20);
    files.push(file("disc/broken.png", "not a picture"));
    let on_threads = |threads, files: &Files| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| dataset_of(&bench, files, HOLD_OUT))
    };
    let first = on_threads(1, &files);
    assert_eq!(on_threads(1, &files), first);
    assert_eq!(on_threads(5, &files), first);
    files.reverse();
    let reversed = on_threads(3, &files);
    assert_eq!((reversed.shards, reversed.rejections), (first.shards, first.rejections));
}

#[test]
fn folds_are_those_of_the_split_rule_and_hold_every_photo_once() {
    let bench = Bench::new();
    let manifest = dataset_of(&bench, &shapes(15), Split::Folds(5));
    assert_eq!(manifest.split, SplitKind::Folds(5));
    assert_eq!(manifest.class_counts, [ClassCount { train: 15, valid: 0 }; 2]);
    let dataset = open(&bench, &manifest);
    let mut sizes: BTreeMap<(usize, u32), usize> = BTreeMap::new();
    for record in dataset.records() {
        let Place::Fold(fold) = record.place else { panic!("{record:?}") };
        *sizes.entry((record.label, fold)).or_default() += 1;
    }
    assert_eq!(sizes.keys().map(|(_, fold)| *fold).collect::<BTreeSet<_>>().len(), 5);
    assert!(sizes.values().all(|photos| *photos == 3), "15 photos of each class over 5 folds: {sizes:?}");
}
