//! Test-time augmentation: combines the predictions of several views of a photo into one.

use sortinghat_proto::TtaRecipe;

use super::probabilities::Probabilities;

/// One prediction from the plain one and the augmented ones.
///
/// # Panics
/// When `augmented` is empty or holds other photos.
#[must_use]
pub fn combine(recipe: TtaRecipe, plain: &Probabilities, augmented: &[Probabilities]) -> Probabilities {
    assert!(!augmented.is_empty() && augmented.iter().all(|pass| pass.values().len() == plain.values().len()));
    let passes = augmented.len() as f32;
    let sum = |i: usize| augmented.iter().map(|pass| pass.values()[i]).sum::<f32>();
    match recipe {
        TtaRecipe::Fastai2 => plain.map(|i, plain| 0.75 * sum(i) / passes + 0.25 * plain),
        TtaRecipe::Fastai07 => plain.map(|i, plain| (sum(i) + plain) / (passes + 1.0)),
        // Rows no longer sum to 1, as with fastai's `use_max`.
        TtaRecipe::Max => plain.map(|i, plain| augmented.iter().map(|pass| pass.values()[i]).fold(plain, f32::max)),
    }
}
