//! The spec of an evaluate job.

use super::{
    check::required_object,
    passes::{Precision, Tta},
};
use crate::{
    DatasetRef, Digest, ModelRef, Name, ObjectRef, Refusal,
    kinds::{Spec, WireSpec},
    v1::{self, evaluate_spec::On},
};

/// Measures a model on labelled photos.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluateSpec {
    /// The model.
    pub model: ModelRef,
    /// The photos.
    pub on: EvaluateOn,
    /// Test-time augmentation; its result is reported beside the plain result.
    pub tta: Option<Tta>,
    /// Seed of the augmentation.
    pub seed: u64,
    /// A decisions file, as the report saves it.
    pub decisions: Option<ObjectRef>,
    /// Arithmetic of the forward passes.
    pub precision: Precision,
}

/// The photos that a model is measured on.
#[derive(Debug, Clone, PartialEq)]
pub enum EvaluateOn {
    /// The photos that were held out when the model was trained.
    HeldOut,
    /// The held-out photos of this dataset.
    Dataset(DatasetRef),
    /// All photos of this upload, which has a folder per class.
    Source(ObjectRef),
}

impl TryFrom<v1::EvaluateSpec> for EvaluateSpec {
    type Error = Refusal;

    fn try_from(wire: v1::EvaluateSpec) -> Result<Self, Refusal> {
        Ok(Self {
            model: ModelRef::parse(&wire.model, "evaluate.model")?,
            on: match wire.on {
                None => EvaluateOn::HeldOut,
                Some(On::Dataset(dataset)) => EvaluateOn::Dataset(DatasetRef::parse(&dataset, "evaluate.dataset")?),
                Some(On::Source(source)) => EvaluateOn::Source(required_object(Some(source), "evaluate.source")?),
            },
            tta: Tta::from_wire(wire.tta, wire.tta_passes, "evaluate.tta")?,
            seed: wire.seed,
            decisions: wire.decisions.map(|object| required_object(Some(object), "evaluate.decisions")).transpose()?,
            precision: Precision::from_wire(wire.precision, "evaluate.precision")?,
        })
    }
}

impl From<EvaluateSpec> for v1::EvaluateSpec {
    fn from(spec: EvaluateSpec) -> Self {
        let (tta, tta_passes) = Tta::to_wire(spec.tta);
        Self {
            model: spec.model.to_string(),
            on: match spec.on {
                EvaluateOn::HeldOut => None,
                EvaluateOn::Dataset(dataset) => Some(On::Dataset(dataset.to_string())),
                EvaluateOn::Source(source) => Some(On::Source(source.into())),
            },
            tta,
            tta_passes,
            seed: spec.seed,
            decisions: spec.decisions.map(Into::into),
            precision: spec.precision.to_wire(),
        }
    }
}

impl Spec for EvaluateSpec {
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        match &mut self.on {
            EvaluateOn::Dataset(dataset) => Some(dataset),
            EvaluateOn::HeldOut | EvaluateOn::Source(_) => None,
        }
    }

    fn model_mut(&mut self) -> Option<&mut ModelRef> {
        Some(&mut self.model)
    }

    fn uploaded_weights(&self) -> Option<&Digest> {
        None
    }

    fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        let decisions = self.decisions.as_ref().map(|decisions| ("evaluate.decisions", decisions));
        self.upload_manifest().into_iter().chain(decisions).collect()
    }

    fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)> {
        match &self.on {
            EvaluateOn::Source(source) => Some(("evaluate.source", source)),
            EvaluateOn::HeldOut | EvaluateOn::Dataset(_) => None,
        }
    }

    fn missing_output_name(&mut self) -> Option<&mut Option<Name>> {
        None
    }
}

impl WireSpec for v1::EvaluateSpec {
    fn subject(&self) -> &str {
        &self.model
    }

    fn output_name(&self) -> &str {
        ""
    }

    fn source(&self) -> Option<&v1::ObjectRef> {
        match &self.on {
            Some(On::Source(source)) => Some(source),
            Some(On::Dataset(_)) | None => None,
        }
    }
}
