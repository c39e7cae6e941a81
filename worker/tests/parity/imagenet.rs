//! The real weights recognise real photos.

use std::path::PathBuf;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use sortinghat_proto::Backbone;
use sortinghat_worker::{
    device::Precision,
    models::{Classifier, ModelConfig, StateDict},
};
use tch::{Device, Kind, Tensor, no_grad};

use crate::formula::{device, values};

/// A file that `make deps` installs.
fn installed(path: &str) -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME is set");
    let file = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(home).join(".cache"), PathBuf::from)
        .join("sortinghat")
        .join(path);
    assert!(file.exists(), "{} is missing: run `make deps`", file.display());
    file
}

/// Bicubic to a short side of 256, then the central 224: `[1, 3, 224, 224]` in 0..1.
fn photo(name: &str) -> Tensor {
    let photo = image::open(installed(&format!("photos/scikit-image/{name}"))).unwrap().into_rgb8();
    let (width, height) = photo.dimensions();
    let short = width.min(height);
    let scaled = |side: u32| (f64::from(side) * 256.0 / f64::from(short)).round() as u32;
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, &photo).unwrap();
    let (width, height) = (scaled(width), scaled(height));
    let mut resized = vec![0; 3 * (width * height) as usize];
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut resized).unwrap();
    let bicubic = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize_typed(&source, &mut target, &bicubic).unwrap();
    let (height, width) = (i64::from(height), i64::from(width));
    Tensor::from_data_size(&resized, &[1, height, width, 3], Kind::Uint8)
        .permute([0, 3, 1, 2])
        .narrow(2, (height - 224) / 2, 224)
        .narrow(3, (width - 224) / 2, 224)
        .to_kind(Kind::Float)
        / 255.0
}

/// ImageNet's probabilities: the published pooling and classifier on top of our body.
fn imagenet_probabilities(name: &str) -> Vec<f64> {
    let bytes = std::fs::read(installed("weights/efficientnet_lite0.safetensors")).unwrap();
    let weights = StateDict::from_safetensors(&bytes).unwrap();
    let config = ModelConfig::new(Backbone::EfficientnetLite0, vec!["a".into(), "b".into()], 224);
    let mut classifier = Classifier::new(config, device(), 0).unwrap();
    classifier.load_backbone(&weights).unwrap();
    let features = no_grad(|| {
        let images = classifier.normalise(&photo(name).to_device(device())).unwrap();
        classifier.pooled_features(&images, Precision::F32).unwrap()
    });
    let features = features.to_device(Device::Cpu);
    let logits = features.linear(weights.get("_fc.weight").unwrap(), weights.get("_fc.bias"));
    values(&logits.softmax(-1, Kind::Float))
}

fn best(probabilities: &[f64]) -> usize {
    (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b])).unwrap()
}

#[test]
fn chelsea_is_a_cat() {
    let probabilities = imagenet_probabilities("chelsea.png");
    // Tabby, tiger cat, Persian, Siamese, Egyptian.
    assert!((281..=285).contains(&best(&probabilities)), "class {}", best(&probabilities));
    let cats = probabilities[281..=285].iter().sum::<f64>();
    assert!(cats > 0.5, "cats {cats}");
}

#[test]
fn coffee_is_an_espresso() {
    let probabilities = imagenet_probabilities("coffee.png");
    assert_eq!(best(&probabilities), 967);
    assert!((probabilities[967] - 0.95).abs() < 0.03, "espresso {}", probabilities[967]);
}
