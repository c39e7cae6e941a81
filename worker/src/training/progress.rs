//! What a training run reports while it runs.

use serde::{Deserialize, Serialize};
use sortinghat_proto::manifest::RateSearch;

use super::trainer::Snapshot;
use crate::randomness::Phase;

/// One step has been taken.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The phase.
    pub phase: Phase,
    /// From 0 in its phase.
    pub epoch: u32,
    /// Steps taken in the phase.
    pub step: usize,
    /// Steps of the phase.
    pub steps: usize,
    /// Steps taken in the run.
    pub done: usize,
    /// Steps of the run.
    pub total: usize,
    /// The batch's loss.
    pub loss: f64,
    /// The loss as fastai shows it.
    pub smooth_loss: f64,
    /// Photos in the batch.
    pub images: usize,
}

/// One line of the training table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochMetrics {
    /// The phase.
    pub phase: Phase,
    /// From 0 in its phase.
    pub epoch: u32,
    /// Exponential average over the phase's steps.
    pub train_loss: f64,
    /// Mean over the validation photos.
    pub valid_loss: f64,
    /// Validation photos whose most probable class is their label.
    pub correct: usize,
    /// Validation photos.
    pub total: usize,
    /// Seconds that the epoch took, its validation included; after a restart only those since the restart.
    pub seconds: f64,
}

impl EpochMetrics {
    /// Share of validation photos classified correctly, 0..1.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.total as f64
    }
}

/// What an observer asks the trainer to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// To take the next step.
    Continue,
    /// To end here; the run can be continued from a checkpoint.
    Stop,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// After its last epoch.
    Finished,
    /// Because the observer said so.
    Stopped,
}

/// Is called after every step and epoch, on the training thread.
pub trait Observer {
    /// Called during the search for a learning rate, after `done` of at most `steps` steps. The search leaves no trace in the model.
    fn searching(&mut self, _done: usize, _steps: usize) -> Flow {
        Flow::Continue
    }

    /// Called after the search for a learning rate.
    fn rate_found(&mut self, _search: &RateSearch) -> Flow {
        Flow::Continue
    }

    /// Called after a step.
    fn step(&mut self, report: &StepReport, snapshot: &Snapshot<'_>) -> Flow;

    /// Called after an epoch and its validation.
    fn epoch(&mut self, metrics: &EpochMetrics, snapshot: &Snapshot<'_>) -> Flow;

    /// Called after memory ran out: from this step on, the gradients of `photos` photos at a time are computed and added up.
    fn smaller_pieces(&mut self, photos: usize);
}
