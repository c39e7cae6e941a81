//! The head of a model whose network is not trained: a regression on pooled, centred features.

use sortinghat_proto::manifest::UnlikeScale;
use tch::{TchError, Tensor, no_grad};

use crate::models::{
    features::{centred, direction, pooled, unit},
    layers::Builder,
    unlike::{Distance, mean, score},
};

/// Scores are told in hundredths of a standard deviation. What lies below depends on how photos are divided into batches.
const STEPS: f64 = 100.0;

/// Average pooling -> direction -> centred -> linear -> divided by the temperature.
#[derive(Debug)]
pub(in crate::models) struct RegressionHead {
    /// `[features]`.
    mean: Tensor,
    /// `[classes, features]`.
    weight: Tensor,
    /// `[classes]`.
    bias: Tensor,
    temperature: f64,
    unlike: Option<Unlike>,
}

/// What tells photos that resemble none of the classes.
#[derive(Debug)]
pub(in crate::models) struct Unlike {
    distance: Distance,
    scale: UnlikeScale,
}

impl Unlike {
    /// One of zeros.
    pub(in crate::models) fn new(
        builder: &mut Builder,
        features: i64,
        classes: i64,
        scale: UnlikeScale,
    ) -> Result<Self, TchError> {
        let whitening = builder.fixed("unlike.whitening", &[features, features])?;
        Ok(Self {
            distance: Distance { whitening, means: builder.fixed("unlike.means", &[classes, features])? },
            scale,
        })
    }
}

impl RegressionHead {
    /// A head of zeros.
    pub(in crate::models) fn new(
        builder: &mut Builder,
        features: i64,
        classes: i64,
        temperature: f64,
        unlike: Option<UnlikeScale>,
    ) -> Result<Self, TchError> {
        let unlike = unlike.map(|scale| Unlike::new(builder, features, classes, scale)).transpose()?;
        Ok(Self {
            mean: builder.fixed("mean", &[features])?,
            weight: builder.fixed("weight", &[classes, features])?,
            bias: builder.fixed("bias", &[classes])?,
            temperature,
            unlike,
        })
    }

    /// Takes over a fitted regression: the mean `[features]`, the weight `[classes, features]` and the bias `[classes]`.
    pub(in crate::models) fn set(
        &mut self,
        mean: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        temperature: f64,
    ) -> Result<(), TchError> {
        for (own, fitted) in [(&self.mean, mean), (&self.weight, weight), (&self.bias, bias)] {
            no_grad(|| own.shallow_clone().f_copy_(fitted))?;
        }
        self.temperature = temperature;
        Ok(())
    }

    /// From here on, `unlike` tells photos that resemble none of the classes, as was fitted.
    pub(in crate::models) fn set_unlike(&mut self, unlike: Unlike, fitted: &Distance) -> Result<(), TchError> {
        let Distance { whitening, means } = &unlike.distance;
        for (own, fitted) in [(whitening, &fitted.whitening), (means, &fitted.means)] {
            no_grad(|| own.shallow_clone().f_copy_(fitted))?;
        }
        self.unlike = Some(unlike);
        Ok(())
    }

    /// `[N, features, H, W]` -> logits `[N, classes]` f32.
    pub(in crate::models) fn forward(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.logits(&self.centred(features)?)?.f_div_scalar(self.temperature)
    }

    /// The same, and what [`Self::unlike`] asks of a view, if the head can tell: `[N, classes + features]` f32.
    pub(in crate::models) fn forward_with_evidence(
        &self,
        features: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>), TchError> {
        let features = self.centred(features)?;
        let logits = self.logits(&features)?;
        let evidence = self.unlike.as_ref().map(|_| Tensor::f_cat(&[&logits, &features], 1)).transpose()?;
        Ok((logits.f_div_scalar(self.temperature)?, evidence))
    }

    /// How unlike photos are, by what each of their views gave: above 0 if they resemble no class. `None` if the head cannot tell.
    pub(in crate::models) fn unlike(&self, views: &[Tensor]) -> Result<Option<Tensor>, TchError> {
        let Some(Unlike { distance, scale }) = &self.unlike else { return Ok(None) };
        let (classes, features) = self.weight.size2()?;
        let mean = mean(views)?;
        let energy = mean.f_narrow(1, 0, classes)?.f_logsumexp(1, false)?;
        let distance = distance.nearest(&unit(&mean.f_narrow(1, classes, features)?)?)?;
        score(scale, &energy, &distance)?.f_mul_scalar(STEPS)?.f_round()?.f_div_scalar(STEPS).map(Some)
    }

    fn centred(&self, features: &Tensor) -> Result<Tensor, TchError> {
        centred(&direction(&pooled(features)?)?, &self.mean)
    }

    fn logits(&self, centred: &Tensor) -> Result<Tensor, TchError> {
        centred.f_linear(&self.weight, Some(&self.bias))
    }
}
