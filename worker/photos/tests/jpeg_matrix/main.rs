//! Decodes JPEG files of every layout of scans, sampling, restart interval, process and kind of colour, and compares all pixels
//! with those of libjpeg-turbo.
//!
//! The files are written here. `data/jpeg_matrix.csv` holds the checksum of each picture's pixels in Pillow, which has a
//! libjpeg-turbo of its own; `golden/gen_jpeg_matrix.py` wrote it from the files that `SORTINGHAT_WRITE_MATRIX=folder` writes.

mod encoder;

use std::{collections::BTreeMap, env, fs, iter, path::Path};

use flate2::Crc;
use rayon::prelude::*;
use sortinghat_photos::{DecodeLimits, decode};

use encoder::{Component, Header, Picture, Process, Scan};

/// Largest difference of a sample, of 255: the fast decoder's inverse transform and its interpolation round differently.
const TOLERANCE: u8 = 3;
const SIZES: [(usize, usize); 4] = [(41, 35), (24, 20), (48, 32), (4, 20)];
const RESTARTS: [usize; 3] = [0, 1, 3];

/// Name, header and identifiers of components.
const COLORS: [(&str, Header, &[u8]); 9] = [
    ("grey", Header::Jfif, &[1]),
    ("ycbcr-jfif", Header::Jfif, &[1, 2, 3]),
    ("ycbcr-bare", Header::None, &[1, 2, 3]),
    ("ycbcr-adobe", Header::Adobe(1), &[1, 2, 3]),
    ("rgb-adobe", Header::Adobe(0), b"RGB"),
    ("rgb-bare", Header::None, b"RGB"),
    ("cmyk-adobe", Header::Adobe(0), b"CMYK"),
    ("cmyk-bare", Header::None, &[1, 2, 3, 4]),
    ("ycck", Header::Adobe(2), &[1, 2, 3, 4]),
];

/// Sampling factors of each component, as digits: across and down. A unit may have ten blocks at most.
const SAMPLINGS: [&str; 24] = [
    "11",
    "22",
    "21",
    "11-11-11",
    "21-11-11",
    "22-11-11",
    "12-11-11",
    "41-11-11",
    "14-11-11",
    "42-11-11",
    "22-21-21",
    "22-12-12",
    "22-21-12",
    "21-21-11",
    "11-21-21",
    "11-12-12",
    "11-22-22",
    "12-21-11",
    "11-11-21",
    "21-21-21",
    "11-11-11-11",
    "22-11-11-22",
    "21-11-11-21",
    "11-22-22-11",
];

/// A file, and the picture that it shows.
struct Case {
    file: String,
    picture: String,
    bytes: Vec<u8>,
}

#[test]
fn every_layout_of_scans_gives_the_pixels_of_libjpeg_turbo() {
    let cases: Vec<Case> = pictures().par_iter().flat_map_iter(|(name, picture)| files(name, picture)).collect();
    assert!(cases.len() > 20_000, "{} files", cases.len());
    if let Some(folder) = env::var_os("SORTINGHAT_WRITE_MATRIX") {
        cases.iter().for_each(|case| fs::write(Path::new(&folder).join(&case.file), &case.bytes).expect("a folder"));
    }
    let known = pillows();
    let mut faults: Vec<String> = cases.par_iter().filter_map(|case| fault(case, &known)).collect();
    faults.sort();
    assert!(faults.is_empty(), "{} of {} files:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

/// What is wrong about a file.
fn fault(case: &Case, known: &BTreeMap<String, u32>) -> Option<String> {
    let expected = libjpegs(&case.bytes);
    let mut crc = Crc::new();
    crc.update(&expected);
    let file = &case.file;
    if known.get(&case.picture) != Some(&crc.sum()) {
        return Some(format!("{file}: the reference decodes it otherwise than Pillow"));
    }
    let photo = match decode(&case.bytes, &DecodeLimits::default()) {
        Ok(photo) => photo,
        Err(error) => return Some(format!("{file}: {error}")),
    };
    let worst = iter::zip(&photo.pixels, &expected).map(|(ours, theirs)| ours.abs_diff(*theirs)).max();
    let is_wrong = photo.pixels.len() != expected.len() || worst > Some(TOLERANCE);
    is_wrong.then(|| format!("{file}: a sample differs by {}", worst.unwrap_or(0)))
}

/// RGB by libjpeg-turbo.
fn libjpegs(file: &[u8]) -> Vec<u8> {
    let decoder = mozjpeg::Decompress::new_mem(file).expect("a JPEG");
    if decoder.components().len() < 4 {
        return decoder.rgb().and_then(|mut lines| lines.read_scanlines()).expect("a JPEG");
    }
    let is_inverted = file.windows(5).any(|window| window == b"Adobe");
    let inks =
        decoder.to_colorspace(mozjpeg::ColorSpace::JCS_CMYK).and_then(|mut lines| lines.read_scanlines::<[u8; 4]>());
    let light = |[ink, black]: [u8; 2]| {
        let [ink, black] = [ink, black].map(|value| u32::from(if is_inverted { value } else { 255 - value }));
        ((ink * black + 127) / 255) as u8
    };
    inks.expect("a JPEG").into_iter().flat_map(|[c, m, y, k]| [c, m, y].map(|ink| light([ink, k]))).collect()
}

fn pillows() -> BTreeMap<String, u32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jpeg_matrix.csv");
    let mut reader = csv::Reader::from_path(path).expect("Pillow's checksums");
    let rows = reader.records().map(|row| row.expect("two columns"));
    rows.map(|row| (row[0].to_owned(), u32::from_str_radix(&row[1], 16).expect("a checksum"))).collect()
}

fn pictures() -> Vec<(String, Picture)> {
    let mut pictures = Vec::new();
    for (color, header, ids) in COLORS {
        for sampling in SAMPLINGS {
            let factors: Vec<(usize, usize)> = sampling.split('-').map(factors).collect();
            if factors.len() != ids.len() {
                continue;
            }
            for (width, height) in SIZES {
                let name = format!("{color}_{sampling}_{width}x{height}");
                let picture = picture((width, height), header, ids, &factors);
                pictures.push((name, picture));
            }
        }
    }
    pictures
}

fn factors(digits: &str) -> (usize, usize) {
    let number: usize = digits.parse().expect("two digits");
    (number / 10, number % 10)
}

/// A picture with coefficients by chance, the same in every run.
fn picture((width, height): (usize, usize), header: Header, ids: &[u8], factors: &[(usize, usize)]) -> Picture {
    let mut picture = Picture { width, height, header, components: Vec::new() };
    for (id, sampling) in iter::zip(ids, factors) {
        picture.components.push(Component { id: *id, sampling: *sampling, columns: 0, blocks: Vec::new() });
    }
    let (across, down) = picture.units();
    let mut state = 0x9e37_79b9_u32;
    let mut chance = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(state) * u64::from(below)) >> 32) as i32
    };
    for component in &mut picture.components {
        component.columns = across * component.sampling.0;
        let count = component.columns * down * component.sampling.1;
        component.blocks = iter::repeat_with(|| {
            let mut block = [0; 64];
            block[0] = chance(101) - 50;
            for _ in 0..chance(9) {
                block[1 + chance(63) as usize] = chance(15) - 7;
            }
            block
        })
        .take(count)
        .collect();
    }
    picture
}

fn files(name: &str, picture: &Picture) -> Vec<Case> {
    let mut cases = Vec::new();
    for (layout, process, scans) in layouts(picture.components.len()) {
        // Scans that leave bits out show another picture.
        let shown = if layout.ends_with("incomplete") { format!("{name}_incomplete") } else { name.to_owned() };
        for restart in RESTARTS {
            let bytes = picture.encode(process, &scans, restart);
            cases.push(Case { file: format!("{name}_{layout}_r{restart}.jpg"), picture: shown.clone(), bytes });
        }
    }
    cases
}

/// How components are dealt to sequential scans, as digits.
fn deals(components: usize) -> &'static [&'static str] {
    match components {
        1 => &["0"],
        3 => &["012", "0-1-2", "2-1-0", "1-0-2", "01-2", "0-12", "12-0", "02-1", "2-01"],
        _ => &["0123", "0-1-2-3", "3-2-1-0", "01-23", "012-3", "0-123", "02-13"],
    }
}

fn layouts(components: usize) -> Vec<(String, Process, Vec<Scan>)> {
    let mut layouts = Vec::new();
    for deal in deals(components) {
        let scan = |digits: &str| Scan {
            components: digits.bytes().map(|digit| usize::from(digit - b'0')).collect(),
            coefficients: (0, 63),
            approximation: (0, 0),
        };
        let scans: Vec<Scan> = deal.split('-').map(scan).collect();
        layouts.push((format!("baseline-{deal}"), Process::Baseline, scans.clone()));
        layouts.push((format!("extended-{deal}"), Process::Extended, scans));
    }
    let all: Vec<usize> = (0..components).collect();
    let together = |approximation| vec![Scan { components: all.clone(), coefficients: (0, 0), approximation }];
    let apart = |coefficients, approximation| -> Vec<Scan> {
        all.iter().map(|index| Scan { components: vec![*index], coefficients, approximation }).collect()
    };
    let mut add = |name: &str, parts: Vec<Vec<Scan>>| {
        layouts.push((format!("progressive-{name}"), Process::Progressive, parts.concat()));
    };
    add("spectral", vec![together((0, 0)), apart((1, 63), (0, 0))]);
    add("apart", vec![apart((0, 0), (0, 0)), apart((1, 5), (0, 0)), apart((6, 63), (0, 0))]);
    let coarse = || vec![together((0, 1)), apart((1, 5), (0, 2)), apart((6, 63), (0, 2)), apart((1, 63), (2, 1))];
    let fine = vec![together((1, 0)), apart((1, 63), (1, 0))];
    add("successive", [coarse(), fine].concat());
    add("incomplete", coarse());
    layouts
}
