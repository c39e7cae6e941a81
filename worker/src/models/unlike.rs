//! How little a photo resembles the photos that a regression has learned from.

use sortinghat_proto::manifest::{Spread, UnlikeScale};
use tch::{TchError, Tensor};

use super::features::unit;

/// Euclidean distances without the shortcut by a product of matrices, which loses digits where points are close.
const EXACT: i64 = 2;

/// The photos that were learned from, as the means of their classes and one covariance that all classes share.
#[derive(Debug)]
pub struct Distance {
    /// `[features, features]`: what turns a vector into one whose Euclidean lengths are Mahalanobis distances.
    pub whitening: Tensor,
    /// `[classes, features]`: the means of the classes after that.
    pub means: Tensor,
}

impl Distance {
    /// The squared Mahalanobis distance to the nearest class: vectors `[N, features]` -> `[N]`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn nearest(&self, vectors: &Tensor) -> Result<Tensor, TchError> {
        let white = vectors.f_matmul(&self.whitening.f_tr()?)?;
        Tensor::f_cdist(&white, &self.means, 2.0, EXACT)?.f_square()?.f_amin([1_i64].as_slice(), false)
    }
}

/// What all views show of a photo together: the mean of the centred features of each, as vectors of length 1.
pub(crate) fn joined(views: &[Tensor]) -> Result<Tensor, TchError> {
    unit(&mean(views)?)
}

/// The mean over the views of `[N, ...]`.
pub(crate) fn mean(views: &[Tensor]) -> Result<Tensor, TchError> {
    let mut sum = views[0].copy();
    for view in &views[1..] {
        sum = sum.f_add(view)?;
    }
    sum.f_div_scalar(views.len() as f64)
}

/// How unlike photos are, `[N]`: above 0 if they resemble no class. From the energy of the mean logits and from [`Distance::nearest`],
/// in standard deviations of either.
pub(crate) fn score(scale: &UnlikeScale, energy: &Tensor, distance: &Tensor) -> Result<Tensor, TchError> {
    standardised(scale.distance, distance)?.f_sub(&standardised(scale.energy, energy)?)?.f_add_scalar(scale.threshold)
}

fn standardised(spread: Spread, values: &Tensor) -> Result<Tensor, TchError> {
    values.f_sub_scalar(spread.mean)?.f_div_scalar(spread.deviation)
}
