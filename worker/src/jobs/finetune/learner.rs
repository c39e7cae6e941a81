use sortinghat_proto::{self as proto, FinetuneSpec, Refusal, v1, v1::ErrorCode};

use super::{Weights, set::TrainingSet, unusable};
use crate::{
    batches::TrainingPhotos,
    device::Precision,
    jobs::{
        JobContext, JobError,
        network::{is_lost, whole},
    },
    models::Classifier,
    training::{
        batch::Set,
        trainer::{EpochMetrics, Flow, Observer, Outcome, Phase, Recipe, Snapshot, StepReport, TrainError, Trainer},
    },
};

/// Photos whose gradients are computed at a time at least: batch normalisation needs two.
const SMALLEST_MICRO_BATCH: usize = 2;

/// What training gives.
pub(super) struct Trained {
    pub(super) network: Classifier,
    pub(super) history: Vec<EpochMetrics>,
    pub(super) batch_size: usize,
    pub(super) micro_batch_size: usize,
    pub(super) precision: Precision,
}

/// One fine-tune from its checkpoint, if it has one, to its end.
pub(super) struct Learner<'a> {
    spec: &'a FinetuneSpec,
    context: &'a JobContext,
    set: &'a TrainingSet,
    weights: &'a Weights,
    recipe: Recipe,
}

impl<'a> Learner<'a> {
    pub(super) fn new(
        spec: &'a FinetuneSpec,
        context: &'a JobContext,
        set: &'a TrainingSet,
        weights: &'a Weights,
    ) -> Self {
        let compute = &context.machine().compute;
        let recipe = Recipe {
            freeze_epochs: spec.freeze_epochs,
            base_learning_rate: spec.base_lr,
            batch_size: spec.batch_size as usize,
            precision: compute.training_precision(spec.precision),
            // So that an evaluation repeats the table.
            validation_precision: compute.prediction_precision(proto::Precision::Auto, spec.backbone),
            ..Recipe::fastai2(spec.epochs, spec.seed)
        };
        Self { spec, context, set, weights, recipe }
    }

    pub(super) fn train(self) -> Result<Trained, JobError> {
        let batch_size = self.recipe.effective_batch_size(self.set.train.len());
        let mut micro_batch_size = batch_size;
        let mut checkpoint = self.earlier_checkpoint()?;
        let photos = self.photos();
        loop {
            let mut trainer = self.trainer(&mut checkpoint)?;
            trainer.set_micro_batch_size(micro_batch_size);
            let mut reporter = Reporter { context: self.context, checkpoint, failure: None };
            let result = trainer.run(&photos, &mut reporter);
            match result {
                Ok(Outcome::Finished) => {
                    let (history, precision) = (trainer.history().to_vec(), self.recipe.precision);
                    let network = trainer.into_classifier();
                    return Ok(Trained { network, history, batch_size, micro_batch_size, precision });
                }
                Ok(Outcome::Stopped) => return Err(reporter.failure.unwrap_or(JobError::Cancelled)),
                Err(TrainError::OutOfMemory { .. }) if micro_batch_size / 2 >= SMALLEST_MICRO_BATCH => {
                    micro_batch_size /= 2;
                    checkpoint = reporter.checkpoint;
                    self.context.warn(format!(
                        "out of memory: going on from the last checkpoint with the gradients of {micro_batch_size} photos at a time"
                    ));
                }
                Err(error) => return Err(photos.take_failure().unwrap_or_else(|| failure(&error))),
            }
        }
    }

    /// The photos; every batch, also of a validation, is a sign of life and a chance to be cancelled.
    fn photos(&self) -> TrainingPhotos<'a> {
        let (set, context) = (self.set, self.context);
        let sides = (set.train.clone(), set.valid.clone());
        let size = self.spec.image_size_px as usize;
        TrainingPhotos::new(set.gallery.clone(), size, set.digests.clone(), sides, |side, number, count| {
            if side == Set::Validation {
                context.progress("validate", number as u64, count as u64, "batches");
            }
            context.check_cancelled()
        })
    }

    /// The checkpoint of an earlier attempt. One that is lost is not worth failing for.
    fn earlier_checkpoint(&self) -> Result<Option<Vec<u8>>, JobError> {
        let Some(object) = &self.context.task().checkpoint else { return Ok(None) };
        match whole(self.context, object) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(JobError::Object(error)) if is_lost(&error) => {
                self.context.warn(format!("training starts again, the checkpoint is lost: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A trainer at `checkpoint`, or at the start if there is none or it cannot be used; then it is forgotten.
    fn trainer(&self, checkpoint: &mut Option<Vec<u8>>) -> Result<Trainer, JobError> {
        if let Some(bytes) = checkpoint.take() {
            let mut trainer = self.fresh_trainer()?;
            match trainer.restore(&bytes) {
                Ok(()) => {
                    *checkpoint = Some(bytes);
                    return Ok(trainer);
                }
                // Part of it may have been copied: this trainer is of no use.
                Err(error) => {
                    self.context.warn(format!("training starts again, the checkpoint cannot be used: {error}"))
                }
            }
        }
        self.fresh_trainer()
    }

    fn fresh_trainer(&self) -> Result<Trainer, JobError> {
        let network = self.weights.network(self.spec, self.context, &self.set.classes)?;
        let (train, valid) = (self.set.examples(&self.set.train), self.set.examples(&self.set.valid));
        Trainer::new(network, self.recipe.clone(), train, valid).map_err(|error| failure(&error))
    }
}

/// What a training error means to the user.
fn failure(error: &TrainError) -> JobError {
    let message = error.to_string();
    match error {
        TrainError::Split { .. } => unusable(message),
        TrainError::Recipe(_) => Refusal::new(ErrorCode::InvalidArgument, message).into(),
        TrainError::NotANumber { .. } => {
            Refusal { code: ErrorCode::Diverged, field: "finetune.base_lr".into(), message }.into()
        }
        TrainError::OutOfMemory { source, .. } => {
            JobError::OutOfMemory { doing: "training".into(), reason: source.to_string() }
        }
        TrainError::Tch(error) => JobError::torch("training", error),
        TrainError::Source(_) | TrainError::Checkpoint(_) | TrainError::Aten(_) => JobError::Internal(message),
    }
}

/// Tells how training goes, keeps checkpoints, and stops it.
struct Reporter<'a> {
    context: &'a JobContext,
    /// The newest one.
    checkpoint: Option<Vec<u8>>,
    failure: Option<JobError>,
}

impl Reporter<'_> {
    fn keep(&mut self, snapshot: &Snapshot<'_>) -> Result<(), JobError> {
        let bytes = snapshot.to_bytes();
        let bytes = bytes.map_err(|error| JobError::Internal(format!("failed to make a checkpoint: {error}")))?;
        let object = self.context.objects().put(bytes.clone())?;
        self.context.checkpoint(object);
        self.checkpoint = Some(bytes);
        Ok(())
    }

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

impl Observer for Reporter<'_> {
    fn step(&mut self, report: &StepReport, _snapshot: &Snapshot<'_>) -> Flow {
        self.context.progress("train", report.done as u64, report.total as u64, "batches");
        let result = self.context.check_cancelled();
        self.flow(result)
    }

    fn epoch(&mut self, metrics: &EpochMetrics, snapshot: &Snapshot<'_>) -> Flow {
        self.context.epoch_finished(v1::EpochMetrics {
            frozen: metrics.phase == Phase::Frozen,
            epoch: metrics.epoch,
            train_loss: metrics.train_loss,
            valid_loss: metrics.valid_loss,
            accuracy: metrics.accuracy(),
            valid_photos: metrics.total as u32,
            duration_ms: (metrics.seconds * 1000.0) as u64,
        });
        let result = self.keep(snapshot).and_then(|()| self.context.check_cancelled());
        self.flow(result)
    }
}
