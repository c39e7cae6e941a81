//! fastai's `fine_tune`, step by step. It can stop after any step and then continue to the same bits.

use sortinghat_proto::{BaseRate, manifest::RateSearch};
use tch::{Device, TchError, Tensor, no_grad};
use tokio::time::Instant;

use super::checkpoint::{self, Checkpoint, CheckpointError, Position};
use super::loss::SmoothLoss;
use super::mixing::{Blend, Targets};
use super::optimiser::{Adam, zero_gradients};
use super::progress::{EpochMetrics, Flow, Observer, Outcome, StepReport};
use super::recipe::{Recipe, RecipeError};
use super::schedule::{PhaseSchedule, StepRates};
use super::source::{BatchPlan, Example, PhotoSource, Set, SourceError};
use crate::aten::{self, AtenError};
use crate::models::{Architecture, Classifier, Mode};
use crate::out_of_memory;
use crate::prediction::{
    augment::apply,
    batch::{Crop, PixelBatch},
};
use crate::randomness::{Draws, Phase, Purpose};

/// The fewest photos whose gradients are computed at a time: batch normalisation needs two.
const SMALLEST_MICRO_BATCH: usize = 2;

/// Training could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting outside its range.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The photos do not make a training and a validation set.
    #[error("cannot train on this split: {reason}")]
    Split {
        /// What is missing.
        reason: String,
    },
    /// A photo could not be read.
    #[error("failed to read a batch: {0}")]
    Source(#[from] SourceError),
    /// The loss is NaN or infinite. The weights of the last checkpoint are still good.
    #[error("the loss became {loss} in the {phase:?} phase, epoch {epoch}, step {step}: try a lower learning rate")]
    NotANumber {
        /// NaN or an infinity.
        loss: f64,
        /// The phase.
        phase: Phase,
        /// From 0 in its phase.
        epoch: u32,
        /// From 0 in its phase.
        step: usize,
    },
    /// The search for a learning rate ended after too few steps.
    #[error("no learning rate was found: the loss diverged after {steps} steps of rising rates; give a rate")]
    NoRate {
        /// Steps until then.
        steps: usize,
    },
    /// Not even the smallest piece of a batch fits.
    #[error("out of memory with {photos} photos at a time ({source})")]
    OutOfMemory {
        /// Photos whose gradients, or whose predictions, were computed at a time.
        photos: usize,
        /// What libtorch said.
        source: TchError,
    },
    /// The checkpoint is not one of this run.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// libtorch failed.
    #[error("failed to train: {0}")]
    Tch(TchError),
    /// libtorch failed in a call of our own.
    #[error(transparent)]
    Aten(#[from] AtenError),
}

/// One training run.
#[derive(Debug)]
pub struct Trainer {
    pub(super) classifier: Classifier,
    pub(super) recipe: Recipe,
    pub(super) train: Vec<Example>,
    pub(super) valid: Vec<Example>,
    pub(super) optimiser: Adam,
    pub(super) position: Position,
    pub(super) smooth_loss: SmoothLoss,
    pub(super) history: Vec<EpochMetrics>,
    /// How the learning rate was found, once it is.
    pub(super) search: Option<RateSearch>,
    phases: Vec<PhaseSchedule>,
    pub(super) micro_batch_size: usize,
}

/// Which step it is; the names of its random draws contain it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) phase: Phase,
    pub(super) epoch: u32,
    /// From 0 in the phase.
    pub(super) step: usize,
}

/// The run between two steps, as an observer may save it.
#[derive(Debug)]
pub struct Snapshot<'a> {
    trainer: &'a Trainer,
}

impl Snapshot<'_> {
    /// Everything needed to go on from here; see [`Trainer::restore`].
    ///
    /// # Errors
    /// When a tensor cannot be copied to the host.
    pub fn copy(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::copy(self.trainer)
    }

    /// The run's next step.
    #[must_use]
    pub fn position(&self) -> Position {
        self.trainer.position
    }

    /// The model as it is now.
    #[must_use]
    pub fn classifier(&self) -> &Classifier {
        &self.trainer.classifier
    }
}

impl Trainer {
    /// A run from the start. `classifier` should hold pretrained weights.
    ///
    /// # Errors
    /// When a setting is out of range, or a class has no photo on one side of the split.
    pub fn new(
        classifier: Classifier,
        recipe: Recipe,
        train: Vec<Example>,
        valid: Vec<Example>,
    ) -> Result<Self, TrainError> {
        recipe.check()?;
        check_split(&classifier.config().classes, &train, &valid)?;
        let optimiser = Adam::new(classifier.parameters(), recipe.weight_decay).map_err(TrainError::Tch)?;
        let (position, smooth_loss, history) = (Position::default(), SmoothLoss::default(), Vec::new());
        let micro_batch_size = recipe.effective_batch_size(train.len());
        let mut trainer = Self {
            classifier,
            recipe,
            train,
            valid,
            optimiser,
            position,
            smooth_loss,
            history,
            search: None,
            phases: Vec::new(),
            micro_batch_size,
        };
        trainer.use_search(None);
        Ok(trainer)
    }

    /// Plans the phases with the rate that was given, or found by `search`.
    pub(super) fn use_search(&mut self, search: Option<RateSearch>) {
        let batches = self.train.len() / self.recipe.effective_batch_size(self.train.len());
        self.search = search;
        self.phases = self.recipe.fine_tune(self.base_rate()).phases(self.groups(), batches);
    }

    /// Learning rate of the head at the peak of the frozen phase: given or found, and fastai's default until it is found.
    #[must_use]
    pub fn base_rate(&self) -> f64 {
        match (self.recipe.base_rate, &self.search) {
            (BaseRate::Given(rate), _) => rate,
            (BaseRate::Find, Some(search)) => search.valley,
            (BaseRate::Find, None) => Recipe::DEFAULT_RATE,
        }
    }

    /// Parameter groups, each with a learning rate of its own.
    pub(super) fn groups(&self) -> usize {
        self.classifier.backbone().groups()
    }

    /// From here on, computes the gradients of a batch in pieces of `photos` photos and adds them up. This is for when memory ran out.
    /// A piece has at least two photos, and some more where `photos` does not divide the batch.
    ///
    /// Only batch normalisation is affected: it normalises by the statistics of a piece, and updates its running statistics once for
    /// each piece.
    pub fn set_micro_batch_size(&mut self, photos: usize) {
        self.micro_batch_size = photos.max(SMALLEST_MICRO_BATCH);
    }

    /// Photos whose gradients are computed at a time. Halved whenever memory runs out.
    #[must_use]
    pub fn micro_batch_size(&self) -> usize {
        self.micro_batch_size
    }

    /// Continues where `checkpoint` was taken. On a CPU the run then ends in the same bits as if never interrupted.
    ///
    /// # Errors
    /// When the bytes are no checkpoint, or one of another model, recipe or split.
    pub fn restore(&mut self, checkpoint: &[u8]) -> Result<(), TrainError> {
        Ok(checkpoint::restore(self, checkpoint)?)
    }

    /// Trains to the end, or until the observer asks to stop.
    ///
    /// If memory runs out in a step, that step is taken again in smaller pieces, and so are all that follow.
    ///
    /// # Errors
    /// See [`TrainError`]. After a [`TrainError::Source`] the run stands between two steps and [`Self::snapshot`] may be kept.
    pub fn run(&mut self, source: &dyn PhotoSource, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let search = self.recipe.base_rate == BaseRate::Find && self.search.is_none();
        if search && self.search_rate(source, observer)? == Flow::Stop {
            return Ok(Outcome::Stopped);
        }
        while let Some(schedule) = self.phases.get(self.position.phase).cloned() {
            self.enter(schedule.phase);
            let started = Instant::now();
            if self.train_epoch(&schedule, source, observer)? == Flow::Stop {
                return Ok(Outcome::Stopped);
            }
            let metrics = self.validate(schedule.phase, source, started)?;
            if !metrics.valid_loss.is_finite() {
                // The last step of the epoch has ruined the weights, and no later step would notice.
                let (phase, epoch, loss) = (schedule.phase, self.position.epoch, metrics.valid_loss);
                let step = (epoch as usize + 1) * schedule.batches - 1;
                return Err(TrainError::NotANumber { loss, phase, epoch, step });
            }
            self.history.push(metrics.clone());
            self.position.next_epoch(schedule.epochs);
            if observer.epoch(&metrics, &self.snapshot()) == Flow::Stop {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// Metrics of every finished epoch, those before a restart included.
    #[must_use]
    pub fn history(&self) -> &[EpochMetrics] {
        &self.history
    }

    /// The run as it stands between two steps.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { trainer: self }
    }

    /// The phase of the run's next step; `None` when it is over.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.phases.get(self.position.phase).map(|schedule| schedule.phase)
    }

    /// How the learning rate was found, if that was asked for.
    #[must_use]
    pub fn rate_search(&self) -> Option<&RateSearch> {
        self.search.as_ref()
    }

    /// The trained model.
    #[must_use]
    pub fn into_classifier(self) -> Classifier {
        self.classifier
    }

    /// Sets what trains; at a phase's first step the optimiser and the shown loss start afresh, as in fastai.
    fn enter(&mut self, phase: Phase) {
        match phase {
            Phase::Frozen | Phase::Search => self.classifier.freeze(),
            Phase::Unfrozen | Phase::TestTime => self.classifier.unfreeze(),
        }
        if self.position.epoch == 0 && self.position.batch == 0 {
            self.optimiser.clear();
            self.smooth_loss = SmoothLoss::default();
        }
    }

    fn train_epoch(
        &mut self,
        schedule: &PhaseSchedule,
        source: &dyn PhotoSource,
        observer: &mut dyn Observer,
    ) -> Result<Flow, TrainError> {
        let epoch = self.position.epoch;
        let mut indices = self.order(schedule.phase, epoch);
        indices.drain(..self.position.batch);
        let mut stream = source.batches(Set::Training, self.plan(schedule.phase, epoch, indices.clone()));
        for indices in indices {
            let pixels = stream.next().ok_or_else(|| SourceError("the batches ended early".to_owned()))??;
            let batch = self.position.batch;
            let step = epoch as usize * schedule.batches + batch;
            let moment = Moment { phase: schedule.phase, epoch, step };
            let loss = self.step(moment, &schedule.rates(epoch, batch), &pixels, &indices, observer)?;
            self.smooth_loss.add(loss);
            self.position.batch += 1;
            let report = self.report(schedule, loss, indices.len());
            if observer.step(&report, &self.snapshot()) == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::Continue)
    }

    /// How the photos of training batches are cut.
    pub(super) fn plan(&self, phase: Phase, epoch: u32, indices: Vec<Vec<usize>>) -> BatchPlan {
        let crop = match self.recipe.augmentation {
            Some(_) => Crop::Random { seed: self.recipe.seed, phase, epoch },
            None => Crop::Centre,
        };
        BatchPlan { crop, indices }
    }

    /// The epoch's batches: shuffled, the last partial one dropped.
    pub(super) fn order(&self, phase: Phase, epoch: u32) -> Vec<Vec<usize>> {
        let mut draws = Draws::step(self.recipe.seed, Purpose::Order, phase, epoch, 0);
        let order = draws.permutation(self.train.len());
        order.chunks_exact(self.recipe.effective_batch_size(self.train.len())).map(<[usize]>::to_vec).collect()
    }

    /// One step, in smaller and smaller pieces if memory runs out; returns its loss.
    pub(super) fn step(
        &mut self,
        moment: Moment,
        rates: &StepRates,
        pixels: &PixelBatch,
        indices: &[usize],
        observer: &mut dyn Observer,
    ) -> Result<f64, TrainError> {
        loop {
            // A forward pass that fails half-way has changed some of the running statistics.
            let statistics = self.classifier.statistics().map_err(TrainError::Tch)?;
            match self.try_step(moment, rates, pixels, indices) {
                Err(TrainError::OutOfMemory { .. }) if self.micro_batch_size / 2 >= SMALLEST_MICRO_BATCH => {}
                result => return result,
            }
            self.classifier.set_statistics(&statistics).map_err(TrainError::Tch)?;
            if self.classifier.device().is_cuda() {
                aten::cuda_empty_cache()?;
            }
            self.set_micro_batch_size(self.micro_batch_size / 2);
            observer.smaller_pieces(self.micro_batch_size);
        }
    }

    fn try_step(
        &mut self,
        moment: Moment,
        rates: &StepRates,
        pixels: &PixelBatch,
        indices: &[usize],
    ) -> Result<f64, TrainError> {
        let Moment { phase, epoch, step } = moment;
        let photos = self.micro_batch_size.min(indices.len());
        let out_of_memory = |source| out_of_memory(source, photos);
        let (images, targets) = no_grad(|| self.prepare(moment, pixels, indices)).map_err(out_of_memory)?;
        let mut dropout = Draws::step(self.recipe.seed, Purpose::Dropout, phase, epoch, step as u64);
        tch::manual_seed(dropout.bits().cast_signed());
        zero_gradients(self.classifier.parameters());
        let value = self.gradients(&images, &targets).map_err(out_of_memory)?;
        if !value.is_finite() {
            return Err(TrainError::NotANumber { loss: value, phase, epoch, step });
        }
        self.optimiser.step(self.classifier.parameters(), rates)?;
        Ok(value)
    }

    /// Adds the batch's gradients to the parameters', piece by piece; returns its mean loss.
    fn gradients(&self, images: &Tensor, targets: &Targets) -> Result<f64, TchError> {
        let photos = images.size()[0];
        let pieces = (photos / self.micro_batch_size as i64).max(1);
        let mut value = 0.0;
        for piece in 0..pieces {
            let (start, end) = (photos * piece / pieces, photos * (piece + 1) / pieces);
            let part = images.f_narrow(0, start, end - start)?;
            let logits = self.classifier.forward(&part, Mode::Train, self.recipe.precision)?;
            let loss = targets.part(start, end - start)?.loss(&logits, self.recipe.label_smoothing)?;
            let share = (end - start) as f64 / photos as f64;
            value += share * loss.double_value(&[]);
            // Multiplying by 1 would still be one more operation in every step.
            if pieces == 1 {
                loss.f_backward()?
            } else {
                loss.f_mul_scalar(share)?.f_backward()?
            };
        }
        Ok(value)
    }

    /// Pixels -> augmented, normalised, blended input, and its targets.
    fn prepare(&self, moment: Moment, pixels: &PixelBatch, indices: &[usize]) -> Result<(Tensor, Targets), TchError> {
        let (seed, Moment { phase, epoch, step }) = (self.recipe.seed, moment);
        let mut images = pixels.to_tensor(self.classifier.device())?;
        if let Some(augmentation) = &self.recipe.augmentation {
            let draw = |&index: &usize| augmentation.draw(seed, phase, epoch, &self.train[index].digest);
            images = apply(&images, &indices.iter().map(draw).collect::<Vec<_>>())?;
        }
        let images = self.classifier.normalise(&images)?;
        let labels = labels(&self.train, indices, self.classifier.device());
        let Some(mixing) = self.recipe.mixing else { return Ok((images, Targets::plain(labels))) };
        let (_, _, height, width) = images.size4()?;
        let mut draws = Draws::step(seed, Purpose::Mixing, phase, epoch, step as u64);
        let blend = Blend::draw(mixing, &mut draws, indices.len(), height, width);
        Ok((blend.images(&images)?, blend.targets(labels)?))
    }

    fn report(&self, schedule: &PhaseSchedule, loss: f64, images: usize) -> StepReport {
        let before = self.phases[..self.position.phase].iter().map(PhaseSchedule::steps).sum::<usize>();
        let step = self.position.epoch as usize * schedule.batches + self.position.batch;
        StepReport {
            phase: schedule.phase,
            epoch: self.position.epoch,
            step,
            steps: schedule.steps(),
            done: before + step,
            total: self.phases.iter().map(PhaseSchedule::steps).sum(),
            loss,
            smooth_loss: self.smooth_loss.value(),
            images,
        }
    }
}

/// The class of each of these examples, `[N]` i64.
pub(super) fn labels(examples: &[Example], indices: &[usize], device: Device) -> Tensor {
    let labels = indices.iter().map(|&index| examples[index].label as i64).collect::<Vec<_>>();
    Tensor::from_slice(&labels).to_device(device)
}

pub(super) fn out_of_memory(source: TchError, photos: usize) -> TrainError {
    if out_of_memory::is_said_in(&source.to_string()) {
        TrainError::OutOfMemory { photos, source }
    } else {
        TrainError::Tch(source)
    }
}

/// Refuses a split in which some class has no photo to learn from, or none that is held out.
///
/// # Errors
/// [`TrainError::Split`] with the class.
pub(crate) fn check_split(classes: &[String], train: &[Example], valid: &[Example]) -> Result<(), TrainError> {
    let refuse = |reason: String| Err(TrainError::Split { reason });
    for (name, examples) in [("training", train), ("validation", valid)] {
        let mut counts = vec![0_usize; classes.len()];
        for example in examples {
            let Some(count) = counts.get_mut(example.label) else {
                return refuse(format!("a {name} photo has class {} of {}", example.label, classes.len()));
            };
            *count += 1;
        }
        if let Some(empty) = counts.iter().position(|&count| count == 0) {
            return refuse(format!("class {:?} has no {name} photo", classes[empty]));
        }
    }
    Ok(())
}
