//! A fine-tune's spec from the wire and back.

use super::{Backbone, BaseRate, FineTune, FinetuneSpec, Mixing, Recipe, TrainingCrop, WeightsSource};
use crate::{
    DatasetRef, Refusal,
    spec::{
        check::{at, in_range, or_default, share},
        passes::Precision,
    },
    v1, words,
};

impl TryFrom<v1::FinetuneSpec> for FinetuneSpec {
    type Error = Refusal;

    fn try_from(wire: v1::FinetuneSpec) -> Result<Self, Refusal> {
        let recipe = recipe(&wire)?;
        let default_size = recipe.default_image_size_px();
        let model_name = match wire.model_name.as_str() {
            "" => None,
            name => Some(name.parse().map_err(at("finetune.model_name"))?),
        };
        Ok(Self {
            dataset: DatasetRef::parse(&wire.dataset, "finetune.dataset")?,
            model_name,
            backbone: Backbone::parse(&wire.backbone, "finetune.backbone")?,
            weights: WeightsSource::parse(&wire.weights, "finetune.weights")?,
            image_size_px: in_range(or_default(wire.image_size_px, default_size), 32..=1024, "finetune.image_size_px")?,
            recipe,
            seed: wire.seed,
            fold: wire.fold.map(|fold| in_range(fold, 0..=19, "finetune.fold")).transpose()?,
            precision: Precision::from_wire(wire.precision, "finetune.precision")?,
        })
    }
}

fn recipe(wire: &v1::FinetuneSpec) -> Result<Recipe, Refusal> {
    match wire.recipe.as_str() {
        "" if given_option(wire).is_some() => fine_tune(wire).map(Recipe::Fastai2),
        "fastai2" => fine_tune(wire).map(Recipe::Fastai2),
        "" | "auto" => refuse_fine_tune_options(wire).map(|()| Recipe::Auto),
        "fast" => refuse_fine_tune_options(wire).map(|()| Recipe::Fast),
        "best" => refuse_fine_tune_options(wire).map(|()| Recipe::Best),
        other => {
            let known = Recipe::NAMES.join(", ");
            Err(Refusal::invalid(
                "finetune.recipe",
                format!("{} is not a recipe: use one of {known}", words::quoted(other)),
            ))
        }
    }
}

fn fine_tune(wire: &v1::FinetuneSpec) -> Result<FineTune, Refusal> {
    let default = FineTune::default();
    let freeze_epochs = wire.freeze_epochs.unwrap_or(default.freeze_epochs);
    Ok(FineTune {
        epochs: in_range(or_default(wire.epochs, default.epochs), 1..=1000, "finetune.epochs")?,
        freeze_epochs: in_range(freeze_epochs, 0..=100, "finetune.freeze_epochs")?,
        base_lr: base_rate(wire.base_lr, wire.find_lr)?,
        batch_size: in_range(or_default(wire.batch_size, default.batch_size), 2..=4096, "finetune.batch_size")?,
        mixing: mixing(wire.mixup_alpha, wire.cutmix_alpha)?,
        label_smoothing: label_smoothing(wire.label_smoothing)?,
        crop: training_crop(wire.crop, wire.min_scale)?,
    })
}

/// The first option that only a recipe has that trains the network, if one is given.
fn given_option(wire: &v1::FinetuneSpec) -> Option<&'static str> {
    let options = [
        ("epochs", wire.epochs != 0),
        ("freeze_epochs", wire.freeze_epochs.is_some()),
        ("base_lr", wire.base_lr != 0.0),
        ("batch_size", wire.batch_size != 0),
        ("mixup_alpha", wire.mixup_alpha != 0.0),
        ("cutmix_alpha", wire.cutmix_alpha != 0.0),
        ("label_smoothing", wire.label_smoothing != 0.0),
        ("crop", wire.crop != 0),
        ("min_scale", wire.min_scale != 0.0),
        ("find_lr", wire.find_lr),
    ];
    options.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
}

/// Refuses the options of a recipe that trains the network where no network is trained.
fn refuse_fine_tune_options(wire: &v1::FinetuneSpec) -> Result<(), Refusal> {
    let Some(option) = given_option(wire) else { return Ok(()) };
    let recipe = &wire.recipe;
    Err(Refusal::invalid(
        format!("finetune.{option}"),
        format!(
            "{option} means nothing to the recipe {recipe}, which does not train the network: leave it out, or use the recipe fastai2"
        ),
    ))
}

impl Backbone {
    /// The network of this name, and the default for no name. `field` is the field of the spec.
    pub(in crate::spec) fn parse(text: &str, field: &'static str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Ok(Self::EfficientnetLite0);
        }
        Self::ALL.into_iter().find(|backbone| backbone.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Refusal::invalid(field, format!("{} is not a backbone: use one of {known}", words::quoted(text)))
        })
    }
}

impl WeightsSource {
    /// What names a source of weights. `field` is the field of the spec.
    pub(in crate::spec) fn parse(text: &str, field: &'static str) -> Result<Self, Refusal> {
        let allowed = "use nothing, none, object:DIGEST or hub:OWNER/REPOSITORY";
        match text.split_once(':') {
            None if text.is_empty() => Ok(Self::Pretrained),
            None if text == "none" => Ok(Self::Random),
            Some(("object", digest)) => digest.parse().map(Self::Object).map_err(at(field)),
            Some(("hub", repository)) if is_repository(repository) => Ok(Self::Hub(repository.to_owned())),
            _ => {
                let message = format!("{} is no source of weights: {allowed}", words::quoted(text));
                Err(Refusal::invalid(field, message))
            }
        }
    }
}

/// `owner/repository`, each of letters, digits, '-', '_' and '.', as the hub allows.
fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    text.len() <= 200 && text.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

fn base_rate(base_lr: f64, find_lr: bool) -> Result<BaseRate, Refusal> {
    match (base_lr, find_lr) {
        (0.0, true) => Ok(BaseRate::Find),
        (0.0, false) => Ok(BaseRate::Given(FineTune::DEFAULT_LR)),
        (_, true) => {
            Err(Refusal::invalid("finetune.find_lr", "base_lr and find_lr exclude each other: give one of them"))
        }
        (rate, false) if rate > 0.0 && rate <= 10.0 => Ok(BaseRate::Given(rate)),
        (rate, false) => {
            Err(Refusal::invalid("finetune.base_lr", format!("base_lr must be above 0 and at most 10, not {rate}")))
        }
    }
}

fn mixing(mixup: f64, cutmix: f64) -> Result<Option<Mixing>, Refusal> {
    match (mixup, cutmix) {
        (0.0, 0.0) => Ok(None),
        (alpha, 0.0) => Ok(Some(Mixing::MixUp { alpha: share(alpha, "finetune.mixup_alpha")? })),
        (0.0, alpha) => Ok(Some(Mixing::CutMix { alpha: share(alpha, "finetune.cutmix_alpha")? })),
        _ => Err(Refusal::invalid(
            "finetune.cutmix_alpha",
            "mixup_alpha and cutmix_alpha exclude each other: give one of them",
        )),
    }
}

fn label_smoothing(smoothing: f64) -> Result<f64, Refusal> {
    if (0.0..1.0).contains(&smoothing) {
        return Ok(smoothing);
    }
    let message = format!("label_smoothing must be 0 or more and below 1, not {smoothing}");
    Err(Refusal::invalid("finetune.label_smoothing", message))
}

fn training_crop(crop: i32, min_scale: f64) -> Result<TrainingCrop, Refusal> {
    use v1::TrainingCrop as Wire;
    match (Wire::try_from(crop), min_scale) {
        (Ok(Wire::Unspecified | Wire::Resize), 0.0) => Ok(TrainingCrop::Resize),
        (Ok(Wire::Unspecified | Wire::Resize), _) => {
            Err(Refusal::invalid("finetune.min_scale", "min_scale means nothing without a random_resized crop"))
        }
        (Ok(Wire::RandomResized), 0.0) => Ok(TrainingCrop::RandomResized { min_scale: FineTune::DEFAULT_MIN_SCALE }),
        (Ok(Wire::RandomResized), scale) => {
            Ok(TrainingCrop::RandomResized { min_scale: share(scale, "finetune.min_scale")? })
        }
        (Err(_), _) => Err(Refusal::invalid("finetune.crop", "use resize or random_resized")),
    }
}

impl From<FinetuneSpec> for v1::FinetuneSpec {
    fn from(spec: FinetuneSpec) -> Self {
        let wire = Self {
            dataset: spec.dataset.to_string(),
            model_name: spec.model_name.map(String::from).unwrap_or_default(),
            backbone: spec.backbone.to_string(),
            weights: spec.weights.to_string(),
            recipe: spec.recipe.to_string(),
            image_size_px: spec.image_size_px,
            seed: spec.seed,
            fold: spec.fold,
            precision: spec.precision.to_wire(),
            ..Self::default()
        };
        match spec.recipe {
            Recipe::Fastai2(options) => with_options(wire, options),
            Recipe::Auto | Recipe::Fast | Recipe::Best => wire,
        }
    }
}

fn with_options(wire: v1::FinetuneSpec, options: FineTune) -> v1::FinetuneSpec {
    let (base_lr, find_lr) = match options.base_lr {
        BaseRate::Given(rate) => (rate, false),
        BaseRate::Find => (0.0, true),
    };
    let (mixup_alpha, cutmix_alpha) = match options.mixing {
        None => (0.0, 0.0),
        Some(Mixing::MixUp { alpha }) => (alpha, 0.0),
        Some(Mixing::CutMix { alpha }) => (0.0, alpha),
    };
    let (crop, min_scale) = match options.crop {
        TrainingCrop::Resize => (v1::TrainingCrop::Resize, 0.0),
        TrainingCrop::RandomResized { min_scale } => (v1::TrainingCrop::RandomResized, min_scale),
    };
    v1::FinetuneSpec {
        epochs: options.epochs,
        freeze_epochs: Some(options.freeze_epochs),
        base_lr,
        batch_size: options.batch_size,
        mixup_alpha,
        cutmix_alpha,
        label_smoothing: options.label_smoothing,
        crop: crop.into(),
        min_scale,
        find_lr,
        ..wire
    }
}
