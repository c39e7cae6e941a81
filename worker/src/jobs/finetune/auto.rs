//! The recipe `auto`: compares the recipes that fit a regression on inner folds of the photos to learn from, and takes the cheapest one
//! that is as good as the best.
//!
//! What is held out decides nothing. It is predicted once, by the model that was chosen.

use std::time::Duration;

use sortinghat_proto::{
    FinetuneSpec, Recipe,
    manifest::{AutoRecord, CandidateRecord, LabelWeights, RecipeRecord, View},
    words::{self, count},
};
use tokio::time::Instant;

use super::{
    Made,
    labels::{self, Unweighed, Weighed},
    regression::{Fitting, views_of},
    set::TrainingSet,
};
use crate::{
    jobs::pretrained::Pretrained,
    models::Architecture as _,
    prediction::{batch::PixelBatch, predict::PredictError},
    regression::{
        Choice, Compared, Examples, InnerFolds, Policy, Searched, compare, fit as fit_regression, fit_without_choice,
        fits, search,
    },
    task::{JobContext, JobError},
};

/// How large the square of `fast` is beside that of `best`: 224 beside 288 pixels.
const FAST_SIZE: (u32, u32) = (7, 9);
/// The smallest square that networks see, in pixels.
const LEAST_SIZE_PX: u32 = 32;
/// Photos that the network sees to find out how fast it is.
const TRIAL_PHOTOS: usize = 4;
/// About how many floating-point operations a core does in a second while a regression is fitted.
const OPERATIONS_PER_SECOND: f64 = 4e9;
/// About how many gradients a fit takes.
const GRADIENTS: f64 = 60.0;

/// A recipe that is compared.
struct Candidate {
    recipe: Recipe,
    views: Vec<View>,
}

impl Candidate {
    /// All of them, the one that costs least first.
    fn all(size_px: u32) -> Vec<Self> {
        let fast_px = (size_px * FAST_SIZE.0 / FAST_SIZE.1).max(LEAST_SIZE_PX);
        let candidate = |(recipe, size_px)| Self { views: views_of(&recipe, size_px), recipe };
        [(Recipe::Fast, fast_px), (Recipe::Best, size_px)].map(candidate).into()
    }
}

/// Makes a model by the candidate that does best.
pub(super) fn fit(
    spec: &FinetuneSpec,
    context: &JobContext,
    set: &TrainingSet,
    weights: &Pretrained,
) -> Result<Made, JobError> {
    let mut candidates = Candidate::all(spec.image_size_px);
    let folds = InnerFolds::deal(&set.bare_examples(), &set.train, spec.seed);
    if folds.is_none() {
        candidates.truncate(1);
    }
    let views: Vec<View> = candidates.iter().flat_map(|candidate| candidate.views.iter().copied()).collect();
    let mut fitting = Fitting::new(spec, context, set, (weights, &views))?;
    let auto = Auto { context, set, policy: fitting.policy() };
    match &folds {
        Some(folds) => auto.say_plan(&fitting, &candidates, folds)?,
        None => auto.say_that_nothing_is_compared(),
    }
    fitting.compute_features()?;
    let Chosen { examples, choice, views, recipe, compared, label_weights } = match &folds {
        Some(folds) => auto.choose(&fitting.examples, candidates, folds)?,
        None => auto.without_choice(&fitting.examples, candidates.swap_remove(0))?,
    };
    fitting.conclude(&examples, choice, views, |regression| {
        let chosen = recipe.to_string();
        RecipeRecord::Auto(AutoRecord { chosen, candidates: compared, label_weights, regression })
    })
}

/// What was chosen, and the photos with what was chosen for them.
struct Chosen {
    examples: Examples,
    choice: Choice,
    recipe: Recipe,
    views: Vec<View>,
    compared: Vec<CandidateRecord>,
    label_weights: Option<LabelWeights>,
}

struct Auto<'a> {
    context: &'a JobContext,
    set: &'a TrainingSet,
    policy: Policy,
}

impl Auto<'_> {
    /// Says what will be compared, and for how long.
    fn say_plan(&self, fitting: &Fitting<'_>, candidates: &[Candidate], folds: &InnerFolds) -> Result<(), JobError> {
        let names: Vec<&str> = candidates.iter().map(|candidate| candidate.recipe.as_str()).collect();
        let photos = self.set.digests.len();
        let passes = trial(fitting)?.mul_f64(photos as f64 / TRIAL_PHOTOS as f64);
        let rows: usize = candidates.iter().map(|candidate| candidate.views.len() * self.set.train.len()).sum();
        let of_a_row = GRADIENTS * 4.0 * (fitting.network.backbone().features() * self.set.classes.len() as i64) as f64;
        let operations = rows as f64 * fits(folds) as f64 * of_a_row;
        let fitted = Duration::from_secs_f64(operations / (OPERATIONS_PER_SECOND * self.policy.threads as f64));
        self.context.inform(format!(
            "comparing the recipes {} on {} inner folds of the {} photos to learn from, within about {}",
            words::all_of(&names),
            folds.count(),
            count(self.set.train.len() as u64),
            rounded_up(passes + fitted)
        ));
        Ok(())
    }

    fn say_that_nothing_is_compared(&self) {
        let recipe = Recipe::Fast;
        self.context.inform(format!("too few photos to compare recipes on: the model is made by the recipe {recipe}"));
    }

    fn without_choice(&self, examples: &Examples, candidate: Candidate) -> Result<Chosen, JobError> {
        let Candidate { recipe, views } = candidate;
        let choice = fit_without_choice(examples, &self.set.train, self.policy.threads)?;
        let (compared, label_weights) = (Vec::new(), None);
        Ok(Chosen { examples: examples.clone(), choice, recipe, views, compared, label_weights })
    }

    /// Searches the penalty of every candidate, takes one of them, and fits it with labels that count as much as they are probably right.
    fn choose(
        &self,
        examples: &Examples,
        mut candidates: Vec<Candidate>,
        folds: &InnerFolds,
    ) -> Result<Chosen, JobError> {
        let mut fits = Fits::new(self.context, candidates.len() as u64 * fits(folds) + labels::most_fits(folds) + 1);
        let (mut first, mut tried) = (0, Vec::new());
        for candidate in &candidates {
            let views: Vec<usize> = (first..first + candidate.views.len()).collect();
            first += views.len();
            let examples = examples.of_views(&views);
            let found = search(&examples, folds, self.policy.threads, &mut |done, _| fits.told(done))?;
            fits.next(found.tried.len() as u64 * folds.count() as u64);
            tried.push((examples, found));
        }
        let (compared, taken) = self.compare(&candidates, &tried, folds);
        let Candidate { recipe, views } = candidates.swap_remove(taken);
        let (examples, found) = tried.swap_remove(taken);
        let policy = self.policy;
        let before = Unweighed { set: self.set, examples: &examples, folds, found: &found, policy };
        let weighed = labels::weigh(self.context, &before, |done| fits.told(done))?;
        let (examples, found, label_weights) = match weighed {
            Some(Weighed { examples, found, record }) => (examples, found, Some(record)),
            None => (examples, found, None),
        };
        let Searched { penalty, held_out, tried } = found;
        let choice = fit_regression(&examples, &self.set.train, folds, (penalty, &held_out), policy.threads)?;
        Ok(Chosen { examples, choice: Choice { tried, ..choice }, recipe, views, compared, label_weights })
    }

    /// Compares the candidates on the photos that the folds hold out, and prints how each did.
    fn compare(
        &self,
        candidates: &[Candidate],
        tried: &[(Examples, Searched)],
        folds: &InnerFolds,
    ) -> (Vec<CandidateRecord>, usize) {
        let losses: Vec<Vec<f64>> =
            tried.iter().map(|(_, found)| found.held_out.losses(found.held_out.temperature()).collect()).collect();
        let groups: Vec<usize> = folds.photos().into_iter().map(|photo| self.set.groups[photo]).collect();
        let (compared, taken) = compare(&losses, &groups);
        let record = |(candidate, compared): (&Candidate, &Compared)| CandidateRecord {
            recipe: candidate.recipe.to_string(),
            nll: compared.loss,
            behind: compared.behind,
            standard_error: compared.standard_error,
        };
        let records: Vec<CandidateRecord> = candidates.iter().zip(&compared).map(record).collect();
        for record in &records {
            self.context.inform(words::candidate(record));
        }
        let chosen = &candidates[taken].recipe;
        let why = match compared[taken].behind > 0.0 {
            true => "it costs less than the best, and the difference is below one standard error",
            false => "it is the best",
        };
        self.context.inform(format!("the recipe {chosen} is taken: {why}"));
        (records, taken)
    }
}

/// How long the network takes for a few photos, in all the squares that it sees. Their pixels do not matter.
fn trial(fitting: &Fitting<'_>) -> Result<Duration, JobError> {
    let failed = |error: PredictError| JobError::torch("trying the network", &error.source);
    let mut all = Duration::ZERO;
    for square in &fitting.network.config().squares {
        let pixels = vec![0; TRIAL_PHOTOS * square.size * square.size * 3];
        let batch = PixelBatch { pixels, count: TRIAL_PHOTOS, size: square.size };
        let predictor = fitting.predictor();
        // The first pass also prepares the network for squares of this size.
        predictor.features(&batch).map_err(failed)?;
        let started = Instant::now();
        predictor.features(&batch).map_err(failed)?;
        all += started.elapsed();
    }
    Ok(all)
}

/// "10 seconds", "2 minutes": a bound that reads as the estimate that it is.
fn rounded_up(time: Duration) -> String {
    const SECONDS: [u64; 4] = [10, 20, 30, 60];
    let seconds = time.as_secs_f64();
    match SECONDS.into_iter().find(|bound| seconds <= *bound as f64) {
        Some(60) => "1 minute".to_owned(),
        Some(bound) => format!("{bound} seconds"),
        None => format!("{} minutes", (seconds / 60.0).ceil()),
    }
}

/// Counts fits of several stages as one progress.
struct Fits<'a> {
    context: &'a JobContext,
    before: u64,
    all: u64,
}

impl<'a> Fits<'a> {
    fn new(context: &'a JobContext, all: u64) -> Self {
        Self { context, before: 0, all }
    }

    /// That so many fits of the current stage are done.
    fn told(&self, done: u64) -> Result<(), JobError> {
        let done = self.before + done;
        self.context.progress("regression", done, self.all.max(done), "fits");
        self.context.check_cancelled()
    }

    /// That the current stage has ended after so many fits.
    fn next(&mut self, done: u64) {
        self.before += done;
        self.all = self.all.max(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_costs_least_comes_first_and_sees_a_smaller_square() {
        let sizes = |size_px| {
            let all = Candidate::all(size_px);
            all.iter().map(|candidate| (candidate.recipe.as_str(), candidate.views[0].size_px)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(288), [("fast", 224), ("best", 288)], "as these recipes do by themselves");
        assert_eq!(sizes(36), [("fast", 32), ("best", 36)]);
    }

    #[test]
    fn an_estimate_is_rounded_up() {
        let told = [0.5, 10.5, 31.0, 61.0, 3600.0].map(|seconds| rounded_up(Duration::from_secs_f64(seconds)));
        assert_eq!(told, ["10 seconds", "20 seconds", "1 minute", "2 minutes", "60 minutes"]);
    }
}
