//! Weights and pixels that Python (`golden/formula.py`) and Rust compute alike.

use std::sync::LazyLock;

use serde_json::Value;
use sortinghat_proto::Backbone;
use sortinghat_worker::device::{DeviceRequest, choose};
use sortinghat_worker::models::{Classifier, HeadConfig, ModelConfig};
use tch::{Device, Kind, Tensor, no_grad};

/// What is compared with the references: the CPU, or what `SORTINGHAT_TEST_DEVICE` names, such as `cuda:0`.
pub(crate) fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        let asked = std::env::var("SORTINGHAT_TEST_DEVICE").map_or(DeviceRequest::Cpu, |name| name.parse().unwrap());
        choose(asked, None).unwrap().device
    });
    *DEVICE
}

/// `count` values in [-1, 1), a function of the name alone.
pub(crate) fn uniform(name: &str, count: usize) -> Vec<f64> {
    let start = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let value = |index: usize| {
        let x = start.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / 2_f64.powi(52) - 1.0
    };
    (0..count).map(value).collect()
}

pub(crate) fn tensor(name: &str, shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&uniform(name, count)).view(shape).to_kind(Kind::Float).to_device(device())
}

fn weight(name: &str, shape: &[i64]) -> Tensor {
    let values = Tensor::from_slice(&uniform(name, shape.iter().product::<i64>() as usize)).view(shape);
    let values = if shape.len() > 1 {
        values * (3.0 / shape[1..].iter().product::<i64>() as f64).sqrt()
    } else if name.ends_with(".running_var") {
        values * 0.2 + 1.0
    } else if name.ends_with(".weight") {
        values * 0.1 + 1.0
    } else {
        values * 0.1
    };
    values.to_kind(Kind::Float)
}

/// A classifier with formula weights and without dropout, in f32.
pub(crate) fn classifier(backbone: Backbone, classes: usize, size: u32) -> Classifier {
    let names = (0..classes).map(|class| format!("class {class:02}")).collect();
    let config = ModelConfig { head: HeadConfig::Fastai { dropout: 0.0 }, ..ModelConfig::new(backbone, names, size) };
    let classifier = Classifier::new(config, device(), 0).unwrap();
    for (name, tensor) in classifier.state() {
        no_grad(|| tensor.shallow_clone().copy_(&weight(name, &tensor.size())));
    }
    classifier
}

/// A tensor's norm, and its product with a fixed direction.
fn summary(name: &str, tensor: &Tensor) -> (f64, f64) {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous().view(-1);
    let probe = Tensor::from_slice(&uniform(&format!("{name}#probe"), flat.numel()));
    (flat.norm().double_value(&[]), flat.dot(&probe).double_value(&[]))
}

/// The largest deviation of `tensor` from its stored summary, relative to the norm.
pub(crate) fn deviation(name: &str, tensor: &Tensor, golden: &Value) -> f64 {
    let (norm, product) = summary(name, tensor);
    let stored = |index: usize| golden[index].as_f64().unwrap();
    ((norm - stored(0)).abs().max((product - stored(1)).abs())) / stored(0).max(1e-6)
}

/// A file of reference values.
pub(crate) fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// The numbers of a nested JSON array, row by row.
pub(crate) fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

/// Fails unless every number is within `absolute + relative * |expected|`.
pub(crate) fn assert_near(what: &str, found: &[f64], expected: &[f64], absolute: f64, relative: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = absolute + relative * expected.abs();
        assert!((found - expected).abs() <= allowed, "{what}[{i}] is {found}, expected {expected} +- {allowed}");
    }
}

/// A tensor's values in row-major order.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}
