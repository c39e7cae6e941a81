//! What the worker knows of each backbone: what it expects, how its parameters are grouped, where its weights are.

use sortinghat_proto::Backbone;
use tch::{TchError, Tensor};

use super::efficientnet::EfficientNetLite0;
use super::layers::{Builder, Mode};
use super::resnet::ResNet;

/// The numbers and names of a network without its pooling and classifier.
pub(crate) trait Architecture: Copy {
    /// Channels of the last feature map.
    fn features(self) -> i64;

    /// What is subtracted from each of R, G, B (0..1) before the first convolution.
    fn mean(self) -> [f32; 3];

    /// What each of R, G, B is then divided by.
    fn std(self) -> [f32; 3];

    /// Number of parameter groups with their own learning rate, the head's included; the head is the last.
    fn groups(self) -> usize;

    /// The group of the body's parameter `name`.
    fn group_of(self, name: &str) -> usize;

    /// The public repository that carries ImageNet weights under our names, if there is one.
    fn hub_repository(self) -> Option<&'static str>;

    /// Whether predictions in bf16 are as good as in f32.
    ///
    /// In bf16 the last feature map, averaged over positions, is off by 0.8 to 1% in the resnets, which run about three times as
    /// fast in bf16 on a CPU. In EfficientNet-Lite0 it is off by 4%, and bf16 makes that network hardly faster.
    fn tolerates_bf16(self) -> bool;

    /// Names of the ImageNet classifier in published weights, which a fine-tuned model leaves out.
    fn classifier_prefix(self) -> &'static str;
}

impl Architecture for Backbone {
    fn features(self) -> i64 {
        match self {
            Self::EfficientnetLite0 => 1280,
            Self::Resnet18 | Self::Resnet34 => 512,
            Self::Resnet50 => 2048,
        }
    }

    fn mean(self) -> [f32; 3] {
        match self {
            Self::EfficientnetLite0 => [0.5; 3],
            Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => [0.485, 0.456, 0.406],
        }
    }

    fn std(self) -> [f32; 3] {
        match self {
            Self::EfficientnetLite0 => [0.5; 3],
            Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => [0.229, 0.224, 0.225],
        }
    }

    fn groups(self) -> usize {
        match self {
            // fastai has no cut for a timm EfficientNet and trains the body as one.
            Self::EfficientnetLite0 => 2,
            Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => 3,
        }
    }

    fn group_of(self, name: &str) -> usize {
        match self {
            Self::EfficientnetLite0 => 0,
            Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => {
                usize::from(name.starts_with("layer3.") || name.starts_with("layer4."))
            }
        }
    }

    fn hub_repository(self) -> Option<&'static str> {
        match self {
            Self::EfficientnetLite0 => None,
            Self::Resnet18 => Some("timm/resnet18.a1_in1k"),
            Self::Resnet34 => Some("timm/resnet34.a1_in1k"),
            Self::Resnet50 => Some("timm/resnet50.a1_in1k"),
        }
    }

    fn tolerates_bf16(self) -> bool {
        match self {
            Self::EfficientnetLite0 => false,
            Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => true,
        }
    }

    fn classifier_prefix(self) -> &'static str {
        match self {
            Self::EfficientnetLite0 => "_fc.",
            Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => "fc.",
        }
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
            Backbone::EfficientnetLite0 => Self::EfficientNet(EfficientNetLite0::new(builder)?),
            Backbone::Resnet18 => Self::ResNet(ResNet::basic(builder, [2, 2, 2, 2])?),
            Backbone::Resnet34 => Self::ResNet(ResNet::basic(builder, [3, 4, 6, 3])?),
            Backbone::Resnet50 => Self::ResNet(ResNet::bottleneck(builder, [3, 4, 6, 3])?),
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
