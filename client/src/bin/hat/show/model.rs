//! A model in lines: its classes, how it was made, and the table of its training.

use sortinghat_proto::{
    manifest::{EpochRecord, ModelManifest},
    v1::{EpochMetrics, Model},
    words,
};

use super::{
    numbers::{bytes, time},
    paper::Paper,
    table,
};

/// A table with a row for each model.
pub(crate) fn table(models: &[Model], paper: Paper) -> Vec<String> {
    let row = |m: &Model| table::named_row(&m.name, m.created_unix_ms, &m.summary);
    table::fitted(table::NAMED_HEADER, &models.iter().map(row).collect::<Vec<_>>(), paper)
}

/// One model.
pub(crate) fn lines(model: &Model, made: &ModelManifest, paper: Paper) -> Vec<String> {
    let fold = made.dataset.fold.map(|fold| format!(", fold {fold} held out")).unwrap_or_default();
    let (when, job) = (time(model.created_unix_ms), &model.job_id);
    let fields = [
        ("model", format!("{}: {}", model.name, model.summary)),
        ("classes", made.classes.join(", ")),
        ("dataset", format!("{}{fold}", made.dataset.name)),
        ("backbone", format!("{}, pretrained weights: {}", made.backbone, made.pretrained.source)),
        ("recipe", words::recipe(made)),
        ("options", words::recipe_options(made)),
        ("made", format!("{when} by job {job}, on {}, {} threads", made.device, made.threads)),
        ("weights", format!("{}, {}", bytes(made.weights.size_bytes), made.weights.digest)),
    ];
    let mut lines = table::fields(&fields.map(|(label, value)| (label, value.into())), paper);
    lines.push(table::EPOCH_HEADER.to_owned());
    lines.extend(made.history.iter().map(|record| table::epoch_row(&metrics(record))));
    lines
}

fn metrics(record: &EpochRecord) -> EpochMetrics {
    let EpochRecord { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms } = *record;
    EpochMetrics { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms, valid_photos: 0 }
}
