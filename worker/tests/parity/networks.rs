//! Logits, gradients and batch statistics against torchvision, timm and fastai's head, whose reference is in f64.

use sortinghat_worker::device::Precision;
use sortinghat_worker::models::{Backbone, Mode};
use sortinghat_worker::training::loss::cross_entropy;
use tch::{Kind, Tensor, no_grad};

use crate::formula::{assert_near, classifier, deviation, flat, golden, tensor, values};

/// In f32 a few of a deep network's rectifiers switch the other way than in the f64 reference: PyTorch's own f32
/// gradients of resnet34 deviate from it by 4.8e-3.
const RECTIFIED: f64 = 5e-3;

/// `gradients` is the deviation allowed relative to a gradient's norm.
fn follows_the_reference(backbone: Backbone, gradients: f64) {
    let golden = golden("networks.json");
    let network = &golden["networks"][backbone.name()];
    let size = network["size"].as_i64().unwrap();
    let targets = flat(&golden["targets"]);
    let images = tensor("images", &[targets.len() as i64, 3, size, size]);
    let targets = Tensor::from_slice(&targets).to_kind(Kind::Int64);
    let classifier = classifier(backbone, 10, size as u32);
    let logits = classifier.forward(&images, Mode::Eval, Precision::F32).unwrap();
    assert_near("logits", &values(&logits.detach()), &flat(&network["logits"]), 1e-4, 1e-4);
    let loss = cross_entropy(&logits, &targets, 0.0).unwrap();
    assert_near("loss", &[loss.double_value(&[])], &[network["loss"].as_f64().unwrap()], 1e-4, 0.0);
    loss.backward();
    for parameter in classifier.parameters() {
        let off = deviation(&parameter.name, &parameter.tensor.grad(), &network["gradients"][&parameter.name]);
        assert!(off <= gradients, "gradient of {} is off by {off:e}", parameter.name);
    }
    let trained = no_grad(|| classifier.forward(&images, Mode::Train, Precision::F32)).unwrap();
    // Batch statistics of a few values amplify rounding; PyTorch's own f32 is off by as much (the script prints it).
    assert_near("train logits", &values(&trained), &flat(&network["train_logits"]), 3e-3, 1e-3);
    let statistics = network["statistics"].as_object().unwrap();
    for (name, tensor) in classifier.state().filter(|(name, _)| name.contains(".running_")) {
        let off = deviation(name, tensor, &statistics[name]);
        assert!(off <= 1e-4, "{name} is off by {off:e}");
    }
}

#[test]
fn efficientnet_lite0_computes_what_timms_does() {
    follows_the_reference(Backbone::EfficientNetLite0, 1e-4);
}

#[test]
fn resnet18_computes_what_torchvisions_does() {
    follows_the_reference(Backbone::ResNet18, 1e-4);
}

#[test]
fn resnet34_computes_what_torchvisions_does() {
    follows_the_reference(Backbone::ResNet34, RECTIFIED);
}

#[test]
fn resnet50_computes_what_torchvisions_does() {
    follows_the_reference(Backbone::ResNet50, RECTIFIED);
}
