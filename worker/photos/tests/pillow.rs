//! Compares our verdict on every file of Pillow's collection of broken and odd images with Pillow's own and with the committed one.
//!
//! `golden/gen_pillow_images.py` wrote `data/pillow.csv`. `SORTINGHAT_WRITE_VERDICTS=1` rewrites
//! `data/verdicts.csv`; review the differences like those of code.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use rayon::prelude::*;
use sortinghat_photos::{DecodeError, DecodeLimits, ImageFormat, Photo, decode};

const GRID: usize = 4;
const SAMPLES: u64 = 32;
/// Largest difference of a cell's mean colour from Pillow's, of 255.
const CELL_TOLERANCE: u8 = 1;
/// Largest difference of a single pixel of a JPEG, and of a TIFF, which may hold one: inverse transforms and chroma
/// interpolation round differently.
const LOSSY_TOLERANCE: u8 = 2;
/// Largest difference of a single pixel elsewhere: more than 8 bits are rounded here, and cut in Pillow.
const EXACT_TOLERANCE: u8 = 1;
/// A decoder that takes longer on any of these small files hangs.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What we make of a file.
struct Verdict {
    /// `accepted`, or the machine-readable reason.
    outcome: String,
    width: u32,
    height: u32,
    thumb: Vec<u8>,
    samples: Vec<u8>,
    tolerance: u8,
}

#[test]
fn every_file_of_pillows_collection_gets_its_committed_verdict_and_pillows_pixels() {
    let corpus = corpus();
    let verdicts = verdicts(&corpus);
    let table = table(&verdicts);
    let committed = data("verdicts.csv");
    if env::var_os("SORTINGHAT_WRITE_VERDICTS").is_some() {
        fs::write(&committed, &table).expect("the verdict file is writable");
    }
    let expected = fs::read_to_string(&committed).expect("the committed verdicts");
    let changed: Vec<_> = table.lines().filter(|line| !expected.lines().any(|known| known == *line)).collect();
    assert!(changed.is_empty(), "verdicts that are not committed:\n{}", changed.join("\n"));
    assert_eq!(table.lines().count(), expected.lines().count(), "files are missing from {}", corpus.display());

    let exceptions = exceptions();
    let failures: Vec<String> = pillow()
        .into_iter()
        .filter_map(|(file, theirs)| {
            let difference = difference(&verdicts[&file], &theirs);
            match (difference, exceptions.contains_key(&file)) {
                (Some(difference), false) => Some(format!("{file}: {difference}")),
                (None, true) => Some(format!("{file}: agrees with Pillow now; take it off the exceptions")),
                _ => None,
            }
        })
        .collect();
    assert!(failures.is_empty(), "{} differences from Pillow:\n{}", failures.len(), failures.join("\n"));
}

fn corpus() -> PathBuf {
    let named = env::var_os("SORTINGHAT_PILLOW_IMAGES").map(PathBuf::from);
    let cache = || {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
        cache.unwrap_or_else(home).join("sortinghat/pillow-images")
    };
    let corpus = named.unwrap_or_else(cache);
    assert!(corpus.is_dir(), "Pillow's test images are not in {}: run `make test-deps`", corpus.display());
    corpus
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn verdicts(corpus: &Path) -> BTreeMap<String, Verdict> {
    let mut paths = Vec::new();
    files(corpus, &mut paths);
    paths.sort();
    paths
        .into_par_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(corpus).expect("below the corpus").to_str()?.to_owned();
            (!name.starts_with('.')).then(|| (name, verdict(&path)))
        })
        .collect()
}

/// Decodes on a thread of its own, so that a hang fails the test by name.
fn verdict(path: &Path) -> Verdict {
    let bytes = fs::read(path).expect("a readable file");
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(judged(&decode(&bytes, &DecodeLimits::default()))));
    receive.recv_timeout(TIME_LIMIT).unwrap_or_else(|_| panic!("{} hangs or crashes the decoder", path.display()))
}

fn judged(result: &Result<Photo, DecodeError>) -> Verdict {
    match result {
        Ok(photo) => {
            let is_lossy = matches!(photo.format, ImageFormat::Jpeg | ImageFormat::Tiff);
            Verdict {
                outcome: "accepted".into(),
                width: photo.width,
                height: photo.height,
                thumb: thumb(photo),
                samples: samples(photo),
                tolerance: if is_lossy { LOSSY_TOLERANCE } else { EXACT_TOLERANCE },
            }
        }
        Err(error) => {
            let name = error.unsupported_format().map_or(String::new(), |name| format!(" {name}"));
            let outcome = format!("{}{name}", error.reason());
            Verdict { outcome, width: 0, height: 0, thumb: Vec::new(), samples: Vec::new(), tolerance: 0 }
        }
    }
}

/// Single pixels, spread over the picture as the script spreads them.
fn samples(photo: &Photo) -> Vec<u8> {
    let pixels = photo.pixels.as_chunks::<3>().0;
    let index = |k: u64| (k * 2_654_435_761 + 12_345) % pixels.len() as u64;
    (0..SAMPLES).flat_map(|k| pixels[index(k) as usize]).collect()
}

/// Means of the cells of the grid, as the script computes them.
fn thumb(photo: &Photo) -> Vec<u8> {
    let (width, height) = (photo.width as usize, photo.height as usize);
    let mut values = Vec::new();
    for cell in 0..GRID * GRID {
        let (row, column) = (cell / GRID, cell % GRID);
        let (top, left) = (height * row / GRID, width * column / GRID);
        let (bottom, right) = ((height * (row + 1) / GRID).max(top + 1), (width * (column + 1) / GRID).max(left + 1));
        let count = (bottom - top) * (right - left);
        for channel in 0..3 {
            let sum: u64 = (top..bottom)
                .flat_map(|y| (left..right).map(move |x| (y * width + x) * 3 + channel))
                .map(|at| u64::from(photo.pixels[at]))
                .sum();
            values.push((sum as f64 / count as f64).round() as u8);
        }
    }
    values
}

fn table(verdicts: &BTreeMap<String, Verdict>) -> String {
    let mut table = "file,verdict,width,height\n".to_owned();
    for (file, Verdict { outcome, width, height, .. }) in verdicts {
        writeln!(table, "{file},{outcome},{width},{height}").expect("text takes every write");
    }
    table
}

/// Pillow's row for a file: width, height, thumb and samples of what it decodes; `None` where it refuses.
type PillowRow = Option<(u32, u32, Vec<u8>, Vec<u8>)>;

fn pillow() -> BTreeMap<String, PillowRow> {
    let mut reader = csv::Reader::from_path(data("pillow.csv")).expect("Pillow's verdicts");
    let mut rows = BTreeMap::new();
    for record in reader.records() {
        let record = record.expect("seven columns");
        let bytes = |column: usize| hex::decode(&record[column]).expect("hexadecimal");
        let number = |column: usize| record[column].parse().expect("a number");
        let decoded = &record[1] == "decoded";
        let row = decoded.then(|| (number(3), number(4), bytes(5), bytes(6)));
        rows.insert(record[0].to_owned(), row);
    }
    rows
}

/// Files on which we differ from Pillow, each with its reason.
fn exceptions() -> BTreeMap<String, String> {
    let mut reader = csv::Reader::from_path(data("exceptions.csv")).expect("the committed exceptions");
    let pairs = reader.records().map(|record| record.expect("two columns"));
    pairs.map(|record| (record[0].to_owned(), record[1].to_owned())).collect()
}

/// How our verdict differs from Pillow's, if it does. We may accept or refuse what Pillow refuses.
fn difference(ours: &Verdict, theirs: &PillowRow) -> Option<String> {
    let (width, height, thumb, samples) = theirs.as_ref()?;
    if ours.outcome != "accepted" {
        return Some(format!("Pillow decodes it, we say {}", ours.outcome));
    }
    if (ours.width, ours.height) != (*width, *height) {
        return Some(format!("{width} x {height} in Pillow, {} x {} here", ours.width, ours.height));
    }
    let worst = |ours: &[u8], theirs: &[u8]| ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    let (cell, pixel) = (worst(&ours.thumb, thumb), worst(&ours.samples, samples));
    (cell > CELL_TOLERANCE || pixel > ours.tolerance)
        .then(|| format!("a cell's mean differs by {cell}, a pixel by {pixel}"))
}
