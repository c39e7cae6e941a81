//! A run that is killed and continued ends in the same bits.

use sortinghat_proto::Backbone;
use sortinghat_worker::models::{Classifier, HeadConfig, ModelConfig, StateDict};
use sortinghat_worker::training::progress::{EpochMetrics, Flow, Observer, Outcome, StepReport};
use sortinghat_worker::training::recipe::Recipe;
use sortinghat_worker::training::trainer::{Snapshot, TrainError, Trainer};

use crate::fine_tune::{Losses, Noise, examples};
use crate::formula::{classifier, device};

const SIZE: usize = 32;

fn trainer(seed: u64) -> Trainer {
    // Augmentation and dropout are on: every purpose of randomness takes part.
    let recipe = Recipe { batch_size: 4, ..Recipe::fastai2(2, seed) };
    let config = ModelConfig {
        head: HeadConfig::Fastai { dropout: 0.5 },
        ..classifier(Backbone::EfficientnetLite0, 2, SIZE as u32).config().clone()
    };
    let classifier = Classifier::new(config, device(), 3).unwrap();
    Trainer::new(classifier, recipe, examples(13, 2, 0), examples(5, 2, 1)).unwrap()
}

/// Keeps a checkpoint after every step and every epoch.
#[derive(Default)]
struct Keeps(Vec<Vec<u8>>);

impl Keeps {
    fn keep(&mut self, snapshot: &Snapshot<'_>) -> Flow {
        self.0.push(snapshot.copy().unwrap().into_bytes().unwrap());
        Flow::Continue
    }
}

impl Observer for Keeps {
    fn step(&mut self, _: &StepReport, snapshot: &Snapshot<'_>) -> Flow {
        self.keep(snapshot)
    }

    fn epoch(&mut self, _: &EpochMetrics, snapshot: &Snapshot<'_>) -> Flow {
        self.keep(snapshot)
    }

    fn smaller_pieces(&mut self, _: usize) {}
}

#[test]
fn a_run_killed_after_any_step_or_epoch_ends_in_the_same_bits() {
    let source = Noise { size: SIZE };
    let (mut whole, mut kept) = (trainer(1), Keeps::default());
    assert_eq!(whole.run(&source, &mut kept).unwrap(), Outcome::Finished);
    let history = whole.history().to_vec();
    let expected = whole.into_classifier().to_safetensors().unwrap();
    assert_eq!(kept.0.len(), 3 * (3 + 1), "of a frozen epoch and two more, of three steps each");
    for (place, checkpoint) in kept.0.iter().enumerate() {
        let mut resumed = trainer(1);
        resumed.restore(checkpoint).unwrap();
        assert_eq!(resumed.run(&source, &mut Losses::default()).unwrap(), Outcome::Finished);
        let shown = |metrics: &EpochMetrics| (metrics.train_loss, metrics.valid_loss, metrics.correct);
        assert!(resumed.history().iter().map(shown).eq(history.iter().map(shown)), "history from checkpoint {place}");
        assert!(resumed.into_classifier().to_safetensors().unwrap() == expected, "weights from checkpoint {place}");
    }
}

#[test]
fn a_run_that_went_on_in_smaller_pieces_does_so_after_it_is_resumed() {
    let mut small = trainer(1);
    small.set_micro_batch_size(2);
    let checkpoint = small.snapshot().copy().unwrap().into_bytes().unwrap();
    let mut resumed = trainer(1);
    assert_eq!(resumed.micro_batch_size(), 4);
    resumed.restore(&checkpoint).unwrap();
    assert_eq!(resumed.micro_batch_size(), 2);
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_what_differs() {
    struct StopsAtOnce(Vec<u8>);
    impl Observer for StopsAtOnce {
        fn step(&mut self, _: &StepReport, snapshot: &Snapshot<'_>) -> Flow {
            self.0 = snapshot.copy().unwrap().into_bytes().unwrap();
            Flow::Stop
        }
        fn epoch(&mut self, _: &EpochMetrics, _: &Snapshot<'_>) -> Flow {
            unreachable!("stopped after the first step")
        }
        fn smaller_pieces(&mut self, _: usize) {}
    }
    let mut stopped = StopsAtOnce(Vec::new());
    assert_eq!(trainer(1).run(&Noise { size: SIZE }, &mut stopped).unwrap(), Outcome::Stopped);
    let message = trainer(2).restore(&stopped.0).unwrap_err().to_string();
    assert!(message.contains("its recipe differs"), "{message}");
    let model = trainer(1).into_classifier().to_safetensors().unwrap();
    let message = trainer(1).restore(&model).unwrap_err().to_string();
    assert!(message.contains("not a training checkpoint"), "{message}");
}

/// A safetensors file in which no value is a number any more.
fn spoil(file: &mut [u8]) {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    for value in file[8 + header..].chunks_exact_mut(4) {
        value.copy_from_slice(&f32::NAN.to_le_bytes());
    }
}

#[test]
fn a_last_step_that_spoils_the_weights_fails_the_run_and_leaves_no_checkpoint() {
    let mut kept = Keeps::default();
    trainer(1).run(&Noise { size: SIZE }, &mut kept).unwrap();
    // Three steps in the frozen epoch: validation is what remains of it.
    let checkpoint = &mut kept.0[2];
    spoil(checkpoint);
    let mut spoiled = trainer(1);
    spoiled.restore(checkpoint).unwrap();
    let error = spoiled.snapshot().copy().unwrap().into_bytes().unwrap_err().to_string();
    assert!(error.contains("no numbers"), "{error}");
    let error = spoiled.run(&Noise { size: SIZE }, &mut Losses::default()).unwrap_err();
    assert!(matches!(error, TrainError::NotANumber { epoch: 0, step: 2, .. }), "{error}");
}

#[test]
fn a_diverging_loss_stops_the_run_and_names_the_step() {
    let trainer = trainer(1);
    let mut classifier = trainer.into_classifier();
    let mut weights = classifier.to_safetensors().unwrap();
    spoil(&mut weights);
    classifier.load(&StateDict::from_safetensors(&weights).unwrap()).unwrap();
    let recipe = Recipe { batch_size: 4, ..Recipe::fastai2(1, 1) };
    let mut spoiled = Trainer::new(classifier, recipe, examples(8, 2, 0), examples(4, 2, 1)).unwrap();
    let error = spoiled.run(&Noise { size: SIZE }, &mut Losses::default()).unwrap_err();
    assert!(matches!(error, TrainError::NotANumber { epoch: 0, step: 0, .. }), "{error}");
}

#[test]
fn a_class_without_a_photo_on_one_side_is_refused_by_name() {
    let classifier = trainer(1).into_classifier();
    let error = Trainer::new(classifier, Recipe::fastai2(1, 1), examples(8, 2, 0), examples(1, 2, 1)).unwrap_err();
    assert!(error.to_string().contains("class \"class 01\" has no validation photo"), "{error}");
}
