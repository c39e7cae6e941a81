//! A model in lines: its classes, how it was made, and the table of its training.

use sortinghat_proto::{
    Mixing, TrainingCrop,
    manifest::{EpochRecord, ModelManifest, RateSearch},
    v1::{EpochMetrics, Model},
};

use super::{
    numbers::{bytes, time},
    table,
};

/// A table with a row for each model.
pub(crate) fn table(models: &[Model]) -> Vec<String> {
    let row = |m: &Model| [m.name.clone(), time(m.created_unix_ms), m.summary.clone()];
    table::columns(["name", "made", "what"], &models.iter().map(row).collect::<Vec<_>>())
}

/// One model.
pub(crate) fn lines(model: &Model, made: &ModelManifest) -> Vec<String> {
    let fold = made.dataset.fold.map(|fold| format!(", fold {fold} held out")).unwrap_or_default();
    let mut lines = vec![
        format!("model {}: {}", model.name, model.summary),
        format!("classes     {}", made.classes.join(", ")),
        format!("dataset     {}{fold}", made.dataset.name),
        format!("backbone    {}, pretrained weights: {}", made.backbone, made.pretrained.source),
        format!(
            "recipe      {}: {} + {} epochs, learning rate {}, batches of {}, {} px, seed {}",
            made.recipe, made.freeze_epochs, made.epochs, made.base_lr, made.batch_size, made.image_size_px, made.seed
        ),
        format!("options     {}", options(made)),
        format!(
            "made        {} by job {}, on {}, {} threads",
            time(model.created_unix_ms),
            model.job_id,
            made.device,
            made.threads
        ),
        format!("weights     {}, {}", bytes(made.weights.size_bytes), made.weights.digest),
        table::EPOCH_HEADER.to_owned(),
    ];
    lines.extend(made.history.iter().map(|record| table::epoch_row(&metrics(record))));
    lines
}

/// How the training differed from fastai's defaults, in words.
fn options(made: &ModelManifest) -> String {
    let mixing = made.mixing.map(|mixing| match mixing {
        Mixing::MixUp { alpha } => format!("MixUp {alpha}"),
        Mixing::CutMix { alpha } => format!("CutMix {alpha}"),
    });
    let smoothing = (made.label_smoothing > 0.0).then(|| format!("label smoothing {}", made.label_smoothing));
    let crop = match made.crop {
        TrainingCrop::Resize => None,
        TrainingCrop::RandomResized { min_scale } => Some(format!("random crops of at least {min_scale} of the area")),
    };
    let found = made.rate_search.as_ref().map(|search| {
        let RateSearch { valley, minimum, steep, slide, .. } = search;
        format!(
            "learning rate found (valley {valley:.2e}, minimum {minimum:.2e}, steep {steep:.2e}, slide {slide:.2e})"
        )
    });
    let all: Vec<String> = [mixing, smoothing, crop, found].into_iter().flatten().collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn metrics(record: &EpochRecord) -> EpochMetrics {
    let EpochRecord { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms } = *record;
    EpochMetrics { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms, valid_photos: 0 }
}
