//! The features of all photos of a gallery, as a pretrained network gives them.

use std::sync::Arc;

use sortinghat_proto::{Digest, Refusal, v1::ErrorCode};

use super::predict::halving;
use crate::{
    batches::{Gallery, ViewPlan, undecodable, views},
    models::Classifier,
    prediction::predict::Predictor,
    regression::Features,
    task::{JobContext, JobError},
};

/// The features of all photos, for each square that `network` sees. Each photo is decoded once. Memory is bounded by the batches and by the
/// features themselves. `field` is the field of the spec that names the weights.
pub(super) fn features(
    context: &JobContext,
    (predictor, network): (&Predictor<'_>, &Classifier),
    gallery: &Arc<Gallery>,
    digests: &[Digest],
    field: &str,
) -> Result<Features, JobError> {
    let squares = network.config().squares.clone();
    let (mut rows, total) = (vec![Vec::new(); squares.len()], digests.len() as u64);
    let mut done = 0;
    context.progress("features", done, total, "photos");
    for views in views(gallery.clone(), digests.to_vec(), ViewPlan { squares, passes: Vec::new() }) {
        let views = views?;
        let failed =
            views.outcomes.iter().enumerate().find_map(|(place, outcome)| Some((place, outcome.as_ref().err()?)));
        if let Some((place, reason)) = failed {
            return Err(undecodable(&digests[done as usize + place], &reason.why));
        }
        for (rows, batch) in rows.iter_mut().zip(&views.plain) {
            rows.extend(halving::<Vec<f32>>(batch, &views.digests, &|batch, _| predictor.features(batch))?);
            context.progress("features", done, total, "photos");
            context.check_cancelled()?;
        }
        done += views.outcomes.len() as u64;
        context.progress("features", done, total, "photos");
    }
    if !rows.iter().flatten().all(|value| value.is_finite()) {
        let message = "the network gives features that are no numbers: its weights hold values that are not finite or far too \
                       large; use other weights";
        return Err(Refusal::new(ErrorCode::Diverged, message).at(field).into());
    }
    let width = rows[0].len() / digests.len();
    Ok(Features::new(rows, width))
}
