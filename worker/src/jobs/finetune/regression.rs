//! Fits a regression on the features of the pretrained network: the recipes `fast` and `best`, and what `auto` shares with them.

use sortinghat_proto::{
    FinetuneSpec, Recipe,
    manifest::{Framing, LambdaScore, RecipeRecord, RegressionRecord, UnlikeMethod, UnlikeRecord, View},
    words::{count, false_alarms},
};
use tokio::time::Instant;

use super::{Made, learner::failure, network, set::TrainingSet, told};
use crate::{
    device::Precision,
    jobs::{features::features, pretrained::Pretrained},
    models::{Classifier, HeadConfig, Square},
    prediction::{precision::prediction_precision, predict::Predictor},
    randomness::Phase,
    regression::{Choice, Examples, FitError, Policy, Unlike, choose},
    task::{JobContext, JobError},
    training::{progress::EpochMetrics, trainer::check_split},
};

/// Makes a model by the spec's recipe, which is one that fits a single regression.
pub(super) fn fit(
    spec: &FinetuneSpec,
    context: &JobContext,
    set: &TrainingSet,
    weights: &Pretrained,
) -> Result<Made, JobError> {
    let views = views_of(&spec.recipe, spec.image_size_px);
    let mut fitting = Fitting::new(spec, context, set, (weights, &views))?;
    fitting.compute_features()?;
    let choice = choose(&fitting.examples, &set.train, fitting.policy(), |done, all| {
        context.progress("regression", done, all, "fits");
        context.check_cancelled()
    })?;
    let examples = fitting.examples.clone();
    fitting.conclude(&examples, choice, views, |record| match spec.recipe {
        Recipe::Fast => RecipeRecord::Fast(record),
        Recipe::Best => RecipeRecord::Best(record),
        Recipe::Auto | Recipe::Fastai2(_) => unreachable!("these recipes have ways of their own"),
    })
}

/// The views that a recipe has of each photo, the largest with sides of `size_px`.
pub(super) fn views_of(recipe: &Recipe, size_px: u32) -> Vec<View> {
    let view = |framing| View { framing, size_px };
    match recipe {
        Recipe::Fast => vec![view(Framing::Pad)],
        Recipe::Best => vec![view(Framing::Crop), view(Framing::Pad)],
        Recipe::Auto | Recipe::Fastai2(_) => unreachable!("these recipes have no views of their own"),
    }
}

/// A model that is made by a regression on features: what all such recipes share.
pub(super) struct Fitting<'a> {
    spec: &'a FinetuneSpec,
    context: &'a JobContext,
    set: &'a TrainingSet,
    started: Instant,
    pub(super) network: Classifier,
    pub(super) precision: Precision,
    /// All photos of the set. They have no features until [`Self::compute_features`] has been called.
    pub(super) examples: Examples,
}

impl<'a> Fitting<'a> {
    /// A network that sees these views of each photo.
    pub(super) fn new(
        spec: &'a FinetuneSpec,
        context: &'a JobContext,
        set: &'a TrainingSet,
        (weights, views): (&Pretrained, &[View]),
    ) -> Result<Self, JobError> {
        let started = Instant::now();
        let split = check_split(&set.classes, &set.examples(&set.train), &set.examples(&set.valid));
        split.map_err(|error| failure(&error))?;
        let head = HeadConfig::Regression { temperature: 1.0, unlike: None };
        let squares = views.iter().copied().map(Square::from).collect();
        let network = network(spec, context, weights, &set.classes, (head, squares))?;
        let precision = prediction_precision(&context.machine().compute, spec.precision, spec.backbone);
        Ok(Self { spec, context, set, started, network, precision, examples: set.bare_examples() })
    }

    pub(super) fn predictor(&self) -> Predictor<'_> {
        Predictor::new(&self.network, self.precision, self.spec.seed)
    }

    /// The features of all photos of the set, held-out ones as well.
    pub(super) fn compute_features(&mut self) -> Result<(), JobError> {
        let (gallery, digests) = (&self.set.gallery, &self.set.digests);
        let network = (&self.predictor(), &self.network);
        self.examples.features = features(self.context, network, gallery, digests, "finetune.weights")?;
        Ok(())
    }

    pub(super) fn policy(&self) -> Policy {
        Policy { threads: self.context.machine().compute.threads, seed: self.spec.seed }
    }

    /// Makes the model of a regression that was fitted on `examples`, which have these views, and measures it on the held-out photos.
    pub(super) fn conclude(
        self,
        examples: &Examples,
        choice: Choice,
        views: Vec<View>,
        recipe: impl FnOnce(RegressionRecord) -> RecipeRecord,
    ) -> Result<Made, JobError> {
        let Self { context, set, started, mut network, precision, .. } = self;
        say_what_was_chosen(context, set, &choice);
        let row = row(examples, set, &choice, started)?;
        context.epoch_finished(told(&row));
        let unlike_record = unlike_record(context, examples, set, &choice)?;
        let Choice { regression, lambda, temperature, folds, tried, unlike, .. } = choice;
        let fitted = (&regression.mean, &regression.weight, &regression.bias);
        let stored = network.set_regression(fitted, temperature);
        stored.map_err(|error| JobError::torch("storing the regression", &error))?;
        if let Some(Unlike { distance, scale }) = &unlike {
            let kept = network.set_unlike(distance, *scale);
            kept.map_err(|error| JobError::torch("storing what tells unlike photos", &error))?;
        }
        network.set_squares(views.iter().copied().map(Square::from).collect());
        let tried = tried.into_iter().map(|(lambda, nll)| LambdaScore { lambda, nll }).collect();
        let unlike = unlike_record;
        let record = RegressionRecord { views, lambda, temperature, inner_folds: folds as u32, tried, unlike };
        Ok(Made { network, recipe: recipe(record), history: vec![row], precision })
    }
}

/// How the regression does on the photos that it learned from and on those that were held out, as a row of the training table.
fn row(examples: &Examples, set: &TrainingSet, choice: &Choice, started: Instant) -> Result<EpochMetrics, JobError> {
    let (learned, held_out) = (choice.measure(examples, &set.train)?, choice.measure(examples, &set.valid)?);
    Ok(EpochMetrics {
        phase: Phase::Frozen,
        epoch: 0,
        train_loss: learned.nll,
        valid_loss: held_out.nll,
        correct: held_out.right,
        total: held_out.photos,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// How the model tells photos that resemble none of its classes, and how often it is wrong about the held-out photos.
fn unlike_record(
    context: &JobContext,
    examples: &Examples,
    set: &TrainingSet,
    choice: &Choice,
) -> Result<Option<UnlikeRecord>, JobError> {
    let counted = choice.unlike.as_ref().zip(choice.count_unlike(examples, &set.valid)?);
    let record = counted.map(|(unlike, flagged)| UnlikeRecord {
        method: UnlikeMethod::EnergyAndDistance,
        scale: unlike.scale,
        held_out: set.valid.len() as u64,
        false_alarms: flagged as u64,
    });
    match &record {
        Some(record) => {
            context.inform(format!("photos that resemble none of the classes are flagged: {}", false_alarms(record)))
        }
        None => context
            .warn("too few photos to learn which photos resemble none of the classes: none will be flagged".to_owned()),
    }
    Ok(record)
}

fn say_what_was_chosen(context: &JobContext, set: &TrainingSet, choice: &Choice) {
    let Choice { lambda, temperature, folds, unscored_classes, .. } = choice;
    if *folds == 0 {
        context.warn(format!(
            "too few photos that are not near-duplicates of each other to choose anything by: the penalty is {lambda:.0e}, and \
             probabilities are not calibrated"
        ));
        return;
    }
    context.inform(format!(
        "penalty {lambda:.1e} and temperature {temperature:.2} chosen on {folds} inner folds of the {} photos to learn from",
        count(set.train.len() as u64)
    ));
    if !unscored_classes.is_empty() {
        let names: Vec<&str> = unscored_classes.iter().map(|class| set.classes[*class].as_str()).collect();
        context.warn(format!(
            "the choice could not be checked on {}: each of these classes has one photo to learn from, or only near-duplicates of one",
            names.join(", ")
        ));
    }
}

impl From<FitError> for JobError {
    fn from(error: FitError) -> Self {
        match error {
            FitError::Tch(error) => Self::torch("fitting the regression", &error),
            FitError::NoMinimum { .. } => Self::Internal(error.to_string()),
        }
    }
}
