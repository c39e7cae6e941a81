//! fastai's learning-rate finder: its suggestions, and that a search leaves no trace.

use sortinghat_proto::manifest::RateSearch;
use sortinghat_proto::{Backbone, BaseRate, Mixing};
use sortinghat_worker::training::progress::{EpochMetrics, Flow, Observer, Outcome, StepReport};
use sortinghat_worker::training::rate_search::{Curve, STEPS};
use sortinghat_worker::training::recipe::Recipe;
use sortinghat_worker::training::trainer::{Snapshot, Trainer};

use crate::fine_tune::{Losses, Noise, examples};
use crate::formula::{assert_near, classifier, flat, golden};

#[test]
fn all_four_suggestions_are_fastais() {
    let golden = golden("fastai.json")["lr_find"].clone();
    let curve = Curve { learning_rates: flat(&golden["lrs"]), losses: flat(&golden["losses"]), broke: false };
    let found = curve.suggest().unwrap();
    for (name, found) in
        [("valley", found.valley), ("minimum", found.minimum), ("steep", found.steep), ("slide", found.slide)]
    {
        assert_near(name, &[found], &flat(&golden[name]), 0.0, 1e-6);
    }
}

fn trainer(base_rate: BaseRate) -> Trainer {
    let recipe =
        Recipe { batch_size: 4, base_rate, mixing: Some(Mixing::MixUp { alpha: 0.4 }), ..Recipe::fastai2(1, 5) };
    Trainer::new(classifier(Backbone::Resnet18, 2, 32), recipe, examples(9, 2, 0), examples(4, 2, 1)).unwrap()
}

#[test]
fn a_found_rate_trains_to_the_same_bits_as_the_same_rate_given() {
    let source = Noise { size: 32 };
    let mut found = trainer(BaseRate::Find);
    assert_eq!(found.run(&source, &mut Losses::default()).unwrap(), Outcome::Finished);
    let search = found.rate_search().unwrap().clone();
    assert!(search.losses.len() <= STEPS && search.losses.len() == search.learning_rates.len());
    assert_eq!(found.base_rate(), search.valley);

    let mut given = trainer(BaseRate::Given(search.valley));
    assert_eq!(given.run(&source, &mut Losses::default()).unwrap(), Outcome::Finished);
    assert!(given.rate_search().is_none());
    assert!(found.into_classifier().to_safetensors().unwrap() == given.into_classifier().to_safetensors().unwrap());
}

/// Counts searches, keeps a checkpoint after the first step and stops there.
#[derive(Default)]
struct StopsAfterOne {
    searches: Vec<RateSearch>,
    checkpoint: Vec<u8>,
}

impl Observer for StopsAfterOne {
    fn rate_found(&mut self, search: &RateSearch) -> Flow {
        self.searches.push(search.clone());
        Flow::Continue
    }

    fn smaller_pieces(&mut self, _: usize) {}

    fn step(&mut self, _: &StepReport, snapshot: &Snapshot<'_>) -> Flow {
        self.checkpoint = snapshot.copy().unwrap().into_bytes().unwrap();
        Flow::Stop
    }

    fn epoch(&mut self, _: &EpochMetrics, _: &Snapshot<'_>) -> Flow {
        Flow::Continue
    }
}

#[test]
fn a_resumed_run_does_not_search_again() {
    let source = Noise { size: 32 };
    let mut stopped = StopsAfterOne::default();
    assert_eq!(trainer(BaseRate::Find).run(&source, &mut stopped).unwrap(), Outcome::Stopped);
    let mut resumed = trainer(BaseRate::Find);
    resumed.restore(&stopped.checkpoint).unwrap();
    assert_eq!(resumed.rate_search(), stopped.searches.first());
    let mut again = StopsAfterOne::default();
    resumed.run(&source, &mut again).unwrap();
    assert!(again.searches.is_empty());
}
