//! Writes the folds that a dataset of a folder would have, so that another trainer can be compared on the very same ones.
//!
//! `cargo run -p sortinghat-worker --example folds -- DIR FOLDS SEED CLASS... > folds.csv`: the classes are sub-folders of
//! DIR, searched recursively for PNG files; columns are path, class, digest, group, fold.

use std::{
    env,
    error::Error,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use sortinghat_proto::Digest;
use sortinghat_worker::{
    dataset::split::{Item, deal_folds},
    photos::{DecodeLimits, decode, neighbours, phash::Fingerprint},
};

type Failure = Box<dyn Error + Send + Sync>;

struct Image {
    path: PathBuf,
    class: usize,
    digest: Digest,
    fingerprint: Fingerprint,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [root, folds, seed, classes @ ..] = arguments.as_slice() else {
        return Err("usage: folds DIR FOLDS SEED CLASS...".into());
    };
    let (folds, seed) = (folds.parse()?, seed.parse()?);
    let mut paths = Vec::new();
    for (class, name) in classes.iter().enumerate() {
        pngs(&Path::new(root).join(name), &mut |path| paths.push((class, path)))?;
    }
    paths.sort();
    let mut images =
        paths.into_par_iter().map(|(class, path)| read(class, path)).collect::<Result<Vec<_>, Failure>>()?;
    let mut seen = std::collections::HashSet::new();
    images.retain(|image| seen.insert(image.digest.clone()));

    let fingerprints: Vec<Fingerprint> = images.iter().map(|image| image.fingerprint.clone()).collect();
    let groups = neighbours::group(&fingerprints);
    let items: Vec<Item> = images
        .iter()
        .zip(&groups)
        .map(|(image, group)| Item { digest: image.digest.clone(), class: image.class, group: *group })
        .collect();
    let placement = deal_folds(&items, classes.len(), folds, seed)?;

    let mut out = io::stdout().lock();
    writeln!(out, "path,class,digest,group,fold")?;
    for ((image, group), fold) in images.iter().zip(&groups).zip(&placement.places) {
        let path = image.path.strip_prefix(root)?.display();
        writeln!(out, "{path},{},{},{group},{fold}", classes[image.class], image.digest)?;
    }
    Ok(())
}

fn pngs(directory: &Path, found: &mut impl FnMut(PathBuf)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            pngs(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "png") {
            found(path);
        }
    }
    Ok(())
}

fn read(class: usize, path: PathBuf) -> Result<Image, Failure> {
    let bytes = fs::read(&path)?;
    let photo = decode(&bytes, &DecodeLimits::default()).map_err(|error| format!("{}: {error}", path.display()))?;
    let digest = Digest::of(&bytes);
    Ok(Image { path, class, digest, fingerprint: Fingerprint::of(&photo) })
}
