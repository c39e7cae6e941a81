use std::path::Path;

use sortinghat_client::Client;
use sortinghat_proto::{
    Backbone, BaseRate, DatasetRef, FinetuneSpec, JobSpec, Lane, Mixing, TrainingCrop, WeightsSource,
    manifest::Interval,
    v1::{EpochMetrics, Job},
};

use super::result;
use crate::{
    args::{CropArg, Finetune},
    exit::Exit,
    failure::Failure,
    follow,
    session::{Session, print_line},
    show::numbers::{count, interval, percent},
};

/// fastai's `base_lr`.
const DEFAULT_LR: f64 = 2e-3;
/// fastai's `min_scale`.
const DEFAULT_MIN_SCALE: f64 = 0.08;

pub(super) async fn run(session: &Session, args: Finetune) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let dataset = DatasetRef::parse(&args.dataset, "finetune.dataset")?;
    let model_name = args.name.as_deref().map(str::parse).transpose()?;
    let crop = crop(args.crop, args.min_scale)?;
    let client = session.connect().await?;
    let spec = FinetuneSpec {
        dataset,
        model_name,
        backbone: Backbone::ALL
            .into_iter()
            .find(|backbone| backbone.as_str() == args.backbone)
            .expect("the command line takes these values only"),
        weights: weights(&client, args.weights.as_deref()).await?,
        epochs: args.epochs,
        freeze_epochs: args.freeze_epochs,
        base_lr: if args.find_lr { BaseRate::Find } else { BaseRate::Given(args.lr.unwrap_or(DEFAULT_LR)) },
        batch_size: args.batch_size,
        image_size_px: args.size,
        seed: args.seed,
        fold: args.fold,
        precision: args.precision.into(),
        // The command line takes one of them only.
        mixing: args.mixup.map(|alpha| Mixing::MixUp { alpha }).or(args.cutmix.map(|alpha| Mixing::CutMix { alpha })),
        label_smoothing: args.label_smoothing,
        crop,
    };
    let followed = follow::submit(session, &client, submission(JobSpec::Finetune(spec), Lane::Bulk)).await?;
    result::finish(session, &client, followed, None).await
}

/// How photos are cut. A smallest scale that would be ignored is an error.
fn crop(crop: CropArg, min_scale: Option<f64>) -> Result<TrainingCrop, Failure> {
    match (crop, min_scale) {
        (CropArg::Resize, None) => Ok(TrainingCrop::Resize),
        (CropArg::Resize, Some(_)) => {
            Err(Failure::usage("--min-scale means nothing without --crop random-resized".to_owned()))
        }
        (CropArg::RandomResized, scale) => {
            Ok(TrainingCrop::RandomResized { min_scale: scale.unwrap_or(DEFAULT_MIN_SCALE) })
        }
    }
}

/// Nothing, `none`, `hub:OWNER/REPOSITORY`, or a file, which is uploaded.
async fn weights(client: &Client, source: Option<&str>) -> Result<WeightsSource, Failure> {
    let Some(source) = source else { return Ok(WeightsSource::Pretrained) };
    if source == "none" {
        return Ok(WeightsSource::Random);
    }
    if let Some(repository) = source.strip_prefix("hub:") {
        return Ok(WeightsSource::Hub(repository.to_owned()));
    }
    let path = Path::new(source);
    if !path.is_file() {
        return Err(Failure::usage(format!(
            "--weights {source}: there is no such file; name a safetensors file, none, or hub:OWNER/REPOSITORY"
        )));
    }
    if path.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Failure::usage(format!(
            "--weights {source}: only safetensors files are loaded; deploy/convert_weights.py makes one of a checkpoint"
        )));
    }
    Ok(WeightsSource::Object(client.upload_file(path).await?.digest))
}

/// The one line that says how good the model is.
pub(super) fn tell(session: &Session, job: &Job, last_epoch: Option<EpochMetrics>) {
    if session.json() {
        return;
    }
    let output = job.output.clone().unwrap_or_default();
    print_line(&headline(&output.name, last_epoch.as_ref()));
    session.hint(&format!("next: hat evaluate {} --tta", output.name));
}

fn headline(model: &str, last_epoch: Option<&EpochMetrics>) -> String {
    let Some(EpochMetrics { accuracy, valid_photos, .. }) = last_epoch else { return format!("model {model}") };
    let photos = u64::from(*valid_photos);
    let correct = (accuracy * photos as f64).round() as u64;
    let range = interval(Interval::wilson(correct, photos));
    format!("model {model}: {} of {} held-out photos right (95% interval {range})", percent(*accuracy), count(photos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_gives_the_accuracy_with_its_count_and_interval() {
        let last = EpochMetrics { accuracy: 121.0 / 142.0, valid_photos: 142, ..Default::default() };
        assert_eq!(
            headline("stamps/1", Some(&last)),
            "model stamps/1: 85.2% of 142 held-out photos right (95% interval 78.4 to 90.1%)"
        );
    }
}
