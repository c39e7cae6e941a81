//! Training where memory does not hold a whole batch. Allocations really fail: what tensors may hold is bounded.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

use parking_lot::{Mutex, MutexGuard};
use sortinghat_proto::{Backbone, Digest};
use sortinghat_worker::{
    aten::{host_memory, limit_host_memory},
    models::{Classifier, HeadConfig, ModelConfig},
    prediction::batch::PixelBatch,
    randomness::{Draws, Phase, Purpose},
    training::{
        progress::{EpochMetrics, Flow, Observer, Outcome, StepReport},
        recipe::Recipe,
        source::{BatchPlan, BatchStream, Example, PhotoSource, Set},
        trainer::{Snapshot, TrainError, Trainer},
    },
};
use tch::{Device, Kind, Tensor};

const SIZE: usize = 128;
const BATCH: usize = 16;

/// One test at a time: the bound on memory is the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// A photo is a function of its class alone, so that both halves of a batch with as many of each have the same statistics.
struct OnePhotoPerClass;

impl PhotoSource for OnePhotoPerClass {
    fn batches<'a>(&'a self, _: Set, plan: BatchPlan) -> BatchStream<'a> {
        Box::new(plan.indices.into_iter().map(|indices| {
            let photo = |index: usize| (0..SIZE * SIZE * 3).map(move |byte| (byte * (7 + 5 * (index % 2)) % 251) as u8);
            let (pixels, count) = (indices.iter().flat_map(|&index| photo(index)).collect(), indices.len());
            Ok(PixelBatch { pixels, count, size: SIZE })
        }))
    }
}

fn examples(count: usize) -> Vec<Example> {
    let example = |index: usize| Example { digest: Digest::of(&[index as u8]), label: index % 2 };
    (0..count).map(example).collect()
}

/// A seed that shuffles as many photos of each class into the first half of the batch as into the second.
fn balanced_seed() -> u64 {
    let is_balanced = |seed: &u64| {
        let order = Draws::step(*seed, Purpose::Order, Phase::Unfrozen, 0, 0).permutation(BATCH);
        order[..BATCH / 2].iter().filter(|&&index| index % 2 == 0).count() == BATCH / 4
    };
    (0..).find(is_balanced).unwrap()
}

/// A run of one step, without anything random but the order, in f64: only what is computed otherwise can differ.
fn trainer() -> Trainer {
    let classes = vec!["even".to_owned(), "odd".to_owned()];
    let config = ModelConfig {
        head: HeadConfig::Fastai { dropout: 0.0 },
        ..ModelConfig::new(Backbone::Resnet18, classes, SIZE as u32)
    };
    let mut classifier = Classifier::new(config, Device::Cpu, 1).unwrap();
    classifier.to_double().unwrap();
    let recipe =
        Recipe { batch_size: BATCH, freeze_epochs: 0, augmentation: None, ..Recipe::fastai2(1, balanced_seed()) };
    Trainer::new(classifier, recipe, examples(BATCH), examples(2)).unwrap()
}

#[derive(Default)]
struct Told {
    losses: Vec<f64>,
    pieces: Vec<usize>,
}

impl Observer for Told {
    fn step(&mut self, report: &StepReport, _: &Snapshot<'_>) -> Flow {
        self.losses.push(report.loss);
        Flow::Continue
    }

    fn epoch(&mut self, _: &EpochMetrics, _: &Snapshot<'_>) -> Flow {
        Flow::Continue
    }

    fn smaller_pieces(&mut self, photos: usize) {
        self.pieces.push(photos);
    }
}

fn tensors(trainer: Trainer) -> Vec<(String, Tensor)> {
    let classifier = trainer.into_classifier();
    classifier.state().map(|(name, tensor)| (name.to_owned(), tensor.detach().copy())).collect()
}

fn distance(one: &Tensor, other: &Tensor) -> f64 {
    (one - other).norm().double_value(&[])
}

#[test]
fn a_step_that_does_not_fit_is_taken_again_in_pieces_that_do_and_only_batch_normalisation_sees_it() {
    let _alone = alone();
    limit_host_memory(usize::MAX).unwrap();
    let start = tensors(trainer());
    let (mut whole, mut told) = (trainer(), Told::default());
    let without_step = host_memory().current;
    assert_eq!(whole.run(&OnePhotoPerClass, &mut told).unwrap(), Outcome::Finished);
    assert!(told.pieces.is_empty());
    let step_bytes = host_memory().peak - without_step;
    let whole = tensors(whole);

    let (mut pieces, mut told_in_pieces) = (trainer(), Told::default());
    limit_host_memory(host_memory().current + step_bytes * 3 / 4).unwrap();
    assert_eq!(pieces.run(&OnePhotoPerClass, &mut told_in_pieces).unwrap(), Outcome::Finished);
    limit_host_memory(usize::MAX).unwrap();
    assert_eq!((told_in_pieces.pieces, pieces.micro_batch_size()), (vec![BATCH / 2], BATCH / 2));
    assert!((told.losses[0] - told_in_pieces.losses[0]).abs() < 1e-9);

    for (((name, whole), (_, pieces)), (_, start)) in whole.iter().zip(tensors(pieces)).zip(&start) {
        let moved = distance(whole, start);
        if name.ends_with(".running_mean") {
            // Each piece moves it a tenth of the way: 1 - 0.9 * 0.9 instead of 0.1 of it after two of them.
            let found = distance(&pieces, start);
            // Where the layer before is normalised to zero, it moves by rounding alone.
            let off = (found - 1.9 * moved).abs();
            assert!(off < 1e-6 * moved + 1e-9, "{name} moved by {found:e} instead of 1.9 times {moved:e}");
        } else if !name.ends_with(".running_var") {
            assert!(moved > 0.0, "{name} has learned");
            // A shift that the next normalisation takes away again moves by rounding alone.
            let off = distance(whole, &pieces);
            assert!(off < 1e-6 * moved + 1e-9, "{name} is {off:e} off, having moved by {moved:e}");
        }
    }
}

#[test]
fn where_not_even_two_photos_fit_it_ends_with_their_number_and_the_weights_are_untouched() {
    let _alone = alone();
    limit_host_memory(usize::MAX).unwrap();
    let start = tensors(trainer());
    let (mut trainer, mut told) = (trainer(), Told::default());
    // Enough for the photos of the batch and for the first feature maps of two of them.
    let pixels = BATCH * 3 * SIZE * SIZE * Kind::Double.elt_size_in_bytes();
    limit_host_memory(host_memory().current + 4 * pixels).unwrap();
    let error = trainer.run(&OnePhotoPerClass, &mut told).unwrap_err();
    limit_host_memory(usize::MAX).unwrap();
    assert!(matches!(error, TrainError::OutOfMemory { photos: 2, .. }), "{error}");
    assert!(error.to_string().contains("out of memory with 2 photos at a time"), "{error}");
    assert_eq!(told.pieces, [8, 4, 2]);
    for ((name, found), (_, start)) in tensors(trainer).iter().zip(&start) {
        assert!(name.contains(".running_") || distance(found, start) == 0.0, "{name} changed");
    }
}
