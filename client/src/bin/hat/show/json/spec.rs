use serde_json::{Value, json};
use sortinghat_proto::v1::{self, job_spec::Kind};

use super::{object, word};

/// What a job shall do.
pub(super) fn spec(spec: &v1::JobSpec) -> Value {
    match &spec.kind {
        Some(Kind::Ingest(s)) => json!({
            "dataset_name": s.dataset_name, "source": s.source.as_ref().map(object),
            "valid_percent": s.valid_percent, "folds": s.folds, "seed": s.seed,
            "allow_failures": s.allow_failures, "derivative_short_side_px": s.derivative_short_side_px,
        }),
        Some(Kind::Finetune(s)) => json!({
            "dataset": s.dataset, "model_name": s.model_name, "backbone": s.backbone, "weights": s.weights,
            "recipe": s.recipe, "epochs": s.epochs, "freeze_epochs": s.freeze_epochs, "base_lr": s.base_lr,
            "batch_size": s.batch_size, "image_size_px": s.image_size_px, "seed": s.seed, "fold": s.fold,
            "precision": word(s.precision().as_str_name(), "PRECISION_"), "find_lr": s.find_lr,
            "mixup_alpha": s.mixup_alpha, "cutmix_alpha": s.cutmix_alpha, "label_smoothing": s.label_smoothing,
            "crop": word(s.crop().as_str_name(), "TRAINING_CROP_"), "min_scale": s.min_scale,
        }),
        Some(Kind::Evaluate(s)) => {
            let (dataset, source) = match &s.on {
                Some(v1::evaluate_spec::On::Dataset(name)) => (Some(name), None),
                Some(v1::evaluate_spec::On::Source(source)) => (None, Some(object(source))),
                None => (None, None),
            };
            json!({
                "model": s.model, "dataset": dataset, "source": source, "seed": s.seed,
                "tta": word(s.tta().as_str_name(), "TTA_RECIPE_"), "tta_passes": s.tta_passes,
                "decisions": s.decisions.as_ref().map(object),
                "precision": word(s.precision().as_str_name(), "PRECISION_"),
            })
        }
        Some(Kind::Classify(s)) => json!({
            "model": s.model, "source": s.source.as_ref().map(object), "top_k": s.top_k, "seed": s.seed,
            "tta": word(s.tta().as_str_name(), "TTA_RECIPE_"), "tta_passes": s.tta_passes,
            "precision": word(s.precision().as_str_name(), "PRECISION_"),
        }),
        None => Value::Null,
    }
}
