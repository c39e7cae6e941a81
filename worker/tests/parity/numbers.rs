//! fastai's schedule, optimiser, augmentation, losses and test-time augmentation.

use serde_json::Value;
use sortinghat_proto::{Backbone, TtaRecipe};
use sortinghat_worker::models::{Parameter, Role};
use sortinghat_worker::prediction::augment::{Transform, apply, sample};
use sortinghat_worker::prediction::probabilities::Probabilities;
use sortinghat_worker::prediction::tta::combine;
use sortinghat_worker::randomness::Phase;
use sortinghat_worker::training::loss::cross_entropy;
use sortinghat_worker::training::optimiser::{Adam, zero_gradients};
use sortinghat_worker::training::recipe::Recipe;
use sortinghat_worker::training::schedule::StepRates;
use tch::{Kind, Tensor};

use crate::formula::{assert_near, classifier, flat, golden, values};

fn fastai(key: &str) -> Value {
    golden("fastai.json")[key].clone()
}

fn json_tensor(value: &Value, shape: &[i64]) -> Tensor {
    Tensor::from_slice(&flat(value)).view(shape).to_kind(Kind::Float)
}

#[test]
fn every_learning_rate_and_momentum_of_fine_tune_is_fastais() {
    let rows = fastai("fine_tune_trace")["rows"].clone();
    let phases = Recipe::fastai2(5, 0).fine_tune(2e-3).phases(3, 11);
    let steps = phases.iter().flat_map(|phase| {
        (0..phase.epochs).flat_map(move |epoch| (0..phase.batches).map(move |batch| (phase, epoch, batch)))
    });
    let steps = steps.collect::<Vec<_>>();
    assert_eq!(steps.len(), rows.as_array().unwrap().len());
    for ((phase, epoch, batch), row) in steps.into_iter().zip(rows.as_array().unwrap()) {
        let name = if phase.phase == Phase::Frozen { "frozen" } else { "unfrozen" };
        assert_eq!((row[0].as_str(), row[1].as_u64()), (Some(name), Some(u64::from(epoch))));
        let StepRates { mut learning_rates, momentum } = phase.rates(epoch, batch);
        learning_rates.push(momentum);
        let expected = (4..8).map(|column| row[column].as_f64().unwrap()).collect::<Vec<_>>();
        assert_near(&format!("{name} epoch {epoch} batch {batch}"), &learning_rates, &expected, 1e-9, 1e-5);
    }
}

#[test]
fn adam_moves_parameters_as_fastais_does_under_a_changing_rate_and_momentum() {
    let golden = fastai("adam");
    let start = json_tensor(&golden["p0"], &[2]).set_requires_grad(true);
    let parameters = [Parameter { name: "p".to_owned(), tensor: start.shallow_clone(), group: 0, role: Role::Weight }];
    let mut adam = Adam::new(&parameters, golden["wd"].as_f64().unwrap()).unwrap();
    for step in golden["steps"].as_array().unwrap() {
        zero_gradients(&parameters);
        (&start * json_tensor(&step["grad"], &[2])).sum(Kind::Float).backward();
        let rates =
            StepRates { learning_rates: vec![step["lr"].as_f64().unwrap()], momentum: step["mom"].as_f64().unwrap() };
        adam.step(&parameters, &rates).unwrap();
        assert_near("p", &values(&start.detach()), &flat(&step["p"]), 0.0, 1e-6);
    }
}

#[test]
fn every_transform_moves_and_lights_pixels_as_fastais_does() {
    let golden = fastai("augment");
    let image = json_tensor(&golden["input"], &[1, 3, 6, 8]);
    let identity = Transform::IDENTITY;
    let zoomed = Transform { zoom: 1.08, zoom_centre: (0.3, 0.7), ..identity };
    let warped = Transform { warp: (0.1, -0.05), ..identity };
    let everything =
        Transform { flip: true, rotation: 7.0, brightness: 0.55, contrast: 1.1, warp: warped.warp, ..zoomed };
    for (name, transform) in [
        ("flip", Transform { flip: true, ..identity }),
        ("rotate_7deg", Transform { rotation: 7.0, ..identity }),
        ("zoom_1.08_x.3_y.7", zoomed),
        ("warp_x.1_y-.05", warped),
    ] {
        let moved = sample(&image, &[transform]).unwrap();
        assert_near(name, &values(&moved), &flat(&golden[name]), 1e-5, 1e-5);
    }
    for (name, transform) in [
        ("brightness_.55", Transform { brightness: 0.55, ..identity }),
        ("contrast_1.1", Transform { contrast: 1.1, ..identity }),
        ("composed_order_flip_rotate_zoom_then_warp_then_bright_contrast", everything),
    ] {
        let changed = apply(&image, &[transform]).unwrap();
        assert_near(name, &values(&changed), &flat(&golden[name]), 1e-5, 1e-5);
    }
}

#[test]
fn the_loss_is_fastais_with_and_without_label_smoothing() {
    let golden = fastai("label_smoothing");
    let logits = json_tensor(&golden["logits"], &[2, 3]);
    let targets = Tensor::from_slice(&[0_i64, 2]);
    let loss = |smoothing| cross_entropy(&logits, &targets, smoothing).unwrap().double_value(&[]);
    assert_near("plain", &[loss(0.0)], &flat(&golden["ce"]), 0.0, 1e-6);
    assert_near("smoothed", &[loss(golden["eps"].as_f64().unwrap())], &flat(&golden["loss"]), 0.0, 1e-6);
}

#[test]
fn the_head_has_as_many_parameters_as_fastais() {
    let classifier = classifier(Backbone::Resnet34, 10, 64);
    let head = classifier.parameters().iter().filter(|parameter| parameter.group == 2);
    let count = head.map(|parameter| parameter.tensor.numel()).sum::<usize>();
    assert_eq!(count as u64, fastai("head")["params"].as_u64().unwrap());
}

#[test]
fn test_time_augmentation_combines_views_as_both_fastais_do() {
    let golden = fastai("tta");
    let rows = |value: &Value| flat(value).into_iter().map(|p| p as f32).collect::<Vec<_>>();
    let plain = Probabilities::new(rows(&golden["plain"]), 3);
    let passes = golden["aug"].as_array().unwrap().iter().map(|pass| Probabilities::new(rows(pass), 3));
    let passes = passes.collect::<Vec<_>>();
    for (key, recipe) in
        [("fastai2", TtaRecipe::Fastai2), ("fastai07", TtaRecipe::Fastai07), ("use_max", TtaRecipe::Max)]
    {
        let combined = combine(recipe, &plain, &passes);
        let combined = combined.row(0).iter().map(|&p| f64::from(p)).collect::<Vec<_>>();
        assert_near(key, &combined, &flat(&golden[key]), 0.0, 1e-6);
    }
}
