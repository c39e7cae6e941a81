use std::path::Path;

use sortinghat_client::Client;
use sortinghat_proto::{
    Backbone, BaseRate, DatasetRef, FinetuneSpec, JobSpec, Lane, Mixing, TrainingCrop, WeightsSource,
};

use crate::{
    args::{CropArg, Finetune},
    exit::Exit,
    failure::Failure,
    follow,
    session::Session,
    tell,
    unsubmitted::Unsubmitted,
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
    let unsubmitted = Unsubmitted::begin(session);
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
        // The command line takes only one of the two.
        mixing: args.mixup.map(|alpha| Mixing::MixUp { alpha }).or(args.cutmix.map(|alpha| Mixing::CutMix { alpha })),
        label_smoothing: args.label_smoothing,
        crop,
    };
    let job = submission(JobSpec::Finetune(spec), Lane::Bulk);
    let followed = follow::submit(session, &client, job, unsubmitted, None).await?;
    tell::finish(session, &client, followed, None).await
}

/// How photos are cut. `--min-scale` is refused if it would be ignored.
fn crop(crop: CropArg, min_scale: Option<f64>) -> Result<TrainingCrop, Failure> {
    match (crop, min_scale) {
        (CropArg::Resize, None) => Ok(TrainingCrop::Resize),
        (CropArg::Resize, Some(_)) => Err(Failure::usage("--min-scale has no effect without --crop random-resized")),
        (CropArg::RandomResized, scale) => {
            Ok(TrainingCrop::RandomResized { min_scale: scale.unwrap_or(DEFAULT_MIN_SCALE) })
        }
    }
}

/// Where the weights come from: the backbone's own if nothing is said, `none`, `hub:OWNER/REPOSITORY`, or a file, which is uploaded.
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
            "--weights {source}: only safetensors files can be loaded; deploy/convert_weights.py makes one from a checkpoint"
        )));
    }
    Ok(WeightsSource::Object(client.upload_file(path).await?.digest))
}
