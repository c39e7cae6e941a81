//! Fits a regression on the features of the pretrained network: the recipes `fast` and `best`.

use sortinghat_proto::{
    FinetuneSpec, Recipe,
    manifest::{Framing, LambdaScore, RecipeRecord, RegressionRecord, UnlikeMethod, UnlikeRecord, View},
    words::{count, false_alarms},
};
use tokio::time::Instant;

use super::{Made, Weights, learner::failure, set::TrainingSet, told};
use crate::{
    batches::{ViewPlan, undecodable, views},
    jobs::predict::halving,
    models::{Classifier, HeadConfig, Square},
    prediction::{precision::prediction_precision, predict::Predictor},
    randomness::Phase,
    regression::{Choice, Examples, Features, FitError, Policy, Unlike, choose},
    task::{JobContext, JobError},
    training::{progress::EpochMetrics, trainer::check_split},
};

/// Makes a model by the spec's recipe, which is one that trains no network.
pub(super) fn fit(
    spec: &FinetuneSpec,
    context: &JobContext,
    set: &TrainingSet,
    weights: &Weights,
) -> Result<Made, JobError> {
    let started = Instant::now();
    check_split(&set.classes, &set.examples(&set.train), &set.examples(&set.valid)).map_err(|error| failure(&error))?;
    let views = views_of(spec);
    let squares: Vec<Square> = views.iter().copied().map(Square::from).collect();
    let head = HeadConfig::Regression { temperature: 1.0, unlike: None };
    let mut network = weights.network(spec, context, &set.classes, head, squares)?;
    let compute = &context.machine().compute;
    let precision = prediction_precision(compute, spec.precision, spec.backbone);
    let examples = Examples {
        features: features(context, &Predictor::new(&network, precision, spec.seed), &network, set)?,
        labels: set.labels.clone(),
        classes: set.classes.len(),
        groups: set.groups.clone(),
        digests: set.digests.clone(),
    };
    let policy = Policy { threads: compute.threads, seed: spec.seed };
    let choice = choose(&examples, &set.train, policy, |done, all| {
        context.progress("regression", done, all, "fits");
        context.check_cancelled()
    })?;
    say_what_was_chosen(context, set, &choice);
    let row = row(&examples, set, &choice, started)?;
    context.epoch_finished(told(&row));
    let unlike_record = unlike_record(context, &examples, set, &choice)?;
    let Choice { regression, lambda, temperature, folds, tried, unlike, .. } = choice;
    let fitted = (&regression.mean, &regression.weight, &regression.bias);
    network.set_regression(fitted, temperature).map_err(|error| JobError::torch("storing the regression", &error))?;
    if let Some(Unlike { distance, scale }) = &unlike {
        let kept = network.set_unlike(distance, *scale);
        kept.map_err(|error| JobError::torch("storing what tells unlike photos", &error))?;
    }
    let tried = tried.into_iter().map(|(lambda, nll)| LambdaScore { lambda, nll }).collect();
    let unlike = unlike_record;
    let record = RegressionRecord { views, lambda, temperature, inner_folds: folds as u32, tried, unlike };
    let recipe = match spec.recipe {
        Recipe::Fast => RecipeRecord::Fast(record),
        Recipe::Best => RecipeRecord::Best(record),
        Recipe::Fastai2(_) => unreachable!("fastai2 trains the network"),
    };
    Ok(Made { network, recipe, history: vec![row], precision })
}

/// The views of the spec's recipe.
fn views_of(spec: &FinetuneSpec) -> Vec<View> {
    let view = |framing| View { framing, size_px: spec.image_size_px };
    match spec.recipe {
        Recipe::Fast => vec![view(Framing::Pad)],
        Recipe::Best => vec![view(Framing::Crop), view(Framing::Pad)],
        Recipe::Fastai2(_) => unreachable!("fastai2 trains the network"),
    }
}

/// The features of all photos of the set. Memory is bounded by the batches and by the features themselves.
fn features(
    context: &JobContext,
    predictor: &Predictor<'_>,
    network: &Classifier,
    set: &TrainingSet,
) -> Result<Features, JobError> {
    let squares = network.config().squares.clone();
    let (mut rows, total) = (vec![Vec::new(); squares.len()], set.digests.len() as u64);
    let mut done = 0;
    context.progress("features", done, total, "photos");
    for views in views(set.gallery.clone(), set.digests.clone(), ViewPlan { squares, passes: Vec::new() }) {
        let views = views?;
        let failed =
            views.outcomes.iter().enumerate().find_map(|(place, outcome)| Some((place, outcome.as_ref().err()?)));
        if let Some((place, reason)) = failed {
            return Err(undecodable(&set.digests[done as usize + place], &reason.why));
        }
        for (rows, batch) in rows.iter_mut().zip(&views.plain) {
            rows.extend(halving::<Vec<f32>>(batch, &views.digests, &|batch, _| predictor.features(batch))?);
            context.progress("features", done, total, "photos");
            context.check_cancelled()?;
        }
        done += views.outcomes.len() as u64;
        context.progress("features", done, total, "photos");
    }
    let width = rows[0].len() / set.digests.len();
    Ok(Features::new(rows, width))
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
