//! Trains one fine-tune job, from its checkpoint if it has one.

use std::thread;

use sortinghat_proto::{
    self as proto, FineTune, FinetuneSpec, Refusal,
    manifest::{FineTuneRecord, RateSearch, RecipeRecord},
    v1::ErrorCode,
};

use super::{Made, keeper::Keeper, network, set::TrainingSet, told, unusable};
use crate::{
    batches::TrainingPhotos,
    jobs::{
        network::{is_lost, whole},
        pretrained::Pretrained,
    },
    models::{Framing, HeadConfig, Square, WeightsError},
    prediction::precision::prediction_precision,
    randomness::Phase,
    task::{JobContext, JobError},
    training::{
        checkpoint::{CheckpointError, Position},
        progress::{EpochMetrics, Flow, Observer, Outcome, StepReport},
        recipe::Recipe,
        source::Set,
        trainer::{Snapshot, TrainError, Trainer},
    },
};

/// fastai's dropout before the last layer.
const DROPOUT: f64 = 0.5;

/// One fine-tune from its checkpoint, if it has one, to its end.
pub(super) struct Learner<'a> {
    spec: &'a FinetuneSpec,
    options: &'a FineTune,
    context: &'a JobContext,
    set: &'a TrainingSet,
    weights: &'a Pretrained,
    recipe: Recipe,
}

impl<'a> Learner<'a> {
    pub(super) fn new(
        spec: &'a FinetuneSpec,
        options: &'a FineTune,
        context: &'a JobContext,
        set: &'a TrainingSet,
        weights: &'a Pretrained,
    ) -> Self {
        let compute = &context.machine().compute;
        let recipe = Recipe {
            freeze_epochs: options.freeze_epochs,
            base_rate: options.base_lr,
            mixing: options.mixing,
            label_smoothing: options.label_smoothing,
            batch_size: options.batch_size as usize,
            precision: compute.training_precision(spec.precision),
            // The precision of later predictions, so that an evaluation gives the numbers of the training table.
            validation_precision: prediction_precision(compute, proto::Precision::Auto, spec.backbone),
            ..Recipe::fastai2(options.epochs, spec.seed)
        };
        Self { spec, options, context, set, weights, recipe }
    }

    pub(super) fn train(self) -> Result<Made, JobError> {
        let mut trainer = self.trainer()?;
        if trainer.micro_batch_size() < self.recipe.effective_batch_size(self.set.train.len()) {
            self.context.warn(in_pieces(trainer.micro_batch_size()));
        }
        let photos = self.photos();
        thread::scope(|scope| {
            let keeper = Keeper::new(scope, self.context, trainer.snapshot().position());
            let mut reporter = Reporter { context: self.context, keeper, failure: None };
            let error = match trainer.run(&photos, &mut reporter) {
                Ok(Outcome::Finished) => return Ok(()),
                Ok(Outcome::Stopped) => reporter.failure.unwrap_or(JobError::Cancelled),
                Err(error) => photos.take_failure().unwrap_or_else(|| failure(&error)),
            };
            if matches!(error, JobError::HandedBack) {
                reporter.keeper.keep(&trainer.snapshot());
                reporter.keeper.wait();
            }
            Err(error)
        })?;
        Ok(Made {
            history: trainer.history().to_vec(),
            recipe: RecipeRecord::Fastai2(self.record(&trainer)),
            precision: self.recipe.precision,
            network: trainer.into_classifier(),
        })
    }

    /// What the network was trained with.
    fn record(&self, trainer: &Trainer) -> FineTuneRecord {
        FineTuneRecord {
            freeze_epochs: self.options.freeze_epochs,
            epochs: self.options.epochs,
            base_lr: trainer.base_rate(),
            rate_search: trainer.rate_search().cloned(),
            mixing: self.options.mixing,
            label_smoothing: self.options.label_smoothing,
            crop: self.options.crop,
            batch_size: self.recipe.effective_batch_size(self.set.train.len()) as u32,
            micro_batch_size: trainer.micro_batch_size() as u32,
        }
    }

    /// What the network sees of each photo.
    fn square(&self) -> Square {
        Square { size: self.spec.image_size_px as usize, framing: Framing::Crop(self.options.crop) }
    }

    /// The photos. Each batch, also one of a validation, lets the job be cancelled, and those of a validation report progress.
    fn photos(&self) -> TrainingPhotos<'a> {
        let (set, context) = (self.set, self.context);
        let sides = (set.train.clone(), set.valid.clone());
        TrainingPhotos::new(set.gallery.clone(), self.square(), set.digests.clone(), sides, |side, number, count| {
            if side == Set::Validation {
                context.progress("validate", number as u64, count as u64, "batches");
            }
            context.check_cancelled()
        })
    }

    /// The checkpoint of an earlier attempt; `None` if there is none or if it is lost, which is no reason to fail.
    fn earlier_checkpoint(&self) -> Result<Option<Vec<u8>>, JobError> {
        let Some(object) = &self.context.task().checkpoint else { return Ok(None) };
        match whole(self.context, object) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(JobError::Object(error)) if is_lost(&error) => {
                self.context.warn(format!("training starts again, because the checkpoint is lost: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A trainer at the checkpoint of an earlier attempt, or at the start if there is none or it cannot be used.
    fn trainer(&self) -> Result<Trainer, JobError> {
        if let Some(bytes) = self.earlier_checkpoint()? {
            let mut trainer = self.fresh_trainer()?;
            match trainer.restore(&bytes) {
                Ok(()) => {
                    self.context.inform(resumed(&trainer));
                    return Ok(trainer);
                }
                // The checkpoint is good, but memory was short. The next attempt may have enough.
                Err(TrainError::Checkpoint(CheckpointError::Weights(WeightsError::Tch { source, .. }))) => {
                    return Err(JobError::torch("going on from a checkpoint", &source));
                }
                // Part of the checkpoint may have been copied, so this trainer cannot be used.
                Err(error) => {
                    self.context.warn(format!("training starts again, because the checkpoint cannot be used: {error}"))
                }
            }
        }
        self.fresh_trainer()
    }

    fn fresh_trainer(&self) -> Result<Trainer, JobError> {
        let head = HeadConfig::Fastai { dropout: DROPOUT };
        let squares = vec![self.square()];
        let network = network(self.spec, self.context, self.weights, &self.set.classes, (head, squares))?;
        let (train, valid) = (self.set.examples(&self.set.train), self.set.examples(&self.set.valid));
        let trainer = Trainer::new(network, self.recipe.clone(), train, valid);
        let mut trainer = trainer.map_err(|error| failure(&error))?;
        let failures = self.context.task().memory_failures;
        if failures > 0 {
            // An earlier process may have been killed before it could find the size that fits.
            trainer.set_micro_batch_size(trainer.micro_batch_size() >> (2 * failures.min(16)));
        }
        Ok(trainer)
    }
}

/// Says where training goes on.
fn resumed(trainer: &Trainer) -> String {
    let Position { epoch, batch, .. } = trainer.snapshot().position();
    match trainer.phase() {
        Some(Phase::Frozen) => format!("resumed from frozen epoch {epoch}, step {batch}"),
        Some(Phase::Unfrozen | Phase::TestTime | Phase::Search) => format!("resumed from epoch {epoch}, step {batch}"),
        None => "resumed after the last epoch".to_owned(),
    }
}

fn in_pieces(photos: usize) -> String {
    format!(
        "out of memory: from here on the gradients of {photos} photos at a time are computed and added up, which affects only batch normalisation"
    )
}

/// What a training error means to the user.
pub(super) fn failure(error: &TrainError) -> JobError {
    let message = error.to_string();
    match error {
        TrainError::Split { .. } => unusable(message),
        TrainError::Recipe(_) => Refusal::new(ErrorCode::InvalidArgument, message).into(),
        TrainError::NotANumber { .. } => Refusal::new(ErrorCode::Diverged, message).at("finetune.base_lr").into(),
        TrainError::NoRate { .. } => Refusal::new(ErrorCode::Diverged, message).at("finetune.find_lr").into(),
        TrainError::OutOfMemory { source, .. } => {
            JobError::OutOfMemory { doing: "training".into(), reason: source.to_string() }
        }
        TrainError::Tch(error) => JobError::torch("training", error),
        TrainError::Source(_) | TrainError::Checkpoint(_) | TrainError::Aten(_) => JobError::Internal(message),
    }
}

/// Reports how training goes, has checkpoints kept, and stops training when the task should stop.
struct Reporter<'scope, 'env> {
    context: &'env JobContext,
    keeper: Keeper<'scope, 'env>,
    failure: Option<JobError>,
}

impl Reporter<'_, '_> {
    fn flow(&mut self, result: Result<(), JobError>) -> Flow {
        match result {
            Ok(()) => Flow::Continue,
            Err(error) => {
                self.failure = Some(error);
                Flow::Stop
            }
        }
    }
}

impl Observer for Reporter<'_, '_> {
    fn searching(&mut self, done: usize, steps: usize) -> Flow {
        self.context.progress("find_lr", done as u64, steps as u64, "batches");
        let result = self.context.check_cancelled();
        self.flow(result)
    }

    fn rate_found(&mut self, search: &RateSearch) -> Flow {
        let RateSearch { valley, minimum, steep, slide, .. } = search;
        self.context.inform(format!(
            "learning rate {valley:.2e} found: valley {valley:.2e}, minimum {minimum:.2e}, steep {steep:.2e}, slide {slide:.2e}"
        ));
        Flow::Continue
    }

    fn step(&mut self, report: &StepReport, snapshot: &Snapshot<'_>) -> Flow {
        self.context.progress("train", report.done as u64, report.total as u64, "batches");
        self.keeper.step(snapshot);
        let result = self.context.check_cancelled();
        self.flow(result)
    }

    fn epoch(&mut self, metrics: &EpochMetrics, snapshot: &Snapshot<'_>) -> Flow {
        self.context.epoch_finished(told(metrics));
        self.keeper.keep(snapshot);
        let result = self.context.check_cancelled();
        self.flow(result)
    }

    fn smaller_pieces(&mut self, photos: usize) {
        self.context.warn(in_pieces(photos));
    }
}
