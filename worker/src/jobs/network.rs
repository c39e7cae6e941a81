//! Loads networks for jobs by their manifest, and says what goes wrong while loading.

use std::io::Read as _;

use sortinghat_photos::derivative::DEFAULT_SHORT_SIDE;
use sortinghat_proto::{
    ObjectRef, Refusal, Tta,
    manifest::{AutoRecord, DatasetManifest, ModelManifest, RecipeRecord},
    v1::ErrorCode,
};

use crate::{
    models::{Classifier, Framing, HeadConfig, ModelConfig, ModelError, Square, WeightsError},
    objects::ObjectError,
    task::{JobContext, JobError},
};

/// The network of a model.
pub(super) fn load(context: &JobContext, manifest: &ModelManifest) -> Result<Classifier, JobError> {
    let weights = whole(context, &manifest.weights)?;
    let (mean, std) = (manifest.mean, manifest.std);
    let config = ModelConfig::new(manifest.backbone, manifest.classes.clone(), manifest.image_size_px);
    let (head, squares) = match &manifest.recipe {
        RecipeRecord::Fastai2(made) => {
            let square = Square { size: manifest.image_size_px as usize, framing: Framing::Crop(made.crop) };
            (config.head, vec![square])
        }
        RecipeRecord::Fast(made)
        | RecipeRecord::Best(made)
        | RecipeRecord::Auto(AutoRecord { regression: made, .. }) => {
            let head = HeadConfig::Regression {
                temperature: made.temperature,
                unlike: made.unlike.as_ref().map(|record| record.scale),
            };
            (head, made.views.iter().copied().map(Square::from).collect())
        }
    };
    Classifier::from_bundle(
        ModelConfig { head, squares, mean, std, ..config },
        &weights,
        context.machine().compute.device,
    )
    .map_err(|error| model_error("loading the model", &error, "", ErrorCode::CorruptObject))
}

/// Refuses test-time augmentation of a model that already averages over views of its own. `field` is the field of the spec.
pub(super) fn check_tta(tta: Option<Tta>, model: &ModelManifest, name: &str, field: &str) -> Result<(), Refusal> {
    let Some(made) = model.recipe.regression().filter(|_| tta.is_some()) else { return Ok(()) };
    let (recipe, views) = (model.recipe.name(), made.views.len());
    let seen = if views == 1 {
        "sees each photo as a whole".to_owned()
    } else {
        format!("averages {views} views of each photo")
    };
    Err(Refusal::invalid(
        field,
        format!(
            "{name} was made by the recipe {recipe}: it already {seen}, and knows no other test-time augmentation; leave it out"
        ),
    ))
}

/// The content of an object, through the cache of this machine.
pub(super) fn whole(context: &JobContext, object: &ObjectRef) -> Result<Vec<u8>, JobError> {
    let mut bytes = Vec::with_capacity(usize::try_from(object.size_bytes).unwrap_or_default());
    let mut file = context.objects().open(object)?;
    file.read_to_end(&mut bytes)
        .map_err(|source| JobError::Machine { action: "read the object cache".into(), source })?;
    Ok(bytes)
}

/// The error of a network that cannot be built, because memory ran out or because of what `field` names.
pub(super) fn model_error(doing: &str, error: &ModelError, field: &str, code: ErrorCode) -> JobError {
    match error {
        ModelError::Tch(error) => JobError::torch(doing, error),
        ModelError::Weights(error) => weights_error(doing, error, field, code),
        ModelError::Config(error) => Refusal::new(code, error.to_string()).at(field).into(),
    }
}

/// The error of weights that cannot be used.
pub(super) fn weights_error(doing: &str, error: &WeightsError, field: &str, code: ErrorCode) -> JobError {
    match error {
        WeightsError::Tch { source, .. } => JobError::torch(doing, source),
        error => Refusal::new(code, error.to_string()).at(field).into(),
    }
}

/// Short side of the derivatives that the model learned from: photos are reduced to it first, as they were for training.
pub(super) fn derivative_short_side(context: &JobContext, model: &ModelManifest) -> Result<u32, JobError> {
    match context.objects().document::<DatasetManifest>(&model.dataset.manifest) {
        Ok(dataset) => Ok(dataset.derivative_short_side_px),
        // The dataset may be deleted while its models live on.
        Err(error) if is_lost(&error) => Ok(DEFAULT_SHORT_SIDE),
        Err(error) => Err(error.into()),
    }
}

/// Whether the object is missing or damaged, which a second try would not change.
pub(super) fn is_lost(error: &ObjectError) -> bool {
    error.lost().is_some()
}
