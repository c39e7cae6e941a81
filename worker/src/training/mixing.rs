//! MixUp and CutMix: training on blends of two photos.

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::loss::cross_entropy_each;
use super::randomness::Draws;

/// How photos of a batch are blended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Mixing {
    /// Not at all.
    None,
    /// A weighted sum of two photos; each keeps `max(l, 1 - l)` with l from Beta(alpha, alpha). fastai: 0.4.
    MixUp {
        /// In (0, 1].
        alpha: f64,
    },
    /// A box of one photo pasted into another, its area from Beta(alpha, alpha), one a batch. fastai: 1.
    CutMix {
        /// In (0, 1].
        alpha: f64,
    },
}

/// A drawn blend.
#[derive(Debug, Clone, PartialEq)]
pub struct Blend {
    /// The photo that each photo is blended with.
    pub partners: Vec<usize>,
    /// How much of each loss belongs to the photo's own label.
    pub kept: Vec<f64>,
    /// CutMix's box; without it photos are summed.
    pub pasted: Option<PastedBox>,
}

/// Pixels, the ends excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastedBox {
    /// First column.
    pub left: i64,
    /// One past the last column.
    pub right: i64,
    /// First row.
    pub top: i64,
    /// One past the last row.
    pub bottom: i64,
}

impl PastedBox {
    /// fastai's box: `sqrt(1 - lambda)` of each side around a centre, cut at the borders.
    ///
    /// `centre` is (column, row); halves round to even, as PyTorch rounds.
    #[must_use]
    pub fn around(centre: (i64, i64), lambda: f64, height: i64, width: i64) -> Self {
        let ratio = (1.0 - lambda).sqrt();
        let span = |middle: i64, extent: i64| {
            let half = (extent as f64 * ratio).round_ties_even() as i64 / 2;
            ((middle - half).clamp(0, extent), (middle + half).clamp(0, extent))
        };
        let ((left, right), (top, bottom)) = (span(centre.0, width), span(centre.1, height));
        Self { left, right, top, bottom }
    }

    fn area(&self) -> i64 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

impl Mixing {
    /// Draws the blend of a batch of `count` photos of `height` x `width` pixels; `None` where nothing is mixed.
    pub fn draw(&self, draws: &mut Draws, count: usize, height: i64, width: i64) -> Option<Blend> {
        let partners = draws.permutation(count);
        match *self {
            Self::None => None,
            Self::MixUp { alpha } => {
                let kept = (0..count).map(|_| draws.symmetric_beta(alpha)).map(|lambda| lambda.max(1.0 - lambda));
                Some(Blend { partners, kept: kept.collect(), pasted: None })
            }
            Self::CutMix { alpha } => {
                let lambda = draws.symmetric_beta(alpha);
                let mut pixel = |extent: i64| draws.below(extent as usize) as i64;
                let centre = (pixel(width), pixel(height));
                let pasted = PastedBox::around(centre, lambda, height, width);
                let kept = 1.0 - pasted.area() as f64 / (height * width) as f64;
                Some(Blend { partners, kept: vec![kept; count], pasted: Some(pasted) })
            }
        }
    }
}

impl Blend {
    fn partners(&self, like: &Tensor) -> Tensor {
        let partners = self.partners.iter().map(|&index| index as i64).collect::<Vec<_>>();
        Tensor::from_slice(&partners).to_device(like.device())
    }

    fn kept(&self, like: &Tensor) -> Tensor {
        Tensor::from_slice(&self.kept).to_kind(Kind::Float).to_device(like.device())
    }

    /// Blends normalised photos `[N, 3, H, W]`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn images(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let others = images.f_index_select(0, &self.partners(images))?;
        match self.pasted {
            None => others.f_lerp_tensor(images, &self.kept(images).f_view([-1, 1, 1, 1])?),
            Some(PastedBox { left, right, top, bottom }) => {
                let cut = |tensor: &Tensor| tensor.f_narrow(2, top, bottom - top)?.f_narrow(3, left, right - left);
                let blended = images.f_detach_copy()?;
                cut(&blended)?.f_copy_(&cut(&others)?)?;
                Ok(blended)
            }
        }
    }

    /// The mean of both labels' losses, weighted.
    ///
    /// # Errors
    /// When shapes differ.
    pub fn loss(&self, logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
        let own = cross_entropy_each(logits, targets, smoothing)?;
        let other = cross_entropy_each(logits, &targets.f_index_select(0, &self.partners(targets))?, smoothing)?;
        other.f_lerp_tensor(&own, &self.kept(logits))?.f_mean(Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::randomness::Purpose;

    #[test]
    fn a_photo_always_keeps_most_of_itself_in_mixup() {
        let mut draws = Draws::named(1, Purpose::Mixing, "mixup");
        let blend = Mixing::MixUp { alpha: 0.4 }.draw(&mut draws, 100, 8, 8).unwrap();
        assert!(blend.kept.iter().all(|kept| (0.5..=1.0).contains(kept)));
        assert!(blend.kept.iter().any(|&kept| kept != blend.kept[0]), "one weight a photo");
    }

    #[test]
    fn the_box_of_cutmix_weighs_what_it_covers() {
        let mut draws = Draws::named(2, Purpose::Mixing, "cutmix");
        for _ in 0..50 {
            let blend = Mixing::CutMix { alpha: 1.0 }.draw(&mut draws, 3, 10, 20).unwrap();
            let photos =
                Tensor::arange(3, (Kind::Float, tch::Device::Cpu)).view([3, 1, 1, 1]).expand([3, 3, 10, 20], true);
            let mixed = blend.images(&photos.copy()).unwrap();
            for (i, (&partner, kept)) in blend.partners.iter().zip(&blend.kept).enumerate() {
                let mean = mixed.get(i as i64).mean(Kind::Float).double_value(&[]);
                assert!((mean - (kept * i as f64 + (1.0 - kept) * partner as f64)).abs() < 1e-5);
            }
        }
    }
}
