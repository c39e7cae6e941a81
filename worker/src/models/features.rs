//! The features that a regression sees of a photo.

use tch::{Kind, TchError, Tensor};

/// Lengths below this count as this, so that features of nothing but zeros stay zeros.
const SHORTEST: f64 = 1e-12;

/// The mean of each feature over all positions: `[N, features, H, W]` -> `[N, features]` f32.
pub(crate) fn pooled(features: &Tensor) -> Result<Tensor, TchError> {
    // An average of 49 bf16 values would lose three digits for nothing.
    features.f_to_kind(Kind::Float)?.f_mean_dim([2_i64, 3].as_slice(), false, Kind::Float)
}

/// The square root of pooled features, which are never negative, as a vector of length 1: `[N, features]` -> the same.
pub(crate) fn direction(pooled: &Tensor) -> Result<Tensor, TchError> {
    unit(&pooled.f_clamp_min(0.0)?.f_sqrt()?)
}

/// Directions with the mean of the training photos' directions taken off, as vectors of length 1 again: `[N, features]` -> the same.
pub(crate) fn centred(directions: &Tensor, mean: &Tensor) -> Result<Tensor, TchError> {
    unit(&directions.f_sub(mean)?)
}

/// The rows, each as a vector of length 1.
pub(crate) fn unit(rows: &Tensor) -> Result<Tensor, TchError> {
    let lengths = rows.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?.f_clamp_min(SHORTEST)?;
    rows.f_div(&lengths)
}
