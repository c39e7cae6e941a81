//! Which precision a network predicts in.

use sortinghat_proto::{self as proto, Backbone};

use crate::{
    device::{Compute, Precision},
    models::Architecture as _,
};

/// The precision that `backbone` predicts in on `compute`. Where the user leaves the choice open, bf16 is for networks that keep their
/// accuracy in it, on a device that has instructions for it.
#[must_use]
pub fn prediction_precision(compute: &Compute, asked: proto::Precision, backbone: Backbone) -> Precision {
    match asked {
        proto::Precision::Auto if compute.has_bf16 && backbone.tolerates_bf16() => Precision::Bf16,
        proto::Precision::Auto | proto::Precision::F32 => Precision::F32,
        proto::Precision::Bf16 => Precision::Bf16,
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn bf16_is_chosen_where_it_is_fast_and_costs_no_accuracy() {
        let cpu = |has_bf16| Compute { device: Device::Cpu, has_bf16, threads: 1, reason: String::new() };
        let auto = proto::Precision::Auto;
        assert_eq!(prediction_precision(&cpu(true), auto, Backbone::Resnet34), Precision::Bf16);
        assert_eq!(prediction_precision(&cpu(true), auto, Backbone::EfficientnetLite0), Precision::F32);
        assert_eq!(prediction_precision(&cpu(false), auto, Backbone::Resnet34), Precision::F32);
        let asked = proto::Precision::Bf16;
        assert_eq!(prediction_precision(&cpu(true), asked, Backbone::EfficientnetLite0), Precision::Bf16);
    }
}
