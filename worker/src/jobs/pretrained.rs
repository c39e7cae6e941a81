//! Finds pretrained weights, and makes networks of them.

use std::io::Read as _;

use sortinghat_proto::{Backbone, Digest, Refusal, WeightsSource, manifest::WeightsProvenance, v1::ErrorCode};

use super::network::{model_error, weights_error, whole};
use crate::{
    models::{Classifier, ModelConfig, StateDict, WeightsError},
    objects::{ObjectError, PublishedWeights},
    task::{JobContext, JobError},
};

/// The weights that a job asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) backbone: Backbone,
    pub(super) source: &'a WeightsSource,
    /// The kind of the job, with which the names of its fields begin.
    pub(super) kind: &'static str,
}

/// Pretrained weights, found and read.
pub(super) struct Pretrained {
    /// `None` for random ones.
    state: Option<StateDict>,
    pub(super) provenance: WeightsProvenance,
    kind: &'static str,
}

impl Pretrained {
    /// Finds the weights. They are random only if the job asks for random ones.
    pub(super) fn find(wanted: Wanted<'_>, context: &JobContext) -> Result<Self, JobError> {
        context.progress("weights", 0, 0, "bytes");
        let Wanted { backbone, source, kind } = wanted;
        let (source, bytes) = match source {
            WeightsSource::Random => {
                let provenance = WeightsProvenance { source: "none".to_owned(), digest: None };
                return Ok(Self { state: None, provenance, kind });
            }
            WeightsSource::Pretrained => published(context, PublishedWeights::Backbone(backbone), kind)?,
            WeightsSource::Hub(repository) => published(context, PublishedWeights::Hub(repository), kind)?,
            WeightsSource::Object(digest) => {
                (format!("object:{digest}"), whole(context, &context.objects().find(digest)?)?)
            }
        };
        let state = StateDict::from_safetensors(&bytes).map_err(|error| unusable(&error, kind))?;
        let provenance = WeightsProvenance { source, digest: Some(Digest::of(&bytes)) };
        Ok(Self { state: Some(state), provenance, kind })
    }

    /// A network with these weights under a new head. `seed` decides what the weights do not say.
    pub(super) fn network(&self, config: ModelConfig, seed: u64, context: &JobContext) -> Result<Classifier, JobError> {
        let mut network = Classifier::new(config, context.machine().compute.device, seed).map_err(|error| {
            let field = format!("{}.dataset", self.kind);
            model_error("building the network", &error, &field, ErrorCode::InvalidArgument)
        })?;
        if let Some(state) = &self.state {
            network.load_backbone(state).map_err(|error| unusable(&error, self.kind))?;
        }
        Ok(network)
    }
}

/// Where these weights were found, and the file.
fn published(context: &JobContext, weights: PublishedWeights<'_>, kind: &str) -> Result<(String, Vec<u8>), JobError> {
    let (origin, mut file) = context.objects().weights(weights).map_err(|error| match error {
        error @ ObjectError::NoWeights { .. } => {
            Refusal::new(error.code(), error.to_string()).at(format!("{kind}.weights")).into()
        }
        error => JobError::from(error),
    })?;
    let mut bytes = Vec::new();
    let read = file.read_to_end(&mut bytes);
    read.map_err(|source| JobError::Machine { action: format!("read the weights {origin}"), source })?;
    Ok((origin, bytes))
}

fn unusable(error: &WeightsError, kind: &str) -> JobError {
    weights_error("loading weights", error, &format!("{kind}.weights"), ErrorCode::WeightsUnavailable)
}
