//! Finetune: makes a model from a dataset and a backbone, by fastai's `fine_tune` or by a regression on the backbone's features.

mod auto;
mod keeper;
mod labels;
mod learner;
mod regression;
mod set;

use sortinghat_proto::{
    FinetuneSpec, ObjectRef, Recipe, Refusal,
    manifest::{DatasetProvenance, EpochRecord, Interval, ModelManifest, RecipeRecord, WeightsProvenance},
    v1::{self, ErrorCode},
    words::percent,
};

use super::{
    network::weights_error,
    pretrained::{Pretrained, Wanted},
};
use crate::{
    dataset::remarks::FEW_PHOTOS,
    device::Precision,
    evaluation::interval,
    models::{Classifier, HeadConfig, ModelConfig, Square},
    randomness::Phase,
    task::{JobContext, JobError, JobOutput},
    training::progress::EpochMetrics,
};
use learner::Learner;
use set::TrainingSet;

pub(crate) fn run(spec: &FinetuneSpec, context: &JobContext) -> Result<JobOutput, JobError> {
    let set = TrainingSet::open(spec, context)?;
    warn_of_small_classes(context, &set);
    let weights = find_weights(spec, context)?;
    let made = match &spec.recipe {
        Recipe::Fastai2(options) => Learner::new(spec, options, context, &set, &weights).train()?,
        Recipe::Fast | Recipe::Best => regression::fit(spec, context, &set, &weights)?,
        Recipe::Auto => auto::fit(spec, context, &set, &weights)?,
    };
    publish(spec, context, &set, weights.provenance, made)
}

fn find_weights(spec: &FinetuneSpec, context: &JobContext) -> Result<Pretrained, JobError> {
    Pretrained::find(Wanted { backbone: spec.backbone, source: &spec.weights, kind: "finetune" }, context)
}

/// A network with the spec's weights under a new head, which sees these squares of each photo.
fn network(
    spec: &FinetuneSpec,
    context: &JobContext,
    weights: &Pretrained,
    classes: &[String],
    (head, squares): (HeadConfig, Vec<Square>),
) -> Result<Classifier, JobError> {
    let config = ModelConfig::new(spec.backbone, classes.to_vec(), spec.image_size_px);
    weights.network(ModelConfig { head, squares, ..config }, spec.seed, context)
}

/// A network that was made from the photos, and how.
struct Made {
    network: Classifier,
    recipe: RecipeRecord,
    history: Vec<EpochMetrics>,
    /// What the body computed in while it was made.
    precision: Precision,
}

fn warn_of_small_classes(context: &JobContext, set: &TrainingSet) {
    let small: Vec<String> = (set.classes.iter().zip(set.train_counts()))
        .filter(|(_, photos)| (*photos as u64) < FEW_PHOTOS)
        .map(|(class, photos)| format!("{class} ({photos})"))
        .collect();
    if !small.is_empty() {
        let names = small.join(", ");
        context
            .warn(format!("fewer than {FEW_PHOTOS} photos to learn from in {names}: expect little of these classes"));
    }
}

fn publish(
    spec: &FinetuneSpec,
    context: &JobContext,
    set: &TrainingSet,
    pretrained: WeightsProvenance,
    made: Made,
) -> Result<JobOutput, JobError> {
    context.progress("store", 0, 0, "bytes");
    let bytes = made.network.to_safetensors();
    let bytes = bytes.map_err(|error| weights_error("storing the model", &error, "", ErrorCode::Internal))?;
    let weights = context.objects().put(bytes)?;
    let summary = summary(spec, set, &made.history);
    let manifest = context.objects().put_document(&manifest(spec, context, set, pretrained, weights, made)?)?;
    Ok(JobOutput { manifest, summary })
}

fn manifest(
    spec: &FinetuneSpec,
    context: &JobContext,
    set: &TrainingSet,
    pretrained: WeightsProvenance,
    weights: ObjectRef,
    made: Made,
) -> Result<ModelManifest, JobError> {
    let (dataset, compute) = (context.dataset()?, &context.machine().compute);
    let config = made.network.config();
    Ok(ModelManifest {
        classes: config.classes.clone(),
        backbone: spec.backbone,
        weights,
        image_size_px: config.squares.iter().map(|square| square.size as u32).max().unwrap_or(spec.image_size_px),
        mean: config.mean,
        std: config.std,
        recipe: made.recipe,
        dataset: DatasetProvenance { name: dataset.name.clone(), manifest: dataset.manifest.clone(), fold: set.fold },
        pretrained,
        seed: spec.seed,
        precision: made.precision.into(),
        device: compute.device_name(),
        threads: compute.threads as u32,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        history: made.history.iter().map(record).collect(),
    })
}

fn record(metrics: &EpochMetrics) -> EpochRecord {
    EpochRecord {
        frozen: metrics.phase == Phase::Frozen,
        epoch: metrics.epoch,
        train_loss: metrics.train_loss,
        valid_loss: metrics.valid_loss,
        accuracy: metrics.accuracy(),
        duration_ms: (metrics.seconds * 1000.0) as u64,
    }
}

/// A row of the training table, as it is reported while the job runs.
fn told(metrics: &EpochMetrics) -> v1::EpochMetrics {
    v1::EpochMetrics {
        frozen: metrics.phase == Phase::Frozen,
        epoch: metrics.epoch,
        train_loss: metrics.train_loss,
        valid_loss: metrics.valid_loss,
        accuracy: metrics.accuracy(),
        valid_photos: metrics.total as u32,
        duration_ms: (metrics.seconds * 1000.0) as u64,
    }
}

/// "efficientnet_lite0 on 571 photos, 85.2% of 142 held-out photos right (95% interval 78.4-90.1%)".
fn summary(spec: &FinetuneSpec, set: &TrainingSet, history: &[EpochMetrics]) -> String {
    let recipe = match spec.recipe {
        Recipe::Fastai2(_) => String::new(),
        Recipe::Auto | Recipe::Fast | Recipe::Best => format!(", recipe {},", spec.recipe),
    };
    let learned = format!("{}{recipe} on {} photos", spec.backbone, set.train.len());
    let Some(last) = history.last() else { return learned };
    let range = interval(&Interval::wilson(last.correct as u64, last.total as u64));
    let accuracy = percent(last.accuracy());
    format!("{learned}, {accuracy} of {} held-out photos right (95% interval {range})", last.total)
}

/// A refusal because of the data.
fn unusable(message: String) -> JobError {
    Refusal::new(ErrorCode::UnusableData, message).at("finetune.dataset").into()
}
