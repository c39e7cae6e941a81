//! Twenty steps through freezing and unfreezing beside fastai's own `fine_tune`.

use serde_json::Value;
use sortinghat_worker::models::{Backbone, Classifier};
use sortinghat_worker::training::batch::{BatchPlan, BatchStream, Example, PhotoSource, PixelBatch, Set};
use sortinghat_worker::training::trainer::{
    EpochMetrics, Flow, Observer, Outcome, Recipe, Snapshot, StepReport, Trainer,
};

use crate::formula::{assert_near, classifier, deviation, flat, golden, uniform};

/// Photos of noise, a function of their index.
pub(crate) struct Noise {
    pub(crate) size: usize,
}

impl Noise {
    fn pixels(&self, name: &str) -> Vec<u8> {
        let values = uniform(name, self.size * self.size * 3);
        values.into_iter().map(|value| ((value + 1.0) * 127.5).floor() as u8).collect()
    }
}

impl PhotoSource for Noise {
    fn batches<'a>(&'a self, set: Set, plan: BatchPlan) -> BatchStream<'a> {
        let kind = if set == Set::Training { "train" } else { "valid" };
        Box::new(plan.indices.into_iter().map(move |indices| {
            let pixels = indices.iter().flat_map(|index| self.pixels(&format!("{kind} {index}"))).collect();
            Ok(PixelBatch { pixels, count: indices.len(), size: self.size })
        }))
    }
}

/// `count` examples that take the classes in turn.
pub(crate) fn examples(count: usize, classes: usize, set: u8) -> Vec<Example> {
    let example = |index: usize| {
        let mut digest = [set; 32];
        digest[..8].copy_from_slice(&(index as u64).to_le_bytes());
        Example { digest, label: index % classes }
    };
    (0..count).map(example).collect()
}

/// Collects the losses.
#[derive(Default)]
pub(crate) struct Losses {
    pub(crate) steps: Vec<f64>,
    pub(crate) epochs: Vec<EpochMetrics>,
}

impl Observer for Losses {
    fn step(&mut self, report: &StepReport, _: &Snapshot<'_>) -> Flow {
        self.steps.push(report.loss);
        Flow::Continue
    }

    fn epoch(&mut self, metrics: &EpochMetrics, _: &Snapshot<'_>) -> Flow {
        self.epochs.push(metrics.clone());
        Flow::Continue
    }
}

fn train(backbone: Backbone, golden: &Value) -> (Losses, Classifier) {
    let number = |key: &str| golden[key].as_u64().unwrap() as usize;
    let (classes, size) = (number("classes"), number("size"));
    let recipe = Recipe {
        augmentation: None,
        batch_size: number("batch"),
        base_learning_rate: golden["rate"].as_f64().unwrap(),
        ..Recipe::fastai2(number("epochs") as u32, number("seed") as u64)
    };
    let (train, valid) = (examples(number("train"), classes, 0), examples(number("valid"), classes, 1));
    let mut trainer = Trainer::new(classifier(backbone, classes, size as u32), recipe, train, valid).unwrap();
    let mut losses = Losses::default();
    assert_eq!(trainer.run(&Noise { size }, &mut losses).unwrap(), Outcome::Finished);
    (losses, trainer.into_classifier())
}

/// Two f32 programs drift apart by rounding, amplified by batch statistics and Adam's division.
const DRIFT: f64 = 1e-3;

fn follows_fastai(backbone: Backbone) {
    let golden = golden("fine_tune.json");
    let expected = &golden["backbones"][backbone.name()];
    let (losses, classifier) = train(backbone, &golden);
    assert_near("loss of step", &losses.steps, &flat(&expected["losses"]), DRIFT, DRIFT);
    let valid_loss = losses.epochs.last().unwrap().valid_loss;
    assert_near("validation loss", &[valid_loss], &flat(&expected["valid_loss"]), DRIFT, DRIFT);
    for (name, tensor) in classifier.state() {
        let off = deviation(name, tensor, &expected["final"][name]);
        assert!(off <= DRIFT, "{name} is off by {off:e} after the last step");
    }
}

#[test]
fn resnet18_follows_fastai_for_twenty_steps_through_freezing_and_unfreezing() {
    follows_fastai(Backbone::ResNet18);
}

#[test]
fn efficientnet_lite0_follows_fastai_for_twenty_steps_through_freezing_and_unfreezing() {
    follows_fastai(Backbone::EfficientNetLite0);
}
