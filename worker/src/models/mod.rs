//! The networks: backbones with their original weight names, their heads, and how weights are loaded and saved.
//!
//! Tensors are `[N, C, H, W]` and lie in memory as NHWC. Every parameter has its name, its group and its role, so
//! that training can freeze, decay and save without knowing the network.

mod backbone;
mod bundle;
mod classifier;
mod efficientnet;
pub(crate) mod features;
#[cfg(test)]
pub(crate) mod formula;
mod head;
mod layers;
mod resnet;
mod square;
pub(crate) mod unlike;
mod weights;

pub(crate) use backbone::Architecture;
pub use bundle::{HeadConfig, ModelConfig};
pub use classifier::{Classifier, ModelError};
pub use layers::{Buffer, Mode, Parameter, Role};
pub use square::{Framing, Square};
pub use unlike::Distance;
pub(crate) use weights::HostTensors;
pub use weights::{StateDict, WeightsError};
