//! What channels-last memory and bf16 cost in accuracy, measured against plain f32.

use sortinghat_proto::Backbone;
use sortinghat_worker::device::Precision;
use sortinghat_worker::models::Mode;
use sortinghat_worker::prediction::predict::probabilities;
use tch::{Kind, no_grad};

use crate::formula::{classifier, tensor};

#[test]
fn bf16_convolutions_move_probabilities_by_less_than_two_hundredths() {
    for backbone in [Backbone::EfficientnetLite0, Backbone::Resnet18] {
        let classifier = classifier(backbone, 10, 96);
        let images = tensor("photos", &[8, 3, 96, 96]);
        let predict = |precision| {
            let logits = no_grad(|| classifier.forward(&images, Mode::Eval, precision)).unwrap();
            assert_eq!(logits.kind(), Kind::Float, "the head answers in f32");
            probabilities(&logits).unwrap()
        };
        let off = (predict(Precision::F32) - predict(Precision::Bf16)).abs().max().double_value(&[]);
        assert!(off < 0.02, "{backbone}: {off}");
        assert!(off > 0.0, "{backbone}: bf16 was not used");
    }
}

#[test]
fn memory_layout_of_the_input_changes_nothing() {
    let classifier = classifier(Backbone::Resnet18, 10, 64);
    let images = tensor("photos", &[4, 3, 64, 64]);
    let rows = images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let predict = |images| no_grad(|| classifier.forward(images, Mode::Eval, Precision::F32)).unwrap();
    assert_eq!(predict(&images), predict(&rows));
}
