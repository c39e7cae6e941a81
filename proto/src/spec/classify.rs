//! The spec of a classify job.

use super::{
    check::{in_range, or_default, required_object},
    passes::{Precision, Tta},
};
use crate::{
    DatasetRef, Digest, ModelRef, Name, ObjectRef, Refusal,
    kinds::{Spec, WireSpec},
    limits::MAX_TOP_K,
    v1,
};

/// Predicts the classes of photos.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifySpec {
    /// The model.
    pub model: ModelRef,
    /// The upload manifest that lists the photos.
    pub source: ObjectRef,
    /// How many of the most probable classes are returned for each photo, 1 to [`MAX_TOP_K`].
    pub top_k: u32,
    /// Test-time augmentation.
    pub tta: Option<Tta>,
    /// Seed of the augmentation.
    pub seed: u64,
    /// Arithmetic of the forward passes.
    pub precision: Precision,
}

impl TryFrom<v1::ClassifySpec> for ClassifySpec {
    type Error = Refusal;

    fn try_from(wire: v1::ClassifySpec) -> Result<Self, Refusal> {
        Ok(Self {
            model: ModelRef::parse(&wire.model, "classify.model")?,
            source: required_object(wire.source, "classify.source")?,
            top_k: in_range(or_default(wire.top_k, 5), 1..=MAX_TOP_K, "classify.top_k")?,
            tta: Tta::from_wire(wire.tta, wire.tta_passes, "classify.tta")?,
            seed: wire.seed,
            precision: Precision::from_wire(wire.precision, "classify.precision")?,
        })
    }
}

impl From<ClassifySpec> for v1::ClassifySpec {
    fn from(spec: ClassifySpec) -> Self {
        let (tta, tta_passes) = Tta::to_wire(spec.tta);
        Self {
            model: spec.model.to_string(),
            source: Some(spec.source.into()),
            top_k: spec.top_k,
            tta,
            tta_passes,
            seed: spec.seed,
            precision: spec.precision.to_wire(),
        }
    }
}

impl Spec for ClassifySpec {
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        None
    }

    fn model_mut(&mut self) -> Option<&mut ModelRef> {
        Some(&mut self.model)
    }

    fn uploaded_weights(&self) -> Option<&Digest> {
        None
    }

    fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        self.upload_manifest().into_iter().collect()
    }

    fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)> {
        Some(("classify.source", &self.source))
    }

    fn missing_output_name(&mut self) -> Option<&mut Option<Name>> {
        None
    }
}

impl WireSpec for v1::ClassifySpec {
    fn subject(&self) -> &str {
        &self.model
    }

    fn output_name(&self) -> &str {
        ""
    }

    fn source(&self) -> Option<&v1::ObjectRef> {
        self.source.as_ref()
    }
}
