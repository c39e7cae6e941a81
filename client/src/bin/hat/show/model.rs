//! A model in lines: its classes, how it was made, and the table of its training.

use sortinghat_proto::{
    manifest::{EpochRecord, ModelManifest},
    v1::{EpochMetrics, Model},
    words,
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
        format!("recipe      {}", words::recipe(made)),
        format!("options     {}", words::training_options(made)),
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

fn metrics(record: &EpochRecord) -> EpochMetrics {
    let EpochRecord { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms } = *record;
    EpochMetrics { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms, valid_photos: 0 }
}
