use clap::{Args, ValueEnum};
use sortinghat_proto::{Backbone, Precision};

use super::{named::Named, waiting::Waiting};

#[derive(Debug, Args)]
pub(crate) struct Finetune {
    /// The dataset: stamps@1, or stamps for the newest version
    #[arg(add = Named::Dataset)]
    pub(crate) dataset: String,
    /// The network
    #[arg(long, default_value = "efficientnet_lite0", value_parser = backbones())]
    pub(crate) backbone: String,
    /// How the model is made [default: auto, or fastai2 if one of its options is given]
    #[arg(long, value_enum)]
    pub(crate) recipe: Option<RecipeArg>,
    /// Side of the square that the network sees, in pixels [default: 224, with the recipes auto and best 288]
    #[arg(long, hide_short_help = true, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=1024))]
    pub(crate) size: Option<u32>,
    /// Seed of all that is random
    #[arg(long, hide_short_help = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The fold to hold out, counted from 0, of a dataset that was made with --folds
    #[arg(long, hide_short_help = true, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=19))]
    pub(crate) fold: Option<u32>,
    /// Pretrained weights: a safetensors file, none, or hub:OWNER/REPOSITORY [default: those of the backbone]
    #[arg(long, value_name = "SOURCE")]
    pub(crate) weights: Option<String>,
    /// The model's name [default: the dataset's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The arithmetic of the passes
    #[arg(long, hide_short_help = true, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,
    #[command(flatten)]
    pub(crate) fine_tune: FineTuneArgs,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

/// Options of the recipe fastai2; a given one that another recipe would ignore is an error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of the recipe fastai2")]
pub(crate) struct FineTuneArgs {
    /// Epochs with the whole network [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) epochs: Option<u32>,
    /// Epochs before these in which only the head learns [default: 1]
    #[arg(long, hide_short_help = true, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) freeze_epochs: Option<u32>,
    /// Learning rate while only the head learns; the later epochs start from half of it [default: 0.002]
    #[arg(long, value_name = "RATE", value_parser = learning_rate, allow_negative_numbers = true, conflicts_with = "find_lr")]
    pub(crate) lr: Option<f64>,
    /// First find the learning rate in 100 steps, which are then undone, and train with fastai's suggestion "valley"
    #[arg(long)]
    pub(crate) find_lr: bool,
    /// Number of photos in a batch [default: 64]
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub(crate) batch_size: Option<u32>,
    /// Learn from weighted sums of two photos (MixUp), with weights from Beta(ALPHA, ALPHA); above 0 and up to 1, fastai uses 0.4
    #[arg(long, hide_short_help = true, value_name = "ALPHA", value_parser = share, allow_negative_numbers = true, conflicts_with = "cutmix")]
    pub(crate) mixup: Option<f64>,
    /// Learn from photos into which a box of another photo is pasted (CutMix); above 0 and up to 1, fastai uses 1
    #[arg(long, hide_short_help = true, value_name = "ALPHA", value_parser = share, allow_negative_numbers = true)]
    pub(crate) cutmix: Option<f64>,
    /// Share of each label that is spread over all classes; from 0 up to below 1, fastai uses 0.1
    #[arg(long, hide_short_help = true, value_name = "SHARE", value_parser = smoothing, allow_negative_numbers = true)]
    pub(crate) label_smoothing: Option<f64>,
    /// How the square that the network sees is cut from a photo [default: resize]
    #[arg(long, hide_short_help = true, value_enum)]
    pub(crate) crop: Option<CropArg>,
    /// Smallest share of a photo's area that a random crop shows, above 0 and up to 1 [default: 0.08]
    #[arg(long, hide_short_help = true, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub(crate) min_scale: Option<f64>,
}

impl FineTuneArgs {
    /// The first of these options that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let options = [
            ("--epochs", self.epochs.is_some()),
            ("--freeze-epochs", self.freeze_epochs.is_some()),
            ("--lr", self.lr.is_some()),
            ("--find-lr", self.find_lr),
            ("--batch-size", self.batch_size.is_some()),
            ("--mixup", self.mixup.is_some()),
            ("--cutmix", self.cutmix.is_some()),
            ("--label-smoothing", self.label_smoothing.is_some()),
            ("--crop", self.crop.is_some()),
            ("--min-scale", self.min_scale.is_some()),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }
}

/// A recipe. All but fastai2 fit a regression on the features of the pretrained network, which is not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecipeArg {
    /// fast or best, whichever does better on folds of the photos to learn from; labels that are probably wrong count less
    Auto,
    /// A regression on the features of the whole photo: seconds instead of minutes
    Fast,
    /// The same on two larger views of each photo
    Best,
    /// fastai's fine_tune: first the head learns, then the whole network
    Fastai2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CropArg {
    /// The largest square, in training at a random place
    Resize,
    /// In training a part of random area and aspect; otherwise the whole photo, squeezed
    RandomResized,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// The fastest for the worker's device: bf16 if it has instructions for that, but f32 for training on a CPU
    Auto,
    F32,
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(asked: PrecisionArg) -> Self {
        match asked {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}

pub(super) fn backbones() -> clap::builder::PossibleValuesParser {
    Backbone::ALL.map(Backbone::as_str).into()
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 10.0 => Ok(rate),
        _ => Err("a learning rate is above 0 and at most 10".to_owned()),
    }
}

/// A number above 0 and up to 1.
fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("it must be above 0 and at most 1".to_owned()) }
}

/// A number from 0 up to below 1.
fn smoothing(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("it must be 0 or more and below 1".to_owned()) }
}
