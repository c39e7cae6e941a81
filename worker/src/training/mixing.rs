//! MixUp and CutMix: training on blends of two photos.

use sortinghat_proto::Mixing;
use tch::{TchError, Tensor};

use super::loss::{cross_entropy, cross_entropy_each};
use crate::randomness::Draws;

/// How the photos of one batch are blended.
#[derive(Debug, Clone, PartialEq)]
pub struct Blend {
    /// The photo that each photo is blended with.
    pub partners: Vec<usize>,
    /// How much of each loss belongs to the photo's own label.
    pub kept: Vec<f64>,
    /// CutMix's box; without it photos are summed.
    pub pasted: Option<PastedBox>,
}

/// A box in pixels; its ends are excluded.
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

    /// The share of a photo of `height` x `width` pixels that the box leaves, 0..1.
    #[must_use]
    pub fn kept(&self, height: i64, width: i64) -> f64 {
        let area = (self.right - self.left) * (self.bottom - self.top);
        1.0 - area as f64 / (height * width) as f64
    }
}

impl Blend {
    /// Draws the blend of a batch of `count` photos of `height` x `width` pixels.
    pub fn draw(mixing: Mixing, draws: &mut Draws, count: usize, height: i64, width: i64) -> Self {
        let partners = draws.permutation(count);
        match mixing {
            Mixing::MixUp { alpha } => {
                let kept = (0..count).map(|_| draws.symmetric_beta(alpha)).map(|lambda| lambda.max(1.0 - lambda));
                Self { partners, kept: kept.collect(), pasted: None }
            }
            Mixing::CutMix { alpha } => {
                let lambda = draws.symmetric_beta(alpha);
                let mut pixel = |extent: i64| draws.below(extent as usize) as i64;
                let centre = (pixel(width), pixel(height));
                let pasted = PastedBox::around(centre, lambda, height, width);
                Self { partners, kept: vec![pasted.kept(height, width); count], pasted: Some(pasted) }
            }
        }
    }

    fn partners(&self, like: &Tensor) -> Result<Tensor, TchError> {
        let partners = self.partners.iter().map(|&index| index as i64).collect::<Vec<_>>();
        Tensor::from_slice(&partners).f_to_device(like.device())
    }

    /// Blends normalised photos `[N, 3, H, W]`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn images(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let others = images.f_index_select(0, &self.partners(images)?)?;
        match self.pasted {
            None => {
                let kept = Tensor::from_slice(&self.kept).f_to_device(images.device())?.f_to_kind(images.kind())?;
                others.f_lerp_tensor(images, &kept.f_view([-1, 1, 1, 1])?)
            }
            Some(PastedBox { left, right, top, bottom }) => {
                let cut = |tensor: &Tensor| tensor.f_narrow(2, top, bottom - top)?.f_narrow(3, left, right - left);
                let blended = images.f_detach_copy()?;
                cut(&blended)?.f_copy_(&cut(&others)?)?;
                Ok(blended)
            }
        }
    }

    /// The targets of the blended photos, whose own `labels` are `[N]` i64.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn targets(&self, labels: Tensor) -> Result<Targets, TchError> {
        let partners = labels.f_index_select(0, &self.partners(&labels)?)?;
        let kept = Tensor::from_slice(&self.kept).f_to_device(labels.device())?;
        Ok(Targets { labels, partners: Some(Partners { labels: partners, kept }) })
    }
}

/// The targets of the photos of a batch: the classes that they are to be recognised as.
#[derive(Debug)]
pub struct Targets {
    /// `[N]` i64.
    labels: Tensor,
    partners: Option<Partners>,
}

/// The other half of blended photos.
#[derive(Debug)]
struct Partners {
    /// `[N]` i64.
    labels: Tensor,
    /// How much each photo keeps of itself, `[N]` f64.
    kept: Tensor,
}

impl Targets {
    /// Photos that are not blended, with `labels`, `[N]` i64.
    #[must_use]
    pub fn plain(labels: Tensor) -> Self {
        Self { labels, partners: None }
    }

    /// The targets of `count` photos from `start` on.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn part(&self, start: i64, count: i64) -> Result<Self, TchError> {
        let part = |tensor: &Tensor| tensor.f_narrow(0, start, count);
        let partners = self.partners.as_ref().map(|partners| {
            Ok::<_, TchError>(Partners { labels: part(&partners.labels)?, kept: part(&partners.kept)? })
        });
        Ok(Self { labels: part(&self.labels)?, partners: partners.transpose()? })
    }

    /// Mean loss of `logits`, `[N, C]`; of blended photos the weighted mean of both labels' losses.
    ///
    /// # Errors
    /// When shapes differ.
    pub fn loss(&self, logits: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
        let Some(partners) = &self.partners else { return cross_entropy(logits, &self.labels, smoothing) };
        let own = cross_entropy_each(logits, &self.labels, smoothing)?;
        let other = cross_entropy_each(logits, &partners.labels, smoothing)?;
        other.f_lerp_tensor(&own, &partners.kept.f_to_kind(own.kind())?)?.f_mean(own.kind())
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::randomness::Purpose;

    #[test]
    fn a_photo_always_keeps_most_of_itself_in_mixup() {
        let mut draws = Draws::named(1, Purpose::Mixing, "mixup");
        let blend = Blend::draw(Mixing::MixUp { alpha: 0.4 }, &mut draws, 100, 8, 8);
        assert!(blend.kept.iter().all(|kept| (0.5..=1.0).contains(kept)));
        assert!(blend.kept.iter().any(|&kept| kept != blend.kept[0]), "one weight for each photo");
    }

    #[test]
    fn the_box_of_cutmix_weighs_what_it_covers() {
        let mut draws = Draws::named(2, Purpose::Mixing, "cutmix");
        for _ in 0..50 {
            let blend = Blend::draw(Mixing::CutMix { alpha: 1.0 }, &mut draws, 3, 10, 20);
            let photos =
                Tensor::arange(3, (Kind::Float, tch::Device::Cpu)).view([3, 1, 1, 1]).expand([3, 3, 10, 20], true);
            let mixed = blend.images(&photos.copy()).unwrap();
            for (i, (&partner, kept)) in blend.partners.iter().zip(&blend.kept).enumerate() {
                let mean = mixed.get(i as i64).mean(Kind::Float).double_value(&[]);
                assert!((mean - (kept * i as f64 + (1.0 - kept) * partner as f64)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_loss_of_a_blended_batch_is_that_of_its_parts() {
        let logits = Tensor::randn([4, 3], (Kind::Float, tch::Device::Cpu));
        let blend = Blend { partners: vec![3, 2, 0, 1], kept: vec![0.9, 0.5, 0.7, 1.0], pasted: None };
        let targets = blend.targets(Tensor::from_slice(&[0_i64, 2, 1, 1])).unwrap();
        let whole = targets.loss(&logits, 0.1).unwrap().double_value(&[]);
        let part = |start| {
            let targets = targets.part(start, 2).unwrap();
            targets.loss(&logits.narrow(0, start, 2), 0.1).unwrap().double_value(&[])
        };
        assert!((whole - (part(0) + part(2)) / 2.0).abs() < 1e-6);
    }
}
