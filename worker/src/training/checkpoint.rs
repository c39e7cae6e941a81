//! Checkpoints: a training run between two steps as one safetensors file, with weights, statistics, both moments, and the position
//! of the run.
//!
//! A checkpoint is made in two parts. [`Checkpoint`] is a copy of the run in this process's memory, which is quickly taken between two
//! steps. Writing the copy as a file takes longer and may happen while the next steps run.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::manifest::RateSearch;

use super::loss::SmoothLoss;
use super::progress::EpochMetrics;
use super::recipe::Recipe;
use super::source::Example;
use super::trainer::Trainer;
use crate::models::{HostTensors, StateDict, WeightsError};

/// Version of what [`Checkpoint::into_bytes`] writes.
const FORMAT: u32 = 2;
const KEY: &str = "sortinghat.checkpoint";

/// The position of a run: its next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Index of the phase; one past the last when the run is over.
    pub phase: usize,
    /// Epoch in the phase.
    pub epoch: u32,
    /// Batch in the epoch; one past the last when only validation remains.
    pub batch: usize,
}

impl Position {
    /// Moves to the next epoch, or to the next phase after the last of `epochs`.
    pub(super) fn next_epoch(&mut self, epochs: u32) {
        self.batch = 0;
        self.epoch += 1;
        if self.epoch == epochs {
            (self.phase, self.epoch) = (self.phase + 1, 0);
        }
    }
}

/// A checkpoint could not be written or is not one of this run.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file has no description of a run.
    #[error("not a training checkpoint: {reason}")]
    Foreign {
        /// What is wrong.
        reason: String,
    },
    /// The checkpoint is one of a run with another recipe, class list or list of photos.
    #[error("the checkpoint belongs to another run: its {field} differs")]
    OtherRun {
        /// What differs.
        field: &'static str,
    },
    /// The run cannot go on, because some of its values are NaN or infinite.
    #[error("tensor {tensor} has values that are no numbers")]
    NotANumber {
        /// The first such tensor.
        tensor: String,
    },
    /// A tensor is missing, misshapen or cannot be copied.
    #[error("the checkpoint does not fit the model: {0}")]
    Weights(#[from] WeightsError),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    /// The recipe as JSON, which is compared as text.
    recipe: String,
    classes: Vec<String>,
    /// SHA-256 over both example lists, in hex.
    examples: String,
    position: Position,
    /// It is smaller than a batch after memory ran out. It must be kept, because it affects batch normalisation.
    micro_batch_size: usize,
    optimiser_steps: u64,
    smooth_loss: SmoothLoss,
    history: Vec<EpochMetrics>,
    /// How the learning rate was found, if it was.
    #[serde(default)]
    search: Option<RateSearch>,
}

fn recipe_text(recipe: &Recipe) -> String {
    serde_json::to_string(recipe).expect("plain data with string keys is always JSON")
}

fn fingerprint(train: &[Example], valid: &[Example]) -> String {
    let mut hash = Sha256::new();
    for examples in [train, valid] {
        hash.update((examples.len() as u64).to_le_bytes());
        for example in examples {
            hash.update(example.digest.as_str());
            hash.update((example.label as u64).to_le_bytes());
        }
    }
    hex::encode(hash.finalize())
}

/// A run between two steps, copied out of it.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: HostTensors,
    state: State,
}

impl Checkpoint {
    pub(super) fn copy(trainer: &Trainer) -> Result<Self, CheckpointError> {
        let state = State {
            format: FORMAT,
            recipe: recipe_text(&trainer.recipe),
            classes: trainer.classifier.config().classes.clone(),
            examples: fingerprint(&trainer.train, &trainer.valid),
            position: trainer.position,
            micro_batch_size: trainer.micro_batch_size,
            optimiser_steps: trainer.optimiser.steps(),
            smooth_loss: trainer.smooth_loss,
            history: trainer.history.clone(),
            search: trainer.search.clone(),
        };
        let moments = trainer.optimiser.state(trainer.classifier.parameters());
        let moments = moments.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let tensors = HostTensors::copy(trainer.classifier.state().chain(moments))?;
        Ok(Self { tensors, state })
    }

    /// The file; see [`Trainer::restore`].
    ///
    /// # Errors
    /// [`CheckpointError::NotANumber`], or when it cannot be laid out.
    pub fn into_bytes(self) -> Result<Vec<u8>, CheckpointError> {
        if let Some(tensor) = self.tensors.not_a_number() {
            return Err(CheckpointError::NotANumber { tensor: tensor.to_owned() });
        }
        // This is TOML, because serde_json may read a float back one unit in the last place off.
        let text = toml::to_string(&self.state).expect("plain data with string keys is always TOML");
        Ok(self.tensors.into_safetensors(HashMap::from([(KEY.to_owned(), text)]))?)
    }
}

pub(super) fn restore(trainer: &mut Trainer, bytes: &[u8]) -> Result<(), CheckpointError> {
    let foreign = |reason: String| CheckpointError::Foreign { reason };
    let tensors = StateDict::from_safetensors(bytes)?;
    let text = tensors.note(KEY).ok_or_else(|| foreign(format!("no {KEY} in its header")))?;
    let state = toml::from_str::<State>(text).map_err(|error| foreign(error.to_string()))?;
    if state.format != FORMAT {
        return Err(foreign(format!("it has format {}, and this program reads format {FORMAT}", state.format)));
    }
    for (field, same) in [
        ("recipe", state.recipe == recipe_text(&trainer.recipe)),
        ("class list", state.classes == trainer.classifier.config().classes),
        ("list of photos", state.examples == fingerprint(&trainer.train, &trainer.valid)),
    ] {
        if !same {
            return Err(CheckpointError::OtherRun { field });
        }
    }
    let moments = trainer.optimiser.state(trainer.classifier.parameters());
    let model = trainer.classifier.state().map(|(name, tensor)| (name.to_owned(), tensor));
    let moments = moments.iter().map(|(name, tensor)| (name.clone(), tensor));
    tensors.copy_into(model.chain(moments), |_| false)?;
    trainer.optimiser.set_steps(state.optimiser_steps);
    trainer.position = state.position;
    trainer.set_micro_batch_size(trainer.micro_batch_size.min(state.micro_batch_size));
    trainer.smooth_loss = state.smooth_loss;
    trainer.history = state.history;
    trainer.use_search(state.search);
    Ok(())
}
