//! Resizing against Pillow's values, which `golden/gen_resize.py` wrote.

use sortinghat_worker::photos::{
    ImageFormat, Photo,
    resize::{fastai_resize, imagenet_center},
};

/// Largest difference of a sample from Pillow's, of 255: its weights have more bits than ours, so a value near a half may be
/// rounded the other way.
const TOLERANCE: u8 = 1;

/// The script's synthetic picture.
fn picture(width: u32, height: u32) -> Photo {
    let value = |x: u32, y: u32, channel: u32| ((x * 7 + y * 13 + channel * 50 + x * y % 31) % 256) as u8;
    let pixels = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |channel| value(x, y, channel))))
        .collect();
    Photo { width, height, pixels, format: ImageFormat::Png, notes: Vec::new() }
}

#[test]
fn resized_pixels_are_pillows_within_one_level() {
    let mut reader = csv::Reader::from_reader(&include_bytes!("data/photos/resize.csv")[..]);
    for record in reader.records() {
        let record = record.expect("six columns");
        let number = |column: usize| record[column].parse::<u32>().expect("a number");
        let photo = picture(number(1), number(2));
        let resized = match &record[0] {
            "fastai" => fastai_resize(&photo, number(3), (0.5, 0.5)),
            "imagenet" => imagenet_center(&photo, number(3), number(4)),
            other => panic!("unknown kind {other}"),
        };
        let expected = hex::decode(&record[5]).expect("hexadecimal");
        assert_eq!(resized.len(), expected.len());
        let worst = resized.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(TOLERANCE), "{} {} x {}: {worst:?}", &record[0], photo.width, photo.height);
    }
}
