//! Finetune: makes a model from a dataset and a backbone by fastai's `fine_tune`, resumed from the newest checkpoint.

mod keeper;
mod learner;
mod set;

use sortinghat_proto::{
    Digest, FinetuneSpec, ObjectRef, Refusal, WeightsSource,
    manifest::{DatasetProvenance, EpochRecord, Interval, ModelManifest, WeightsProvenance},
    v1::ErrorCode,
    words::percent,
};

use super::network::{model_error, weights_error, whole};
use crate::{
    evaluation::interval,
    models::{self, Classifier, ModelConfig, StateDict},
    randomness::Phase,
    task::{JobContext, JobError, JobOutput},
    training::progress::EpochMetrics,
};
use learner::{Learner, Trained};
use set::TrainingSet;

/// With fewer photos of a class, little can be learned of it.
const FEW_PHOTOS: usize = 20;

pub(crate) fn run(spec: &FinetuneSpec, context: &JobContext) -> Result<JobOutput, JobError> {
    let set = TrainingSet::open(spec, context)?;
    warn_of_small_classes(context, &set);
    let weights = Weights::find(spec, context)?;
    let learner = Learner::new(spec, context, &set, &weights);
    let trained = learner.train()?;
    publish(spec, context, &set, weights.provenance, trained)
}

fn warn_of_small_classes(context: &JobContext, set: &TrainingSet) {
    let small: Vec<String> = (set.classes.iter().zip(set.train_counts()))
        .filter(|(_, photos)| *photos < FEW_PHOTOS)
        .map(|(class, photos)| format!("{class} ({photos})"))
        .collect();
    if !small.is_empty() {
        let names = small.join(", ");
        context
            .warn(format!("fewer than {FEW_PHOTOS} photos to learn from in {names}: expect little of these classes"));
    }
}

/// Pretrained weights, found and read.
struct Weights {
    /// `None` for random ones.
    state: Option<StateDict>,
    provenance: WeightsProvenance,
}

impl Weights {
    /// Finds the weights that the spec asks for. They are random only if it asks for random ones.
    fn find(spec: &FinetuneSpec, context: &JobContext) -> Result<Self, JobError> {
        let machine = context.machine();
        let source = match &spec.weights {
            WeightsSource::Random => models::WeightsSource::None,
            WeightsSource::Pretrained => models::WeightsSource::default_for(spec.backbone, &machine.weights_dir),
            WeightsSource::Hub(repository) => models::WeightsSource::Hub(repository.clone()),
            WeightsSource::Object(digest) => models::WeightsSource::Bytes {
                name: format!("object:{digest}"),
                bytes: whole(context, &context.objects().find(digest)?)?.into(),
            },
        };
        context.progress("weights", 0, 0, "bytes");
        let file = source.read(&machine.hub_dir).map_err(|error| unusable_weights(&error))?;
        let provenance = WeightsProvenance {
            source: file.as_ref().map_or_else(|| "none".to_owned(), |file| file.origin.clone()),
            digest: file.as_ref().map(|file| Digest::of(&file.bytes)),
        };
        let state = file.map(|file| StateDict::from_safetensors(&file.bytes)).transpose();
        Ok(Self { state: state.map_err(|error| unusable_weights(&error))?, provenance })
    }

    /// A network with these weights under a new head.
    fn network(&self, spec: &FinetuneSpec, context: &JobContext, classes: &[String]) -> Result<Classifier, JobError> {
        let config = ModelConfig::new(spec.backbone, classes.to_vec(), spec.image_size_px);
        let config = ModelConfig { crop: spec.crop, ..config };
        let mut network = Classifier::new(config, context.machine().compute.device, spec.seed).map_err(|error| {
            model_error("building the network", &error, "finetune.dataset", ErrorCode::InvalidArgument)
        })?;
        if let Some(state) = &self.state {
            network.load_backbone(state).map_err(|error| unusable_weights(&error))?;
        }
        Ok(network)
    }
}

fn unusable_weights(error: &models::WeightsError) -> JobError {
    weights_error("loading weights", error, "finetune.weights", ErrorCode::WeightsUnavailable)
}

fn publish(
    spec: &FinetuneSpec,
    context: &JobContext,
    set: &TrainingSet,
    pretrained: WeightsProvenance,
    trained: Trained,
) -> Result<JobOutput, JobError> {
    context.progress("store", 0, 0, "bytes");
    let bytes = trained.network.to_safetensors();
    let bytes = bytes.map_err(|error| weights_error("storing the model", &error, "", ErrorCode::Internal))?;
    let weights = context.objects().put(bytes)?;
    let summary = summary(spec, set, &trained.history);
    let manifest = context.objects().put_document(&manifest(spec, context, set, pretrained, weights, trained)?)?;
    Ok(JobOutput { manifest, summary })
}

fn manifest(
    spec: &FinetuneSpec,
    context: &JobContext,
    set: &TrainingSet,
    pretrained: WeightsProvenance,
    weights: ObjectRef,
    trained: Trained,
) -> Result<ModelManifest, JobError> {
    let (dataset, compute) = (context.dataset()?, &context.machine().compute);
    let config = trained.network.config();
    Ok(ModelManifest {
        classes: config.classes.clone(),
        backbone: spec.backbone,
        weights,
        image_size_px: config.image_size,
        mean: config.mean,
        std: config.std,
        recipe: "fastai2".to_owned(),
        dataset: DatasetProvenance { name: dataset.name.clone(), manifest: dataset.manifest.clone(), fold: set.fold },
        pretrained,
        freeze_epochs: spec.freeze_epochs,
        epochs: spec.epochs,
        base_lr: trained.base_lr,
        rate_search: trained.rate_search,
        mixing: spec.mixing,
        label_smoothing: spec.label_smoothing,
        crop: config.crop,
        batch_size: trained.batch_size as u32,
        micro_batch_size: trained.micro_batch_size as u32,
        seed: spec.seed,
        precision: trained.precision.into(),
        device: compute.device_name(),
        threads: compute.threads as u32,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        history: trained.history.iter().map(record).collect(),
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

/// "efficientnet_lite0 on 571 photos, 85.2% of 142 held-out photos right (95% interval 78.4-90.1%)".
fn summary(spec: &FinetuneSpec, set: &TrainingSet, history: &[EpochMetrics]) -> String {
    let learned = format!("{} on {} photos", spec.backbone, set.train.len());
    let Some(last) = history.last() else { return learned };
    let range = interval(&Interval::wilson(last.correct as u64, last.total as u64));
    let accuracy = percent(last.accuracy());
    format!("{learned}, {accuracy} of {} held-out photos right (95% interval {range})", last.total)
}

/// A refusal because of the data.
fn unusable(message: String) -> JobError {
    Refusal::new(ErrorCode::UnusableData, message).at("finetune.dataset").into()
}
