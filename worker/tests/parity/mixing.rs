//! fastai's MixUp and CutMix: what becomes of a batch and of its loss.

use serde_json::Value;
use sortinghat_worker::training::mixing::{Blend, PastedBox};
use tch::{Kind, Tensor};

use crate::formula::{assert_near, device, flat, golden, tensor, values};

fn assert_blends(golden: &Value, name: &str, pasted: Option<PastedBox>) {
    let partners = flat(&golden["shuffle"]).into_iter().map(|index| index as usize).collect();
    let expected = &golden[name];
    let blend = Blend { partners, kept: flat(&expected["kept"]), pasted };
    let blended = blend.images(&tensor("images", &[3, 3, 6, 8])).unwrap();
    assert_near(name, &values(&blended), &flat(&expected["images"]), 1e-6, 1e-6);

    let smoothing = if name.ends_with("smoothed") { golden["eps"].as_f64().unwrap() } else { 0.0 };
    let labels = Tensor::from_slice(&flat(&golden["targets"])).to_kind(Kind::Int64).to_device(device());
    let loss = blend.targets(labels).unwrap().loss(&tensor("logits", &[3, 4]), smoothing).unwrap();
    assert_near(name, &[loss.double_value(&[])], &flat(&expected["loss"]), 0.0, 1e-6);
}

#[test]
fn mixup_blends_photos_and_losses_as_fastais_does() {
    let golden = golden("mixing.json");
    assert_blends(&golden, "mixup", None);
    assert_blends(&golden, "mixup_smoothed", None);
}

#[test]
fn cutmix_pastes_photos_and_weighs_losses_as_fastais_does() {
    let golden = golden("mixing.json");
    for name in ["cutmix", "cutmix_smoothed"] {
        let edges = flat(&golden[name]["box"]).into_iter().map(|edge| edge as i64).collect::<Vec<_>>();
        let pasted = PastedBox { left: edges[0], top: edges[1], right: edges[2], bottom: edges[3] };
        assert_near("kept", &[pasted.kept(6, 8)], &flat(&golden[name]["kept"])[..1], 0.0, 1e-6);
        assert_blends(&golden, name, Some(pasted));
    }
}

#[test]
fn cutmix_cuts_the_boxes_that_fastais_does() {
    for case in golden("mixing.json")["boxes"].as_array().unwrap() {
        let number = |key: &str| case[key].as_i64().unwrap();
        let lambda = case["lambda"].as_f64().unwrap();
        let pasted = PastedBox::around((number("column"), number("row")), lambda, 6, 8);
        let expected =
            PastedBox { left: number("left"), right: number("right"), top: number("top"), bottom: number("bottom") };
        assert_eq!(pasted, expected, "lambda {lambda}");
    }
}
