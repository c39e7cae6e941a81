//! From validated specs back to the wire, with every default spelled out.

use crate::{
    BaseRate, ClassifySpec, EvaluateOn, EvaluateSpec, FinetuneSpec, IngestSpec, JobSpec, Mixing, Precision, Split,
    TrainingCrop, Tta, TtaRecipe, WeightsSource, v1,
};

impl From<JobSpec> for v1::JobSpec {
    fn from(spec: JobSpec) -> Self {
        use v1::job_spec::Kind;
        let kind = match spec {
            JobSpec::Ingest(spec) => Kind::Ingest(spec.into()),
            JobSpec::Finetune(spec) => Kind::Finetune(spec.into()),
            JobSpec::Evaluate(spec) => Kind::Evaluate(spec.into()),
            JobSpec::Classify(spec) => Kind::Classify(spec.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl From<IngestSpec> for v1::IngestSpec {
    fn from(spec: IngestSpec) -> Self {
        let (valid_percent, folds) = match spec.split {
            Split::ValidPercent(percent) => (percent, 0),
            Split::Folds(folds) => (0, folds),
        };
        Self {
            dataset_name: spec.dataset_name.into(),
            source: Some(spec.source.into()),
            valid_percent,
            folds,
            seed: spec.seed,
            allow_failures: spec.allow_failures,
            derivative_short_side_px: spec.derivative_short_side_px,
        }
    }
}

impl From<FinetuneSpec> for v1::FinetuneSpec {
    fn from(spec: FinetuneSpec) -> Self {
        let (base_lr, find_lr) = match spec.base_lr {
            BaseRate::Given(rate) => (rate, false),
            BaseRate::Find => (0.0, true),
        };
        let (mixup_alpha, cutmix_alpha) = match spec.mixing {
            None => (0.0, 0.0),
            Some(Mixing::MixUp { alpha }) => (alpha, 0.0),
            Some(Mixing::CutMix { alpha }) => (0.0, alpha),
        };
        let (crop, min_scale) = match spec.crop {
            TrainingCrop::Resize => (v1::TrainingCrop::Resize, 0.0),
            TrainingCrop::RandomResized { min_scale } => (v1::TrainingCrop::RandomResized, min_scale),
        };
        Self {
            dataset: spec.dataset.to_string(),
            model_name: spec.model_name.map(String::from).unwrap_or_default(),
            backbone: spec.backbone.to_string(),
            weights: match spec.weights {
                WeightsSource::Pretrained => String::new(),
                WeightsSource::Random => "none".to_owned(),
                WeightsSource::Object(digest) => format!("object:{digest}"),
                WeightsSource::Hub(repository) => format!("hub:{repository}"),
            },
            recipe: "fastai2".to_owned(),
            epochs: spec.epochs,
            freeze_epochs: Some(spec.freeze_epochs),
            base_lr,
            batch_size: spec.batch_size,
            image_size_px: spec.image_size_px,
            seed: spec.seed,
            fold: spec.fold,
            precision: precision(spec.precision),
            mixup_alpha,
            cutmix_alpha,
            label_smoothing: spec.label_smoothing,
            crop: crop.into(),
            min_scale,
            find_lr,
        }
    }
}

impl From<EvaluateSpec> for v1::EvaluateSpec {
    fn from(spec: EvaluateSpec) -> Self {
        use v1::evaluate_spec::On;
        let (tta, tta_passes) = tta(spec.tta);
        Self {
            model: spec.model.to_string(),
            on: match spec.on {
                EvaluateOn::HeldOut => None,
                EvaluateOn::Dataset(dataset) => Some(On::Dataset(dataset.to_string())),
                EvaluateOn::Source(source) => Some(On::Source(source.into())),
            },
            tta,
            tta_passes,
            seed: spec.seed,
            decisions: spec.decisions.map(Into::into),
            precision: precision(spec.precision),
        }
    }
}

impl From<ClassifySpec> for v1::ClassifySpec {
    fn from(spec: ClassifySpec) -> Self {
        let (tta, tta_passes) = tta(spec.tta);
        Self {
            model: spec.model.to_string(),
            source: Some(spec.source.into()),
            top_k: spec.top_k,
            tta,
            tta_passes,
            seed: spec.seed,
            precision: precision(spec.precision),
        }
    }
}

/// The wire's recipe and passes.
fn tta(tta: Option<Tta>) -> (i32, u32) {
    let Some(Tta { recipe, passes }) = tta else { return (v1::TtaRecipe::Unspecified.into(), 0) };
    let recipe = match recipe {
        TtaRecipe::Fastai2 => v1::TtaRecipe::Fastai2,
        TtaRecipe::Fastai07 => v1::TtaRecipe::Fastai07,
        TtaRecipe::Max => v1::TtaRecipe::Max,
    };
    (recipe.into(), passes)
}

/// The wire's number.
fn precision(precision: Precision) -> i32 {
    match precision {
        Precision::Auto => v1::Precision::Unspecified,
        Precision::F32 => v1::Precision::F32,
        Precision::Bf16 => v1::Precision::Bf16,
    }
    .into()
}
