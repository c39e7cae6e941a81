use serde_json::{Value, json};
use sortinghat_proto::{
    Mixing, ModelRef, ObjectRef, TrainingCrop,
    manifest::{EpochRecord, ModelManifest, RateSearch},
    v1::{EpochMetrics, Model},
};

use super::result::document;
use crate::{
    args::{Models, ModelsCommand},
    exit::Exit,
    failure::Failure,
    session::{Session, print_line},
    show::{
        json as to_json,
        numbers::{bytes, time},
        table,
    },
};

pub(super) async fn run(session: &Session, args: Models) -> Result<Exit, Failure> {
    match args.command.unwrap_or(ModelsCommand::List) {
        ModelsCommand::List => list(session).await,
        ModelsCommand::Show { name } => show(session, &name).await,
        ModelsCommand::Rm { name } => {
            ModelRef::parse(&name, "name")?;
            session.connect().await?.delete_model(&name).await?;
            match session.json() {
                true => session.print_json(&json!({ "removed": name })),
                false => print_line(&format!("removed the name {name}")),
            }
            Ok(Exit::Ok)
        }
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let models = session.connect().await?.list_models().await?;
    if session.json() {
        models.iter().for_each(|model| session.print_json(&shape(model)));
        return Ok(Exit::Ok);
    }
    if models.is_empty() {
        session.hint("no models yet: `hat finetune DATASET` makes one");
        return Ok(Exit::Ok);
    }
    let rows: Vec<[String; 3]> =
        models.iter().map(|m| [m.name.clone(), time(m.created_unix_ms), m.summary.clone()]).collect();
    table::columns(["name", "made", "what"], &rows).iter().for_each(|line| print_line(line));
    Ok(Exit::Ok)
}

fn shape(model: &Model) -> Value {
    json!({
        "name": model.name, "object": model.manifest.as_ref().map(to_json::object), "job_id": model.job_id,
        "created_unix_ms": model.created_unix_ms, "summary": model.summary,
    })
}

async fn show(session: &Session, name: &str) -> Result<Exit, Failure> {
    ModelRef::parse(name, "name")?;
    let client = session.connect().await?;
    let model = client.get_model(name).await?;
    let object: ObjectRef = model.manifest.clone().unwrap_or_default().try_into()?;
    if session.json() {
        let mut shown = shape(&model);
        shown["manifest"] = document(&client, &object).await?;
        session.print_json(&shown);
        return Ok(Exit::Ok);
    }
    let manifest: ModelManifest = client.read_document(&object).await?;
    describe(&model, &manifest).iter().for_each(|line| print_line(line));
    Ok(Exit::Ok)
}

fn describe(model: &Model, made: &ModelManifest) -> Vec<String> {
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

/// What differs from fastai's defaults, in words.
fn options(made: &ModelManifest) -> String {
    let mixing = made.mixing.map(|mixing| match mixing {
        Mixing::MixUp { alpha } => format!("MixUp {alpha}"),
        Mixing::CutMix { alpha } => format!("CutMix {alpha}"),
    });
    let smoothing = (made.label_smoothing > 0.0).then(|| format!("label smoothing {}", made.label_smoothing));
    let crop = match made.crop {
        TrainingCrop::Resize => None,
        TrainingCrop::RandomResized { min_scale } => Some(format!("random crops from {min_scale} of the area on")),
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
