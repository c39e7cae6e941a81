//! Networks as jobs load them: by their manifest, with the contract's names turned into the network's own.

use std::io::Read as _;

use sortinghat_proto::{self as proto, ObjectRef, Refusal, manifest::ModelManifest, v1::ErrorCode};

use super::{JobContext, JobError};
use crate::{
    device::{Compute, Precision},
    models::{Backbone, Classifier, ModelConfig, ModelError, WeightsError},
    objects::ObjectError,
    training::{batch::Digest, tta::TtaRecipe},
};

/// The network of a model.
pub(super) fn load(context: &JobContext, manifest: &ModelManifest) -> Result<Classifier, JobError> {
    let weights = whole(context, &manifest.weights)?;
    let (mean, std) = (manifest.mean, manifest.std);
    let config = ModelConfig::new(backbone(manifest.backbone), manifest.classes.clone(), manifest.image_size_px);
    Classifier::from_bundle(ModelConfig { mean, std, ..config }, &weights, context.machine().compute.device)
        .map_err(|error| model_error("loading the model", &error, "", ErrorCode::CorruptObject))
}

/// The content of an object, through the cache of this machine.
pub(super) fn whole(context: &JobContext, object: &ObjectRef) -> Result<Vec<u8>, JobError> {
    let mut bytes = Vec::with_capacity(usize::try_from(object.size_bytes).unwrap_or_default());
    let mut file = context.objects().open(object)?;
    file.read_to_end(&mut bytes)
        .map_err(|source| JobError::Machine { action: "read the object cache".into(), source })?;
    Ok(bytes)
}

/// A network that cannot be built: for want of memory, or because of what `field` names.
pub(super) fn model_error(doing: &str, error: &ModelError, field: &str, code: ErrorCode) -> JobError {
    match error {
        ModelError::Tch(error) => JobError::torch(doing, error),
        ModelError::Weights(error) => weights_error(doing, error, field, code),
        ModelError::Config(error) => Refusal { code, field: field.into(), message: error.to_string() }.into(),
    }
}

/// Weights that cannot be used.
pub(super) fn weights_error(doing: &str, error: &WeightsError, field: &str, code: ErrorCode) -> JobError {
    match error {
        WeightsError::Tch { source, .. } => JobError::torch(doing, source),
        error => Refusal { code, field: field.into(), message: error.to_string() }.into(),
    }
}

/// The backbone by the network's own type.
pub(super) fn backbone(backbone: proto::Backbone) -> Backbone {
    match backbone {
        proto::Backbone::EfficientnetLite0 => Backbone::EfficientNetLite0,
        proto::Backbone::Resnet18 => Backbone::ResNet18,
        proto::Backbone::Resnet34 => Backbone::ResNet34,
        proto::Backbone::Resnet50 => Backbone::ResNet50,
    }
}

/// The way in which augmented predictions are combined.
pub(super) fn tta_recipe(recipe: proto::TtaRecipe) -> TtaRecipe {
    match recipe {
        proto::TtaRecipe::Fastai2 => TtaRecipe::Fastai2,
        proto::TtaRecipe::Fastai07 => TtaRecipe::Fastai07,
        proto::TtaRecipe::Max => TtaRecipe::Fastai2Max,
    }
}

/// What a network trains in. Left to us, bf16 is for GPUs: on a CPU it is faster for predictions, and slower in training.
pub(super) fn training_precision(asked: proto::Precision, compute: &Compute) -> Precision {
    match asked {
        proto::Precision::F32 => Precision::F32,
        proto::Precision::Bf16 => Precision::Bf16,
        proto::Precision::Auto if compute.device.is_cuda() => compute.precision,
        proto::Precision::Auto => Precision::F32,
    }
}

/// A digest as training knows it, 32 bytes.
pub(super) fn digest_bytes(digest: &proto::Digest) -> Digest {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digest.as_str(), &mut bytes).expect("a digest is 64 hexadecimal digits");
    bytes
}

/// Whether the object is not there in one piece, which no second try changes.
pub(super) fn is_lost(error: &ObjectError) -> bool {
    matches!(error, ObjectError::Missing { .. } | ObjectError::Corrupt { .. })
}
