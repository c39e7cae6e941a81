//! From the wire into validated specs: every range, every default, every refusal that names its field.

use std::ops::RangeInclusive;

use crate::{
    Backbone, BaseRate, ClassifySpec, DatasetRef, EvaluateOn, EvaluateSpec, FinetuneSpec, IngestSpec, JobSpec, Mixing,
    ModelRef, ObjectRef, Precision, Refusal, Split, TrainingCrop, Tta, TtaRecipe, WeightsSource, v1,
};

impl TryFrom<v1::JobSpec> for JobSpec {
    type Error = Refusal;
    fn try_from(wire: v1::JobSpec) -> Result<Self, Refusal> {
        use v1::job_spec::Kind;
        Ok(match wire.kind {
            Some(Kind::Ingest(spec)) => Self::Ingest(ingest(spec)?),
            Some(Kind::Finetune(spec)) => Self::Finetune(finetune(spec)?),
            Some(Kind::Evaluate(spec)) => Self::Evaluate(evaluate(spec)?),
            Some(Kind::Classify(spec)) => Self::Classify(classify(spec)?),
            None => {
                return Err(Refusal::invalid("spec.kind", "a job needs one of ingest, finetune, evaluate, classify"));
            }
        })
    }
}

fn ingest(wire: v1::IngestSpec) -> Result<IngestSpec, Refusal> {
    let split = match (wire.valid_percent, wire.folds) {
        (0, 0) => Split::ValidPercent(20),
        (percent, 0) => Split::ValidPercent(in_range(percent, 1..=50, "ingest.valid_percent")?),
        (0, folds) => Split::Folds(in_range(folds, 2..=20, "ingest.folds")?),
        _ => {
            return Err(Refusal::invalid(
                "ingest.folds",
                "valid_percent and folds exclude each other: give one of them",
            ));
        }
    };
    Ok(IngestSpec {
        dataset_name: wire.dataset_name.parse().map_err(at("ingest.dataset_name"))?,
        source: required_object(wire.source, "ingest.source")?,
        split,
        seed: wire.seed,
        allow_failures: wire.allow_failures,
        derivative_short_side_px: in_range(
            or_default(wire.derivative_short_side_px, 512),
            64..=4096,
            "ingest.derivative_short_side_px",
        )?,
    })
}

fn finetune(wire: v1::FinetuneSpec) -> Result<FinetuneSpec, Refusal> {
    if !matches!(wire.recipe.as_str(), "" | "fastai2") {
        return Err(Refusal::invalid("finetune.recipe", format!("{:?} is not a recipe: use fastai2", wire.recipe)));
    }
    let model_name = match wire.model_name.as_str() {
        "" => None,
        name => Some(name.parse().map_err(at("finetune.model_name"))?),
    };
    Ok(FinetuneSpec {
        dataset: DatasetRef::parse(&wire.dataset, "finetune.dataset")?,
        model_name,
        backbone: backbone(&wire.backbone)?,
        weights: weights(&wire.weights)?,
        epochs: in_range(or_default(wire.epochs, 5), 1..=1000, "finetune.epochs")?,
        freeze_epochs: in_range(wire.freeze_epochs.unwrap_or(1), 0..=100, "finetune.freeze_epochs")?,
        base_lr: base_rate(wire.base_lr, wire.find_lr)?,
        batch_size: in_range(or_default(wire.batch_size, 64), 2..=4096, "finetune.batch_size")?,
        image_size_px: in_range(or_default(wire.image_size_px, 224), 32..=1024, "finetune.image_size_px")?,
        seed: wire.seed,
        fold: wire.fold.map(|fold| in_range(fold, 0..=19, "finetune.fold")).transpose()?,
        precision: precision(wire.precision, "finetune.precision")?,
        mixing: mixing(wire.mixup_alpha, wire.cutmix_alpha)?,
        label_smoothing: label_smoothing(wire.label_smoothing)?,
        crop: training_crop(wire.crop, wire.min_scale)?,
    })
}

fn base_rate(base_lr: f64, find_lr: bool) -> Result<BaseRate, Refusal> {
    match (base_lr, find_lr) {
        (0.0, true) => Ok(BaseRate::Find),
        (0.0, false) => Ok(BaseRate::Given(2e-3)),
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
        (Ok(Wire::RandomResized), 0.0) => Ok(TrainingCrop::RandomResized { min_scale: 0.08 }),
        (Ok(Wire::RandomResized), scale) => {
            Ok(TrainingCrop::RandomResized { min_scale: share(scale, "finetune.min_scale")? })
        }
        (Err(_), _) => Err(Refusal::invalid("finetune.crop", "use resize or random_resized")),
    }
}

/// A number above 0 and at most 1.
fn share(value: f64, field: &str) -> Result<f64, Refusal> {
    if value > 0.0 && value <= 1.0 {
        return Ok(value);
    }
    Err(Refusal::invalid(field, format!("{field} must be above 0 and at most 1, not {value}")))
}

fn evaluate(wire: v1::EvaluateSpec) -> Result<EvaluateSpec, Refusal> {
    use v1::evaluate_spec::On;
    Ok(EvaluateSpec {
        model: ModelRef::parse(&wire.model, "evaluate.model")?,
        on: match wire.on {
            None => EvaluateOn::HeldOut,
            Some(On::Dataset(dataset)) => EvaluateOn::Dataset(DatasetRef::parse(&dataset, "evaluate.dataset")?),
            Some(On::Source(source)) => EvaluateOn::Source(required_object(Some(source), "evaluate.source")?),
        },
        tta: tta(wire.tta, wire.tta_passes, "evaluate.tta")?,
        seed: wire.seed,
        decisions: wire.decisions.map(|object| required_object(Some(object), "evaluate.decisions")).transpose()?,
        precision: precision(wire.precision, "evaluate.precision")?,
    })
}

fn classify(wire: v1::ClassifySpec) -> Result<ClassifySpec, Refusal> {
    Ok(ClassifySpec {
        model: ModelRef::parse(&wire.model, "classify.model")?,
        source: required_object(wire.source, "classify.source")?,
        top_k: in_range(or_default(wire.top_k, 5), 1..=1000, "classify.top_k")?,
        tta: tta(wire.tta, wire.tta_passes, "classify.tta")?,
        seed: wire.seed,
        precision: precision(wire.precision, "classify.precision")?,
    })
}

fn precision(wire: i32, field: &str) -> Result<Precision, Refusal> {
    match v1::Precision::try_from(wire) {
        Ok(v1::Precision::Unspecified) => Ok(Precision::Auto),
        Ok(v1::Precision::F32) => Ok(Precision::F32),
        Ok(v1::Precision::Bf16) => Ok(Precision::Bf16),
        Err(_) => Err(Refusal::invalid(field, "use f32, bf16 or nothing")),
    }
}

fn tta(recipe: i32, passes: u32, field: &str) -> Result<Option<Tta>, Refusal> {
    let recipe = match v1::TtaRecipe::try_from(recipe) {
        Ok(v1::TtaRecipe::Unspecified) if passes == 0 => return Ok(None),
        Ok(v1::TtaRecipe::Unspecified) => {
            return Err(Refusal::invalid(format!("{field}_passes"), "passes mean nothing without a tta recipe"));
        }
        Ok(v1::TtaRecipe::Fastai2) => TtaRecipe::Fastai2,
        Ok(v1::TtaRecipe::Fastai07) => TtaRecipe::Fastai07,
        Ok(v1::TtaRecipe::Max) => TtaRecipe::Max,
        Err(_) => return Err(Refusal::invalid(field, "unknown tta recipe: use fastai2, fastai07 or max")),
    };
    let passes = in_range(or_default(passes, 4), 1..=32, &format!("{field}_passes"))?;
    Ok(Some(Tta { recipe, passes }))
}

fn backbone(text: &str) -> Result<Backbone, Refusal> {
    if text.is_empty() {
        return Ok(Backbone::EfficientnetLite0);
    }
    Backbone::ALL.into_iter().find(|backbone| backbone.as_str() == text).ok_or_else(|| {
        let known = Backbone::ALL.map(Backbone::as_str).join(", ");
        Refusal::invalid("finetune.backbone", format!("{text:?} is not a backbone: use one of {known}"))
    })
}

fn weights(text: &str) -> Result<WeightsSource, Refusal> {
    let allowed = "use nothing, none, object:DIGEST or hub:OWNER/REPOSITORY";
    match text.split_once(':') {
        None if text.is_empty() => Ok(WeightsSource::Pretrained),
        None if text == "none" => Ok(WeightsSource::Random),
        Some(("object", digest)) => digest.parse().map(WeightsSource::Object).map_err(at("finetune.weights")),
        Some(("hub", repository)) if is_repository(repository) => Ok(WeightsSource::Hub(repository.to_owned())),
        _ => Err(Refusal::invalid("finetune.weights", format!("{text:?} is no source of weights: {allowed}"))),
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

fn required_object(object: Option<v1::ObjectRef>, field: &str) -> Result<ObjectRef, Refusal> {
    let object =
        object.ok_or_else(|| Refusal::invalid(field, format!("{field} is missing: upload it and name its digest")))?;
    object.try_into().map_err(at(field))
}

/// Puts the name of the field that was being parsed into a refusal.
fn at(field: &str) -> impl FnOnce(Refusal) -> Refusal + '_ {
    move |refusal| Refusal { field: field.to_owned(), ..refusal }
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

fn in_range(value: u32, allowed: RangeInclusive<u32>, field: &str) -> Result<u32, Refusal> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (allowed.start(), allowed.end());
    Err(Refusal::invalid(field, format!("{field} must be {low} to {high}, not {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::job_spec::Kind;

    fn parse(kind: Kind) -> Result<JobSpec, Refusal> {
        JobSpec::try_from(v1::JobSpec { kind: Some(kind) })
    }

    type Change = fn(&mut v1::FinetuneSpec);

    fn finetune_of(change: impl FnOnce(&mut v1::FinetuneSpec)) -> Result<JobSpec, Refusal> {
        let mut wire = v1::FinetuneSpec { dataset: "stamps@1".into(), ..Default::default() };
        change(&mut wire);
        parse(Kind::Finetune(wire))
    }

    #[test]
    fn a_finetune_that_says_nothing_gets_fastais_defaults() {
        let JobSpec::Finetune(spec) = finetune_of(|_| ()).expect("valid") else { panic!("not a finetune") };
        assert_eq!((spec.epochs, spec.freeze_epochs, spec.batch_size), (5, 1, 64));
        assert_eq!((spec.base_lr, spec.mixing, spec.label_smoothing), (BaseRate::Given(2e-3), None, 0.0));
        assert_eq!(spec.crop, TrainingCrop::Resize);
        assert_eq!((spec.backbone, spec.image_size_px), (Backbone::EfficientnetLite0, 224));
    }

    #[test]
    fn every_value_out_of_range_is_refused_with_its_field() {
        let cases: [(&str, Change); 15] = [
            ("finetune.epochs", |spec| spec.epochs = 1001),
            ("finetune.freeze_epochs", |spec| spec.freeze_epochs = Some(101)),
            ("finetune.base_lr", |spec| spec.base_lr = f64::NAN),
            ("finetune.base_lr", |spec| spec.base_lr = -1.0),
            ("finetune.batch_size", |spec| spec.batch_size = 1),
            ("finetune.backbone", |spec| spec.backbone = "vgg".into()),
            ("finetune.weights", |spec| spec.weights = "hub:../etc".into()),
            ("finetune.dataset", |spec| spec.dataset = "stamps/1".into()),
            ("finetune.recipe", |spec| spec.recipe = "mine".into()),
            ("finetune.mixup_alpha", |spec| spec.mixup_alpha = -0.1),
            ("finetune.cutmix_alpha", |spec| spec.cutmix_alpha = 1.1),
            ("finetune.label_smoothing", |spec| spec.label_smoothing = 1.0),
            ("finetune.label_smoothing", |spec| spec.label_smoothing = f64::NAN),
            ("finetune.crop", |spec| spec.crop = 9),
            ("finetune.min_scale", |spec| {
                (spec.crop, spec.min_scale) = (v1::TrainingCrop::RandomResized.into(), 2.0);
            }),
        ];
        for (field, change) in cases {
            assert_eq!(finetune_of(change).expect_err(field).field, field);
        }
    }

    #[test]
    fn an_option_that_would_be_ignored_is_an_error() {
        let wire = v1::EvaluateSpec { model: "stamps/1".into(), tta_passes: 4, ..Default::default() };
        assert_eq!(parse(Kind::Evaluate(wire)).expect_err("no recipe").field, "evaluate.tta_passes");
        let source = Some(ObjectRef::of(b"x").into());
        let wire =
            v1::IngestSpec { dataset_name: "a".into(), source, valid_percent: 20, folds: 5, ..Default::default() };
        assert_eq!(parse(Kind::Ingest(wire)).expect_err("both").field, "ingest.folds");
        let finetunes: [(&str, Change); 3] = [
            ("finetune.find_lr", |spec| (spec.find_lr, spec.base_lr) = (true, 1e-3)),
            ("finetune.cutmix_alpha", |spec| (spec.mixup_alpha, spec.cutmix_alpha) = (0.4, 1.0)),
            ("finetune.min_scale", |spec| spec.min_scale = 0.5),
        ];
        for (field, change) in finetunes {
            assert_eq!(finetune_of(change).expect_err(field).field, field);
        }
    }

    #[test]
    fn what_was_parsed_parses_to_the_same_again() {
        let finetunes: [Change; 3] = [
            |wire| wire.fold = Some(3),
            |wire| (wire.mixup_alpha, wire.find_lr, wire.crop) = (0.4, true, v1::TrainingCrop::RandomResized.into()),
            |wire| (wire.cutmix_alpha, wire.label_smoothing, wire.base_lr) = (1.0, 0.1, 0.01),
        ];
        for change in finetunes {
            let spec = finetune_of(change).expect("valid");
            assert_eq!(JobSpec::try_from(v1::JobSpec::from(spec.clone())), Ok(spec));
        }
        let wire = v1::EvaluateSpec { model: "stamps".into(), tta: v1::TtaRecipe::Max.into(), ..Default::default() };
        let spec = parse(Kind::Evaluate(wire)).expect("valid");
        assert_eq!(JobSpec::try_from(v1::JobSpec::from(spec.clone())), Ok(spec));
    }
}
