//! The 713 stamps of the comparison with fastai, ingested as `hat ingest --folds 5 --seed 1` does: the folds must be those on
//! which `docs/parity.md` compares.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

#[allow(dead_code, reason = "shared with the tests of the other jobs, which use the rest")]
mod shapes;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use shapes::{Bench, Inputs};
use sortinghat_proto::{IngestSpec, JobSpec, Split, layout::LayoutChoice, manifest::DatasetManifest};
use sortinghat_worker::dataset::{Dataset, Place};

#[test]
fn ingest_deals_the_folds_of_the_comparison() {
    let root = stamps();
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    let bench = Bench::new();
    let spec = IngestSpec {
        dataset_name: "stamps".parse().unwrap(),
        source: bench.upload(&files),
        split: Split::Folds(5),
        seed: 1,
        allow_failures: false,
        derivative_short_side_px: 512,
        layout: LayoutChoice::Auto,
    };
    let output = bench.run(JobSpec::Ingest(spec), Inputs::default()).output();
    let manifest: DatasetManifest = bench.objects().document(&output.manifest).unwrap();
    let shards = manifest.shards.iter().map(|shard| bench.objects().open(&shard.object).unwrap());
    let dataset = Dataset::open(shards).unwrap();
    let dealt: BTreeMap<String, (String, u32)> = dataset
        .records()
        .iter()
        .map(|record| {
            let Place::Fold(fold) = record.place else { panic!("{record:?}") };
            (record.path.clone(), (record.digest.to_string(), fold))
        })
        .collect();

    let mut committed = BTreeMap::new();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parity/folds.csv");
    for row in csv::Reader::from_path(table).unwrap().records() {
        let row = row.unwrap();
        committed.insert(row[0].to_owned(), (row[2].to_owned(), row[4].parse().unwrap()));
    }
    assert_eq!(committed.len(), 713);
    assert_eq!(dealt, committed);
}

/// Where `make test-deps` puts the stamps.
fn stamps() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
    let stamps = cache.unwrap_or_else(home).join("sortinghat/photos/stamps");
    assert!(stamps.is_dir(), "the stamps are not in {}: run `make test-deps`", stamps.display());
    stamps
}

/// All files below `folder`: path from `root`, and content.
fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            files.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()));
        }
    }
}
