//! A backbone with a head: the model that is trained, saved and asked.

use std::f64::consts::SQRT_2;

use sortinghat_proto::{Backbone, manifest::UnlikeScale};
use tch::{Device, Kind, TchError, Tensor, no_grad};

use super::backbone::{Architecture, Body};
use super::bundle::{BundleError, HeadConfig, ModelConfig};
use super::features::pooled;
use super::head::{FastaiHead, Head, RegressionHead, Unlike};
use super::layers::{Buffer, Builder, Mode, Parameter, Role, channels_last};
use super::square::Square;
use super::unlike::Distance;
use super::weights::{StateDict, WeightsError};
use crate::aten::{AtenError, Autocast};
use crate::device::Precision;
use crate::randomness::{Draws, Purpose};

const BODY: &str = "body.";
const HEAD: &str = "head.";

/// A model could not be built or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration describes no model we can build.
    #[error(transparent)]
    Config(#[from] BundleError),
    /// The weights do not belong to the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// libtorch failed, most likely for want of memory.
    #[error("failed to build the network: {0}")]
    Tch(#[from] TchError),
}

/// A network that gives one logit for each class.
#[derive(Debug)]
pub struct Classifier {
    config: ModelConfig,
    device: Device,
    body: Body,
    head: Head,
    parameters: Vec<Parameter>,
    buffers: Vec<Buffer>,
    /// Whether images lie as NHWC, as the weights then do.
    nhwc: bool,
    /// `[1, 3, 1, 1]`: what turns 0..255 into the network's input by `pixels * scale + shift`.
    scale: Tensor,
    shift: Tensor,
}

impl Classifier {
    /// A network with random weights that are a pure function of `seed` and each parameter's name.
    ///
    /// # Errors
    /// When the configuration is invalid or memory runs out.
    pub fn new(config: ModelConfig, device: Device, seed: u64) -> Result<Self, ModelError> {
        let classifier = Self::uninitialised(config, device)?;
        for parameter in &classifier.parameters {
            initialise(parameter, seed)?;
        }
        Ok(classifier)
    }

    /// A saved model.
    ///
    /// # Errors
    /// When the configuration is invalid, a weight is missing, unexpected or of another shape, or memory runs out.
    pub fn from_bundle(config: ModelConfig, weights: &[u8], device: Device) -> Result<Self, ModelError> {
        let mut classifier = Self::uninitialised(config, device)?;
        classifier.load(&StateDict::from_safetensors(weights)?)?;
        Ok(classifier)
    }

    fn uninitialised(config: ModelConfig, device: Device) -> Result<Self, ModelError> {
        config.check()?;
        let backbone = config.backbone;
        let mut builder = Builder::new(device);
        builder.enter(BODY, move |name| backbone.group_of(name));
        let body = Body::new(backbone, &mut builder)?;
        builder.enter(HEAD, move |_| backbone.groups() - 1);
        let classes = i64::try_from(config.classes.len()).expect("fewer classes than i64::MAX fit in memory");
        let features = backbone.features();
        let head = match config.head {
            HeadConfig::Fastai { dropout } => Head::Fastai(FastaiHead::new(&mut builder, features, classes, dropout)?),
            HeadConfig::Regression { temperature, unlike } => {
                Head::Regression(RegressionHead::new(&mut builder, features, classes, temperature, unlike)?)
            }
        };
        let (scale, shift) = normalisation(&config, Kind::Float, device)?;
        let Builder { parameters, buffers, .. } = builder;
        Ok(Self { config, device, body, head, parameters, buffers, nhwc: true, scale, shift })
    }

    /// Copies published weights into the body; the file's own classifier is left out.
    ///
    /// # Errors
    /// When a tensor is missing, unexpected or of another shape; the body may then be partly overwritten.
    pub fn load_backbone(&mut self, weights: &StateDict) -> Result<(), WeightsError> {
        let skip = self.config.backbone.classifier_prefix();
        let bare = |name: &str| name.strip_prefix(BODY).map(str::to_owned);
        weights.copy_into(self.state().filter_map(|(name, tensor)| Some((bare(name)?, tensor))), |name| {
            name.starts_with(skip)
        })
    }

    /// Copies a state saved by [`Self::to_safetensors`] into the network.
    ///
    /// # Errors
    /// As [`Self::load_backbone`].
    pub fn load(&mut self, weights: &StateDict) -> Result<(), WeightsError> {
        weights.copy_into(self.state().map(|(name, tensor)| (name.to_owned(), tensor)), |_| false)
    }

    /// Every parameter and running statistic by name, in the network's order.
    pub fn state(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let parameters = self.parameters.iter().map(|parameter| (parameter.name.as_str(), &parameter.tensor));
        parameters.chain(self.buffers.iter().map(|buffer| (buffer.name.as_str(), &buffer.tensor)))
    }

    /// Copies of the running statistics, for [`Self::set_statistics`].
    ///
    /// # Errors
    /// When memory runs out.
    pub(crate) fn statistics(&self) -> Result<Vec<Tensor>, TchError> {
        self.buffers.iter().map(|buffer| buffer.tensor.f_detach_copy()).collect()
    }

    /// Puts the running statistics back to what they were.
    ///
    /// # Errors
    /// When they are another network's.
    pub(crate) fn set_statistics(&self, statistics: &[Tensor]) -> Result<(), TchError> {
        let mut pairs = self.buffers.iter().zip(statistics);
        pairs.try_for_each(|(buffer, copy)| no_grad(|| buffer.tensor.shallow_clone().f_copy_(copy)))
    }

    /// The whole model as a safetensors file.
    ///
    /// # Errors
    /// When a tensor cannot be copied to the host.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, WeightsError> {
        StateDict::serialize(self.state())
    }

    /// What the model is.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The backbone.
    #[must_use]
    pub fn backbone(&self) -> Backbone {
        self.config.backbone
    }

    /// Where its tensors live.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Every trainable tensor, body first.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// From here on, keeps all numbers in f64 and computes in f64. That is many times slower, and so exact that a comparison with a
    /// reference shows every difference beyond rounding.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn to_double(&mut self) -> Result<(), TchError> {
        let parameters = self.parameters.iter().map(|parameter| &parameter.tensor);
        for tensor in parameters.chain(self.buffers.iter().map(|buffer| &buffer.tensor)) {
            // The layers share these tensors: what changes is their data, not which tensor it is.
            tensor.shallow_clone().f_set_data(&tensor.detach().f_to_kind(Kind::Double)?)?;
        }
        (self.scale, self.shift) = normalisation(&self.config, Kind::Double, self.device)?;
        Ok(())
    }

    /// From here on, lays weights and images out as NCHW, which is PyTorch's default. That is slower; our speed is measured against
    /// it.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn to_nchw(&mut self) -> Result<(), TchError> {
        for Parameter { tensor, .. } in &self.parameters {
            tensor.shallow_clone().f_set_data(&tensor.detach().f_contiguous()?)?;
        }
        self.nhwc = false;
        Ok(())
    }

    /// Trains only the head and, as fastai does, every batch normalisation.
    pub fn freeze(&self) {
        let head = self.backbone().groups() - 1;
        for parameter in &self.parameters {
            let trains = parameter.group == head || parameter.role == Role::Norm;
            let _ = parameter.tensor.set_requires_grad(trains);
        }
    }

    /// Trains everything.
    pub fn unfreeze(&self) {
        for parameter in &self.parameters {
            let _ = parameter.tensor.set_requires_grad(true);
        }
    }

    /// Pixels `[N, 3, H, W]` in 0..1 -> the network's normalised input.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        (images.f_mul(&self.scale)?).f_add_(&self.shift)
    }

    /// Normalised images `[N, 3, H, W]` f32 -> logits `[N, classes]` f32.
    ///
    /// With [`Precision::Bf16`] the body's convolutions run in bf16; the head always runs in f32.
    ///
    /// # Errors
    /// When memory runs out or the images have another shape.
    pub fn forward(&self, images: &Tensor, mode: Mode, precision: Precision) -> Result<Tensor, TchError> {
        self.head.forward(&self.features(images, mode, precision)?, mode)
    }

    /// Logits as [`Self::forward`] in evaluation, and what [`Self::unlike`] asks of each view: `[N, classes + features]` f32. `None`
    /// if the model cannot tell which photos resemble none of its classes.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with_evidence(
        &self,
        images: &Tensor,
        precision: Precision,
    ) -> Result<(Tensor, Option<Tensor>), TchError> {
        self.head.forward_with_evidence(&self.features(images, Mode::Eval, precision)?)
    }

    /// How unlike photos are, `[N]`, by the evidence of each of their views: above 0 if they resemble none of the classes. `None` if the model
    /// cannot tell.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn unlike(&self, views: &[Tensor]) -> Result<Option<Tensor>, TchError> {
        let Head::Regression(head) = &self.head else { return Ok(None) };
        head.unlike(views)
    }

    /// The body alone: normalised images -> feature maps `[N, features, H / 32, W / 32]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn features(&self, images: &Tensor, mode: Mode, precision: Precision) -> Result<Tensor, TchError> {
        let images = self.lay_out(images)?;
        match precision {
            Precision::F32 => self.body.forward(&images, mode),
            Precision::Bf16 => {
                let _autocast = Autocast::bf16(self.device).map_err(tch_error)?;
                self.body.forward(&images, mode)
            }
        }
    }

    /// The features of each image, pooled over all positions: normalised images -> `[N, features]` f32.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn pooled_features(&self, images: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
        pooled(&self.features(images, Mode::Eval, precision)?)
    }

    /// Makes a fitted regression the head of this network, which was built for one. The regression has a mean `[features]`, a weight
    /// `[classes, features]` and a bias `[classes]`.
    ///
    /// # Errors
    /// When a tensor has another shape, or memory runs out.
    ///
    /// # Panics
    /// When the network was built with another head.
    pub fn set_regression(
        &mut self,
        (mean, weight, bias): (&Tensor, &Tensor, &Tensor),
        temperature: f64,
    ) -> Result<(), TchError> {
        let Head::Regression(head) = &mut self.head else { panic!("the network was built for a regression") };
        head.set(mean, weight, bias, temperature)?;
        self.config.head = HeadConfig::Regression { temperature, unlike: None };
        Ok(())
    }

    /// From here on, sees these squares of each photo.
    pub fn set_squares(&mut self, squares: Vec<Square>) {
        self.config.squares = squares;
    }

    /// From here on, the model tells photos that resemble none of its classes, by what was fitted with its regression.
    ///
    /// # Errors
    /// When a tensor has another shape, or memory runs out.
    ///
    /// # Panics
    /// When the network was built with another head, or can tell already.
    pub fn set_unlike(&mut self, fitted: &Distance, scale: UnlikeScale) -> Result<(), TchError> {
        let (Head::Regression(head), HeadConfig::Regression { temperature, unlike: None }) =
            (&mut self.head, self.config.head)
        else {
            panic!("the network was built for a regression without a way to tell unlike photos");
        };
        let (classes, features) = fitted.means.size2()?;
        let mut builder = Builder::new(self.device);
        builder.enter(HEAD, |_| 0);
        head.set_unlike(Unlike::new(&mut builder, features, classes, scale)?, fitted)?;
        self.buffers.extend(builder.buffers);
        self.config.head = HeadConfig::Regression { temperature, unlike: Some(scale) };
        Ok(())
    }

    fn lay_out(&self, images: &Tensor) -> Result<Tensor, TchError> {
        if self.nhwc { channels_last(images) } else { images.f_contiguous() }
    }
}

fn tch_error(error: AtenError) -> TchError {
    TchError::Torch(error.to_string())
}

fn normalisation(config: &ModelConfig, kind: Kind, device: Device) -> Result<(Tensor, Tensor), TchError> {
    let channel = |value: &dyn Fn(f64, f64) -> f64| {
        let values = config.mean.iter().zip(config.std).map(|(&mean, std)| value(mean.into(), std.into()));
        Tensor::from_slice(&values.collect::<Vec<_>>()).f_view([1, 3, 1, 1])?.f_to_kind(kind)?.f_to_device(device)
    };
    Ok((channel(&|_, std| 1.0 / std)?, channel(&|mean, std| -mean / std)?))
}

/// Kaiming normal: fan-out for convolutions (as torchvision), fan-in for the head (as fastai). Norms: 1, and 0 or 1e-3.
fn initialise(parameter: &Parameter, seed: u64) -> Result<(), TchError> {
    let shape = parameter.tensor.size();
    let mut target = parameter.tensor.shallow_clone();
    let values = match (shape.as_slice(), parameter.role) {
        (_, Role::Norm) if parameter.name.ends_with(".bias") && parameter.name.starts_with(HEAD) => {
            return no_grad(|| target.f_fill_(1e-3).map(drop));
        }
        // The parameter was created as 1 or 0.
        (_, Role::Norm) => return Ok(()),
        (&[outputs, _, height, width], Role::Weight) => normals(parameter, seed, outputs * height * width),
        (&[_, inputs], Role::Weight) => normals(parameter, seed, inputs),
        (other, Role::Weight) => unreachable!("weights have two or four dimensions, not {other:?}"),
    };
    let values = Tensor::from_slice(&values).f_view(shape.as_slice())?.f_to_kind(Kind::Float)?;
    no_grad(|| target.f_copy_(&values))
}

fn normals(parameter: &Parameter, seed: u64, fan: i64) -> Vec<f32> {
    let std = SQRT_2 / (fan as f64).sqrt();
    let mut draws = Draws::named(seed, Purpose::Initialisation, &parameter.name);
    (0..parameter.tensor.numel()).map(|_| (std * draws.normal()) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classifier(backbone: Backbone, classes: usize) -> Classifier {
        let names = (0..classes).map(|class| format!("class {class:02}")).collect();
        Classifier::new(ModelConfig::new(backbone, names, 64), Device::Cpu, 1).unwrap()
    }

    fn count(classifier: &Classifier, group: usize) -> usize {
        classifier.parameters().iter().filter(|p| p.group == group).map(|p| p.tensor.numel()).sum()
    }

    #[test]
    fn parameter_groups_hold_what_fastai_puts_in_them() {
        let resnet = classifier(Backbone::Resnet34, 10);
        assert_eq!(count(&resnet, 2), 532_480, "fastai's head for 512 features and ten classes");
        assert_eq!(count(&resnet, 0) + count(&resnet, 1), 21_284_672, "torchvision's resnet34 without fc");
        let lite = classifier(Backbone::EfficientnetLite0, 8);
        assert_eq!((count(&lite, 0), count(&lite, 1)), (3_371_008, 1_320_960));
    }

    #[test]
    fn a_frozen_body_trains_its_batch_norms_and_nothing_else() {
        let classifier = classifier(Backbone::Resnet18, 2);
        classifier.freeze();
        for parameter in classifier.parameters() {
            let expected = parameter.name.starts_with(HEAD) || parameter.role == Role::Norm;
            assert_eq!(parameter.tensor.requires_grad(), expected, "{}", parameter.name);
        }
        classifier.unfreeze();
        assert!(classifier.parameters().iter().all(|parameter| parameter.tensor.requires_grad()));
    }

    #[test]
    fn a_saved_model_answers_as_before_and_the_same_seed_makes_the_same_model() {
        let first = classifier(Backbone::EfficientnetLite0, 3);
        let images = Tensor::rand([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let logits = |model: &Classifier| no_grad(|| model.forward(&images, Mode::Eval, Precision::F32)).unwrap();
        let saved = first.to_safetensors().unwrap();
        let second = Classifier::from_bundle(first.config().clone(), &saved, Device::Cpu).unwrap();
        assert_eq!(logits(&first), logits(&second));
        assert_eq!(saved, classifier(Backbone::EfficientnetLite0, 3).to_safetensors().unwrap());
    }

    #[test]
    fn features_stay_in_nhwc_from_the_first_layer_to_the_last() {
        for backbone in [Backbone::EfficientnetLite0, Backbone::Resnet18] {
            let classifier = classifier(backbone, 2);
            let features = {
                let images = Tensor::zeros([2, 3, 64, 64], (Kind::Float, Device::Cpu));
                classifier.features(&images, Mode::Eval, Precision::F32)
            };
            assert!(crate::aten::is_channels_last(&features.unwrap()).unwrap(), "{backbone}");
        }
    }
}
