//! The backbones we know: what they are called, what they expect, how their parameters are grouped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};

use super::efficientnet::EfficientNetLite0;
use super::layers::{Builder, Mode};
use super::resnet::ResNet;

/// A network without its pooling and classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Backbone {
    /// EfficientNet-Lite0: 3.4 M parameters, 0.4 GMAC at 224 pixels. The default of a machine without a GPU.
    #[serde(rename = "efficientnet_lite0")]
    EfficientNetLite0,
    /// ResNet-18, 11.2 M parameters, 1.8 GMAC.
    #[serde(rename = "resnet18")]
    ResNet18,
    /// ResNet-34, 21.3 M parameters, 3.7 GMAC.
    #[serde(rename = "resnet34")]
    ResNet34,
    /// ResNet-50, 23.5 M parameters, 4.1 GMAC.
    #[serde(rename = "resnet50")]
    ResNet50,
}

/// The name is not one of [`Backbone::ALL`].
#[derive(Debug, thiserror::Error)]
#[error("unknown backbone {name:?}; known are efficientnet_lite0, resnet18, resnet34, resnet50")]
pub struct UnknownBackbone {
    /// What was asked for.
    pub name: String,
}

impl Backbone {
    /// Every backbone, smallest first.
    pub const ALL: [Self; 4] = [Self::EfficientNetLite0, Self::ResNet18, Self::ResNet34, Self::ResNet50];

    /// The name on the command line and in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EfficientNetLite0 => "efficientnet_lite0",
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
        }
    }

    /// Channels of the last feature map.
    #[must_use]
    pub fn features(self) -> i64 {
        match self {
            Self::EfficientNetLite0 => 1280,
            Self::ResNet18 | Self::ResNet34 => 512,
            Self::ResNet50 => 2048,
        }
    }

    /// What is subtracted from each of R, G, B (0..1) before the first convolution.
    #[must_use]
    pub fn mean(self) -> [f32; 3] {
        match self {
            Self::EfficientNetLite0 => [0.5; 3],
            Self::ResNet18 | Self::ResNet34 | Self::ResNet50 => [0.485, 0.456, 0.406],
        }
    }

    /// What each of R, G, B is then divided by.
    #[must_use]
    pub fn std(self) -> [f32; 3] {
        match self {
            Self::EfficientNetLite0 => [0.5; 3],
            Self::ResNet18 | Self::ResNet34 | Self::ResNet50 => [0.229, 0.224, 0.225],
        }
    }

    /// Number of parameter groups with their own learning rate, the head's included; the head is the last.
    #[must_use]
    pub fn groups(self) -> usize {
        match self {
            // fastai has no cut for a timm EfficientNet and trains the body as one.
            Self::EfficientNetLite0 => 2,
            Self::ResNet18 | Self::ResNet34 | Self::ResNet50 => 3,
        }
    }

    /// The group of the body's parameter `name`.
    pub(super) fn group_of(self, name: &str) -> usize {
        match self {
            Self::EfficientNetLite0 => 0,
            Self::ResNet18 | Self::ResNet34 | Self::ResNet50 => {
                usize::from(name.starts_with("layer3.") || name.starts_with("layer4."))
            }
        }
    }

    /// The public repository that carries ImageNet weights under our names, if there is one.
    #[must_use]
    pub fn hub_repository(self) -> Option<&'static str> {
        match self {
            Self::EfficientNetLite0 => None,
            Self::ResNet18 => Some("timm/resnet18.a1_in1k"),
            Self::ResNet34 => Some("timm/resnet34.a1_in1k"),
            Self::ResNet50 => Some("timm/resnet50.a1_in1k"),
        }
    }

    /// Names of the ImageNet classifier in published weights, which a fine-tuned model leaves out.
    pub(super) fn classifier_prefix(self) -> &'static str {
        match self {
            Self::EfficientNetLite0 => "_fc.",
            Self::ResNet18 | Self::ResNet34 | Self::ResNet50 => "fc.",
        }
    }
}

impl fmt::Display for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backbone {
    type Err = UnknownBackbone;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|backbone| backbone.name() == name)
            .ok_or_else(|| UnknownBackbone { name: name.to_owned() })
    }
}

/// A backbone's layers.
#[derive(Debug)]
pub(super) enum Body {
    EfficientNet(EfficientNetLite0),
    ResNet(ResNet),
}

impl Body {
    pub(super) fn new(backbone: Backbone, builder: &mut Builder) -> Result<Self, TchError> {
        Ok(match backbone {
            Backbone::EfficientNetLite0 => Self::EfficientNet(EfficientNetLite0::new(builder)?),
            Backbone::ResNet18 => Self::ResNet(ResNet::basic(builder, [2, 2, 2, 2])?),
            Backbone::ResNet34 => Self::ResNet(ResNet::basic(builder, [3, 4, 6, 3])?),
            Backbone::ResNet50 => Self::ResNet(ResNet::bottleneck(builder, [3, 4, 6, 3])?),
        })
    }

    /// `[N, 3, H, W]` normalised -> `[N, features, H/32, W/32]`.
    pub(super) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        match self {
            Self::EfficientNet(network) => network.forward(images, mode),
            Self::ResNet(network) => network.forward(images, mode),
        }
    }
}
