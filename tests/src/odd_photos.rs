//! Files that are no usual photos, made here: broken ones, foreign ones, and good ones in unusual dress.

use std::{fs, io::BufWriter, path::Path};

/// A PNG of `width` x `height` random-looking samples in any colour type and depth; `seed` makes it unlike others.
pub fn png(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(BufWriter::new(&mut bytes), width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette((0..=255).flat_map(|n: u8| [n, 255 - n, n / 2]).collect::<Vec<_>>());
    }
    let samples = color.samples() * if depth == png::BitDepth::Sixteen { 2 } else { 1 };
    let row = (width as usize) * samples;
    let block = (height as usize / 4).max(1);
    // Blocks, as in other test photos: noise of single pixels would all look alike to a perceptual hash.
    let value = |y: usize, x: usize| {
        let cell = (y / block * 4 + x * 4 / row) as u64;
        (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(cell.wrapping_mul(0xbf58_476d_1ce4_e5b9)) >> 40) as u8
    };
    let pixels: Vec<u8> = (0..height as usize).flat_map(|y| (0..row).map(move |x| value(y, x))).collect();
    let mut writer = encoder.write_header().expect("the header is valid");
    writer.write_image_data(&pixels).expect("the pixels fill the picture");
    writer.finish().expect("memory takes every write");
    bytes
}

/// A PNG whose header announces `width` x `height` pixels, and that ends there.
pub fn png_that_announces(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("the header is valid");
    // The beginning of a zlib stream.
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).expect("memory can be written to");
    drop(writer);
    bytes
}

/// The start of a HEIC file, as telephones write it.
pub const HEIC: &[u8] = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic";

/// An SVG drawing.
pub const SVG: &[u8] = b"<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>";

/// The start of a ZIP archive whose first entry wants to leave its folder.
pub const ZIP: &[u8] = b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0e\x00\x00\x00../../evil.png";

/// Writes a file and the folders above it.
///
/// # Panics
/// When the test's folder cannot be written.
pub fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the test's folder is writable");
    fs::write(path, content).expect("the test's folder is writable");
}

/// The same 8-bit PNG with its first sample one level off: another file of the same picture.
///
/// # Panics
/// When it is no PNG.
pub fn one_level_off(bytes: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a small picture")];
    reader.next_frame(&mut pixels).expect("a whole PNG");
    pixels[0] ^= 1;
    let (width, height) = reader.info().size();
    let mut off = Vec::new();
    let mut encoder = png::Encoder::new(&mut off, width, height);
    encoder.set_color(reader.info().color_type);
    let mut writer = encoder.write_header().expect("the header is valid");
    writer.write_image_data(&pixels).expect("the pixels fill the picture");
    writer.finish().expect("memory takes every write");
    off
}

/// A ResNet-18 without its classifier as a safetensors file of which every number is NaN.
pub fn resnet18_of_nan() -> Vec<u8> {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut layer = |conv: String, norm: String, shape: [usize; 4]| {
        shapes.push((format!("{conv}.weight"), shape.to_vec()));
        let parts = ["weight", "bias", "running_mean", "running_var"];
        shapes.extend(parts.map(|part| (format!("{norm}.{part}"), vec![shape[0]])));
    };
    layer("conv1".into(), "bn1".into(), [64, 3, 7, 7]);
    let mut inputs = 64;
    for (stage, width) in (1..).zip([64, 128, 256, 512]) {
        for block in 0..2 {
            let name = format!("layer{stage}.{block}");
            layer(format!("{name}.conv1"), format!("{name}.bn1"), [width, inputs, 3, 3]);
            layer(format!("{name}.conv2"), format!("{name}.bn2"), [width, width, 3, 3]);
            if inputs != width {
                layer(format!("{name}.downsample.0"), format!("{name}.downsample.1"), [width, inputs, 1, 1]);
            }
            inputs = width;
        }
    }
    safetensors_of_nan(&shapes)
}

fn safetensors_of_nan(shapes: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let start = end;
        end += shape.iter().product::<usize>() * 4;
        header
            .insert(name.clone(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let mut header = serde_json::to_vec(&header).expect("plain data is JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let numbers = f32::NAN.to_le_bytes().repeat(end / 4);
    [&(header.len() as u64).to_le_bytes()[..], &header, &numbers].concat()
}
