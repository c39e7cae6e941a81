//! A model in lines: its classes, how it was made, and the table of its training.

use sortinghat_proto::{
    manifest::{EpochRecord, ModelManifest},
    v1::{EpochMetrics, Model},
    words,
};

use super::{
    numbers::{bytes, time},
    paper::Paper,
    table,
};

/// A table with a row for each model.
pub(crate) fn table(models: &[Model], paper: Paper) -> Vec<String> {
    let row = |m: &Model| table::named_row(&m.name, m.created_unix_ms, &m.summary);
    table::fitted(table::NAMED_HEADER, &models.iter().map(row).collect::<Vec<_>>(), paper)
}

/// One model.
pub(crate) fn lines(model: &Model, made: &ModelManifest, paper: Paper) -> Vec<String> {
    let fold = made.dataset.fold.map(|fold| format!(", fold {fold} held out")).unwrap_or_default();
    let (when, job) = (time(model.created_unix_ms), &model.job_id);
    let compared = made.recipe.auto().into_iter().flat_map(|auto| &auto.candidates).map(words::candidate);
    let weighed = made.recipe.auto().and_then(|auto| auto.label_weights.as_ref()).map(words::label_weights);
    let told = compared.map(|told| ("compared", told)).chain(weighed.map(|told| ("labels", told)));
    let told = told.chain(words::unlike(made).map(|told| ("unlike", told)));
    let fields = [
        ("model", format!("{}: {}", model.name, model.summary)),
        ("classes", made.classes.join(", ")),
        ("dataset", format!("{}{fold}", made.dataset.name)),
        ("backbone", format!("{}, pretrained weights: {}", made.backbone, made.pretrained.source)),
        ("recipe", words::recipe(made)),
        ("options", words::recipe_options(made)),
        ("made", format!("{when} by job {job}, on {}, {} threads", made.device, made.threads)),
        ("weights", format!("{}, {}", bytes(made.weights.size_bytes), made.weights.digest)),
    ];
    let fields: Vec<_> = fields.into_iter().chain(told).map(|(label, value)| (label, value.into())).collect();
    let mut lines = table::fields(&fields, paper);
    lines.push(table::EPOCH_HEADER.to_owned());
    lines.extend(made.history.iter().map(|record| table::epoch_row(&metrics(record))));
    lines
}

fn metrics(record: &EpochRecord) -> EpochMetrics {
    let EpochRecord { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms } = *record;
    EpochMetrics { frozen, epoch, train_loss, valid_loss, accuracy, duration_ms, valid_photos: 0 }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::{
        Backbone, Digest, Mixing, ObjectRef, Precision, TrainingCrop,
        manifest::{
            AutoRecord, CandidateRecord, DatasetProvenance, FineTuneRecord, Framing, LabelWeights, LambdaScore,
            RateSearch, RecipeRecord, RegressionRecord, Spread, UnlikeMethod, UnlikeRecord, UnlikeScale, View,
            WeightsProvenance,
        },
    };

    use super::{super::json, *};

    /// The time at which the model was made: 2026-11-30 08:00:00Z.
    const MADE: i64 = 1_796_025_600_000;

    /// Models like `plain` that were not trained but fitted: one whose penalty was chosen, one with too few photos for that, and one whose
    /// recipe was chosen too.
    fn fitted(plain: &ModelManifest) -> [ModelManifest; 3] {
        let regression = RegressionRecord {
            views: [Framing::Crop, Framing::Pad].map(|framing| View { framing, size_px: 288 }).into(),
            lambda: 10_f64.powf(-3.5),
            temperature: 1.125,
            inner_folds: 5,
            tried: vec![LambdaScore { lambda: 10_f64.powf(-3.5), nll: 0.41 }],
            unlike: Some(UnlikeRecord {
                method: UnlikeMethod::EnergyAndDistance,
                scale: UnlikeScale {
                    energy: Spread { mean: 4.5, deviation: 0.75 },
                    distance: Spread { mean: 1_100.0, deviation: 90.0 },
                    threshold: -2.25,
                },
                held_out: 142,
                false_alarms: 3,
            }),
        };
        let unchosen = RegressionRecord {
            views: vec![View { framing: Framing::Pad, size_px: 224 }],
            lambda: 1e-3,
            temperature: 1.0,
            inner_folds: 0,
            tried: vec![],
            unlike: None,
        };
        let candidate = |recipe: &str, nll: f64, behind: f64| CandidateRecord {
            recipe: recipe.into(),
            nll,
            behind,
            standard_error: behind / 3.0,
        };
        let auto = AutoRecord {
            chosen: "best".into(),
            candidates: vec![candidate("fast", 0.449, 0.03), candidate("best", 0.419, 0.0)],
            label_weights: Some(LabelWeights { wrong_share: 0.125, below_half: 61, listed: vec![] }),
            regression: regression.clone(),
        };
        [RecipeRecord::Best(regression), RecipeRecord::Fast(unchosen), RecipeRecord::Auto(auto)]
            .map(|recipe| ModelManifest { recipe, ..plain.clone() })
    }

    #[test]
    fn a_model_is_shown_with_how_it_was_made_and_what_differs_from_the_defaults() {
        let history = vec![EpochRecord {
            frozen: true,
            epoch: 0,
            train_loss: 2.5,
            valid_loss: 1.25,
            accuracy: 0.5,
            duration_ms: 9,
        }];
        let made = FineTuneRecord {
            freeze_epochs: 1,
            epochs: 5,
            base_lr: 0.002,
            rate_search: None,
            mixing: None,
            label_smoothing: 0.0,
            crop: TrainingCrop::Resize,
            batch_size: 64,
            micro_batch_size: 64,
        };
        let plain = ModelManifest {
            classes: vec!["animals".into(), "food".into()],
            backbone: Backbone::Resnet18,
            weights: ObjectRef { digest: Digest::of(b"weights"), size_bytes: 44 << 20 },
            image_size_px: 224,
            mean: [0.5; 3],
            std: [0.25; 3],
            recipe: RecipeRecord::Fastai2(made.clone()),
            dataset: DatasetProvenance { name: "stamps@1".into(), manifest: ObjectRef::of(b"dataset"), fold: None },
            pretrained: WeightsProvenance { source: "resnet18.safetensors".into(), digest: None },
            seed: 0,
            precision: Precision::F32,
            device: "cpu".into(),
            threads: 2,
            software: "sortinghat".into(),
            history,
        };
        let search = RateSearch {
            learning_rates: vec![],
            losses: vec![],
            valley: 1e-3,
            minimum: 2e-2,
            steep: 3e-3,
            slide: 4e-3,
        };
        let special = FineTuneRecord {
            mixing: Some(Mixing::CutMix { alpha: 1.0 }),
            label_smoothing: 0.1,
            crop: TrainingCrop::RandomResized { min_scale: 0.08 },
            rate_search: Some(search),
            ..made.clone()
        };
        let special = ModelManifest {
            dataset: DatasetProvenance { fold: Some(2), ..plain.dataset.clone() },
            recipe: RecipeRecord::Fastai2(special),
            ..plain.clone()
        };
        let mixed_up = FineTuneRecord { mixing: Some(Mixing::MixUp { alpha: 0.4 }), ..made };
        let mixed_up = ModelManifest { recipe: RecipeRecord::Fastai2(mixed_up), ..plain.clone() };
        let [best, fast, auto] = fitted(&plain);
        let named = Model {
            name: "stamps/1".into(),
            job_id: "01".into(),
            created_unix_ms: MADE,
            summary: "85.2% of 142".into(),
            manifest: Some(ObjectRef::of(b"m").into()),
        };
        let all = [plain, special, mixed_up, best, fast, auto];
        let shown = all.map(|made| lines(&named, &made, Paper::default()).join("\n"));
        insta::assert_snapshot!(shown.join("\n\n"));
        insta::assert_json_snapshot!(json::model(&named));
    }
}
