use std::path::Path;

use sortinghat_client::Client;
use sortinghat_proto::{
    Backbone, BaseRate, DatasetRef, FineTune, FinetuneSpec, JobSpec, Lane, Mixing, Recipe, TrainingCrop, WeightsSource,
};

use crate::{
    args::{CropArg, FineTuneArgs, Finetune, RecipeArg},
    exit::Exit,
    failure::Failure,
    follow,
    output::Aim,
    session::Session,
    tell,
    unsubmitted::Unsubmitted,
};

pub(super) async fn run(session: &Session, args: Finetune) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let dataset = DatasetRef::parse(&args.dataset, "finetune.dataset")?;
    let model_name = args.name.as_deref().map(str::parse).transpose()?;
    let asked =
        args.recipe.unwrap_or(if args.fine_tune.given().is_some() { RecipeArg::Fastai2 } else { RecipeArg::Auto });
    let recipe = recipe(asked, &args.fine_tune)?;
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
        image_size_px: args.size.unwrap_or(recipe.default_image_size_px()),
        recipe,
        seed: args.seed,
        fold: args.fold,
        precision: args.precision.into(),
    };
    let job = submission(JobSpec::Finetune(spec), Lane::Bulk);
    let followed = follow::submit(session, &client, job, unsubmitted, Aim::Tell).await?;
    tell::finish(session, &client, followed, None).await
}

/// The recipe with its options. An option that the recipe would ignore is refused.
fn recipe(recipe: RecipeArg, options: &FineTuneArgs) -> Result<Recipe, Failure> {
    let made = match recipe {
        RecipeArg::Fastai2 => return fine_tune(options).map(Recipe::Fastai2),
        RecipeArg::Auto => Recipe::Auto,
        RecipeArg::Fast => Recipe::Fast,
        RecipeArg::Best => Recipe::Best,
    };
    match options.given() {
        None => Ok(made),
        Some(option) => Err(Failure::usage(format!(
            "{option} has no effect with --recipe {made}, which does not train the network; leave it out, or use --recipe fastai2"
        ))),
    }
}

fn fine_tune(args: &FineTuneArgs) -> Result<FineTune, Failure> {
    let default = FineTune::default();
    Ok(FineTune {
        epochs: args.epochs.unwrap_or(default.epochs),
        freeze_epochs: args.freeze_epochs.unwrap_or(default.freeze_epochs),
        base_lr: if args.find_lr { BaseRate::Find } else { args.lr.map_or(default.base_lr, BaseRate::Given) },
        batch_size: args.batch_size.unwrap_or(default.batch_size),
        // The command line takes only one of the two.
        mixing: args.mixup.map(|alpha| Mixing::MixUp { alpha }).or(args.cutmix.map(|alpha| Mixing::CutMix { alpha })),
        label_smoothing: args.label_smoothing.unwrap_or(default.label_smoothing),
        crop: crop(args.crop.unwrap_or(CropArg::Resize), args.min_scale)?,
    })
}

/// How photos are cut. `--min-scale` is refused if it would be ignored.
fn crop(crop: CropArg, min_scale: Option<f64>) -> Result<TrainingCrop, Failure> {
    match (crop, min_scale) {
        (CropArg::Resize, None) => Ok(TrainingCrop::Resize),
        (CropArg::Resize, Some(_)) => Err(Failure::usage("--min-scale has no effect without --crop random-resized")),
        (CropArg::RandomResized, scale) => {
            Ok(TrainingCrop::RandomResized { min_scale: scale.unwrap_or(FineTune::DEFAULT_MIN_SCALE) })
        }
    }
}

/// Where the weights come from: the backbone's own if nothing is said, `none`, `hub:OWNER/REPOSITORY`, or a file, which is uploaded.
pub(super) async fn weights(client: &Client, source: Option<&str>) -> Result<WeightsSource, Failure> {
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
