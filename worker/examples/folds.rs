//! Writes the folds that a dataset of a folder would have, so that another trainer can be compared on the very same ones.
//!
//! `cargo run -p sortinghat-worker --example folds -- DIR FOLDS SEED CLASS... > folds.csv`: the classes are sub-folders of
//! DIR, searched recursively for PNG files; columns are path, class, digest, group, fold. The folds are dealt by the code that
//! `hat ingest --folds` runs.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sortinghat_photos::{DecodeLimits, derivative::DEFAULT_SHORT_SIDE};
use sortinghat_proto::{ObjectRef, Split, manifest::UploadedFile};
use sortinghat_worker::dataset::{
    Place,
    intake::{IntakeOptions, take_in},
    plan::Plan,
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [root, folds, seed, classes @ ..] = arguments.as_slice() else {
        return Err("usage: folds DIR FOLDS SEED CLASS...".into());
    };
    let (root, folds, seed) = (Path::new(root), folds.parse()?, seed.parse()?);
    let mut paths = Vec::new();
    for class in classes {
        pngs(&root.join(class), &mut |path| paths.push(path))?;
    }
    let files = paths.iter().map(|path| uploaded(root, path)).collect::<Result<Vec<_>, Failure>>()?;
    let options = IntakeOptions { limits: DecodeLimits::default(), short_side_px: DEFAULT_SHORT_SIDE };
    let read = |file: &UploadedFile| Ok::<_, Failure>(fs::read(root.join(&file.path))?.into());
    let intake = take_in(&files, options, read, |_| Ok(()), |_, _| ())?;
    let plan = Plan::new(&intake, Split::Folds(folds), seed, &|_, _| {})?;

    let mut rows: Vec<usize> = (0..intake.accepted.len()).collect();
    rows.sort_by_key(|row| Path::new(&intake.accepted[*row].path));
    // A group is called by the number of its first row.
    let mut names = HashMap::new();
    let mut out = io::stdout().lock();
    writeln!(out, "path,class,digest,group,fold")?;
    for (number, row) in rows.into_iter().enumerate() {
        let (accepted, class) = (&intake.accepted[row], &plan.classes[plan.labels[row]]);
        let group = names.entry(plan.groups[row]).or_insert(number);
        let Place::Fold(fold) = plan.places[row] else { return Err("train/ and valid/ folders have no folds".into()) };
        writeln!(out, "{},{class},{},{group},{fold}", accepted.path, accepted.digest)?;
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

fn uploaded(root: &Path, path: &Path) -> Result<UploadedFile, Failure> {
    let relative = path.strip_prefix(root)?.to_str().ok_or("a path that is not UTF-8")?.to_owned();
    Ok(UploadedFile::new(relative, ObjectRef::of(&fs::read(path)?)))
}
