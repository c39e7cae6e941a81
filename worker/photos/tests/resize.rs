//! Compares resizing and cropping with the values of Pillow and fastai, which `golden/gen_resize.py` and `gen_crops.py` wrote.

use sortinghat_photos::{
    ImageFormat, Photo,
    resize::{CropBox, fastai_resize, imagenet_center, random_resized, squeezed_center},
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
    let mut reader = csv::Reader::from_reader(&include_bytes!("data/resize.csv")[..]);
    for record in reader.records() {
        let record = record.expect("six columns");
        let number = |column: usize| record[column].parse::<u32>().expect("a number");
        let photo = picture(number(1), number(2));
        let resized = match &record[0] {
            "fastai" => fastai_resize(&photo, number(3), (0.5, 0.5)),
            "imagenet" => imagenet_center(&photo, number(3), number(4)),
            other => panic!("unknown kind {other}"),
        };
        assert_near(&resized, &record[5], &format!("{} {} x {}", &record[0], photo.width, photo.height));
    }
}

fn assert_near(resized: &[u8], expected: &str, what: &str) {
    let expected = hex::decode(expected).expect("hexadecimal");
    assert_eq!(resized.len(), expected.len());
    let worst = resized.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(TOLERANCE), "{what}: {worst:?}");
}

#[test]
fn fastais_resize_and_random_resized_crop_are_drawn_and_resized_as_fastai_does() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/crops.json")).expect("JSON");
    let size = golden["size"].as_u64().expect("a size") as u32;
    for case in golden["cases"].as_array().expect("cases") {
        let number = |key: &str| case[key].as_u64().expect("a number") as u32;
        let photo = picture(number("width"), number("height"));
        let mut draws = case["draws"].as_array().expect("draws").iter().map(|draw| draw.as_f64().expect("a draw"));
        let mut uniform = || draws.next().expect("fastai drew as often");
        let min_scale = case["min_scale"].as_f64().unwrap_or_default();
        let resized = match (case["kind"].as_str(), case["valid"].as_bool()) {
            (Some("resize"), _) => fastai_resize(&photo, size, (0.5, 0.5)),
            (_, Some(true)) => squeezed_center(&photo, size),
            _ => random_resized(&photo, size, min_scale, &mut uniform),
        };
        let what = format!("{} of {} x {}, {min_scale}", case["kind"], photo.width, photo.height);
        assert_eq!(draws.next(), None, "{what}: fastai draws more");
        assert_near(&resized, case["pixels"].as_str().expect("pixels"), &what);
    }
}

#[test]
fn a_random_crop_of_the_smallest_photo_has_a_pixel() {
    let crop = CropBox::random_resized(1, 1, 0.01, || 0.0);
    assert_eq!(crop, CropBox { left: 0, top: 0, width: 1, height: 1 });
}
