//! The spec of an audit job.

use super::{
    check::{in_range, or_default},
    finetune::{Backbone, WeightsSource},
    passes::Precision,
};
use crate::{
    DatasetRef, Digest, ModelRef, Name, ObjectRef, Refusal,
    kinds::{Spec, WireSpec},
    v1,
};

/// Looks for labels that are probably wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditSpec {
    /// The dataset, of which all photos are looked at.
    pub dataset: DatasetRef,
    /// The network that sees the photos.
    pub backbone: Backbone,
    /// Where its pretrained weights come from.
    pub weights: WeightsSource,
    /// Side of the squares that the network sees, in pixels, 32 to 1024.
    pub image_size_px: u32,
    /// Seed of the folds and of the sample.
    pub seed: u64,
    /// Arithmetic of the forward passes.
    pub precision: Precision,
}

impl AuditSpec {
    /// The side of the squares that the network sees if the user names none, in pixels.
    pub const DEFAULT_IMAGE_SIZE_PX: u32 = 288;
}

impl TryFrom<v1::AuditSpec> for AuditSpec {
    type Error = Refusal;

    fn try_from(wire: v1::AuditSpec) -> Result<Self, Refusal> {
        let size_px = or_default(wire.image_size_px, Self::DEFAULT_IMAGE_SIZE_PX);
        Ok(Self {
            dataset: DatasetRef::parse(&wire.dataset, "audit.dataset")?,
            backbone: Backbone::parse(&wire.backbone, "audit.backbone")?,
            weights: WeightsSource::parse(&wire.weights, "audit.weights")?,
            image_size_px: in_range(size_px, 32..=1024, "audit.image_size_px")?,
            seed: wire.seed,
            precision: Precision::from_wire(wire.precision, "audit.precision")?,
        })
    }
}

impl From<AuditSpec> for v1::AuditSpec {
    fn from(spec: AuditSpec) -> Self {
        Self {
            dataset: spec.dataset.to_string(),
            backbone: spec.backbone.to_string(),
            weights: spec.weights.to_string(),
            image_size_px: spec.image_size_px,
            seed: spec.seed,
            precision: spec.precision.to_wire(),
        }
    }
}

impl Spec for AuditSpec {
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        Some(&mut self.dataset)
    }

    fn model_mut(&mut self) -> Option<&mut ModelRef> {
        None
    }

    fn uploaded_weights(&self) -> Option<&Digest> {
        self.weights.uploaded()
    }

    fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        vec![]
    }

    fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)> {
        None
    }

    fn missing_output_name(&mut self) -> Option<&mut Option<Name>> {
        None
    }
}

impl WireSpec for v1::AuditSpec {
    fn subject(&self) -> &str {
        &self.dataset
    }

    fn output_name(&self) -> &str {
        ""
    }

    fn source(&self) -> Option<&v1::ObjectRef> {
        None
    }
}
