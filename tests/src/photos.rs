//! Photos for tests: coloured shapes, each of which is a pure function of its class and number.

use std::{fs, path::Path};

use sortinghat_client::SourceFile;
use sortinghat_proto::v1::FinetuneSpec;

use crate::dice::mix;

/// Classes that a network distinguishes after a few steps, as each has a tint of its own.
pub const CLASSES: [&str; 3] = ["blue", "green", "red"];

/// Writes `per_class` photos of `side` x `side` pixels for each of [`CLASSES`] into `folder/<class>/<number>.png`, and returns them in the
/// form that an upload needs.
pub fn write_classes(folder: &Path, per_class: u32, side: u32) -> Vec<SourceFile> {
    let mut files = Vec::new();
    for (class, name) in CLASSES.iter().enumerate() {
        fs::create_dir_all(folder.join(name)).expect("the test's folder is writable");
        for number in 0..per_class {
            let path = format!("{name}/{number:03}.png");
            let location = folder.join(&path);
            write_png(&location, side, &shape(class, number, side));
            let size_bytes = location.metadata().expect("it was written").len();
            files.push(SourceFile { path, location, packed: None, size_bytes, shown: None });
        }
    }
    files
}

/// A training of a few steps on a dataset of such photos.
pub fn short_training(dataset: String) -> FinetuneSpec {
    FinetuneSpec {
        dataset,
        backbone: "efficientnet_lite0".to_owned(),
        weights: "none".to_owned(),
        epochs: 1,
        batch_size: 4,
        image_size_px: 32,
        ..FinetuneSpec::default()
    }
}

/// Random blocks, so that no two photos are near-duplicates, tinted towards the class's colour. `[side, side, 3]` bytes.
fn shape(class: usize, number: u32, side: u32) -> Vec<u8> {
    let block = side / 4;
    let mut pixels = Vec::with_capacity((side * side * 3) as usize);
    for y in 0..side {
        for x in 0..side {
            let cell = (y / block) * 4 + x / block;
            for channel in 0..3 {
                let seed = u64::from(number) << 24 | u64::from(cell) << 8 | channel as u64 | (class as u64) << 56;
                let noise = (mix(seed) % 120) as u8;
                // Channel 0 is red: class 2 is red, 1 green, 0 blue.
                pixels.push(if channel == 2 - class { 135 + noise } else { noise });
            }
        }
    }
    pixels
}

fn write_png(path: &Path, side: u32, pixels: &[u8]) {
    fs::write(path, png_of(side, pixels)).expect("the test's folder is writable");
}

fn png_of(side: u32, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("the header is valid");
    writer.write_image_data(pixels).expect("the pixels fill the picture");
    writer.finish().expect("memory takes every write");
    file
}

/// A picture as PNG of one of ten classes: random blocks, whose size and colour are the class's own. No two pictures are near-duplicates.
pub fn blocks(class: u32, number: u32, side: u32) -> Vec<u8> {
    const COLOURS: [[u64; 3]; 5] = [[250, 40, 40], [40, 220, 60], [50, 80, 250], [240, 220, 40], [200, 60, 230]];
    let colour = COLOURS[class as usize % COLOURS.len()];
    let cells = if (class as usize) < COLOURS.len() { 4 } else { 16 };
    let mut pixels = Vec::with_capacity((side * side * 3) as usize);
    for y in 0..side {
        for x in 0..side {
            let cell = (y * cells / side) * cells + x * cells / side;
            let light = 64 + mix(u64::from(class) << 48 | u64::from(number) << 16 | u64::from(cell)) % 192;
            pixels.extend(colour.map(|value| (value * light / 256) as u8));
        }
    }
    png_of(side, &pixels)
}
