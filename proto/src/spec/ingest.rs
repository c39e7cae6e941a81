//! The spec of an ingest job.

use serde::{Deserialize, Serialize};

use super::check::{at, in_range, or_default, required_object};
use crate::{
    DatasetRef, Digest, ModelRef, Name, ObjectRef, Refusal,
    kinds::{Spec, WireSpec},
    layout::LayoutChoice,
    v1,
};

/// Decodes uploaded photos, quarantines the ones that cannot be used, splits the rest and writes a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestSpec {
    /// The dataset's name without a version.
    pub dataset_name: Name,
    /// The upload manifest that lists the photos.
    pub source: ObjectRef,
    /// How photos are held out.
    pub split: Split,
    /// Seed of the split.
    pub seed: u64,
    /// Continue even if over half of the photos cannot be read or decoded.
    pub allow_failures: bool,
    /// Short side of the lossless derivative in pixels, 64 to 4096. A smaller photo is not enlarged.
    pub derivative_short_side_px: u32,
    /// How the folders of the upload are read.
    pub layout: LayoutChoice,
}

/// How photos are held out for validation, unless the upload itself has splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// This share of each class, in percent, 1 to 50.
    ValidPercent(u32),
    /// This many cross-validation folds, 2 to 20.
    Folds(u32),
}

impl TryFrom<v1::IngestSpec> for IngestSpec {
    type Error = Refusal;

    fn try_from(wire: v1::IngestSpec) -> Result<Self, Refusal> {
        let split = split(wire.valid_percent, wire.folds, "ingest")?;
        Ok(Self {
            dataset_name: wire.dataset_name.parse().map_err(at("ingest.dataset_name"))?,
            source: required_object(wire.source, "ingest.source")?,
            split,
            seed: wire.seed,
            allow_failures: wire.allow_failures,
            derivative_short_side_px: in_range(
                or_default(wire.derivative_short_side_px, 512),
                64..=4096,
                "ingest.derivative_short_side_px",
            )?,
            layout: layout(wire.layout)?,
        })
    }
}

/// How photos are held out, as these fields of a spec of this kind say.
pub(super) fn split(valid_percent: u32, folds: u32, kind: &str) -> Result<Split, Refusal> {
    match (valid_percent, folds) {
        (0, 0) => Ok(Split::ValidPercent(20)),
        (percent, 0) => Ok(Split::ValidPercent(in_range(percent, 1..=50, &format!("{kind}.valid_percent"))?)),
        (0, folds) => Ok(Split::Folds(in_range(folds, 2..=20, &format!("{kind}.folds"))?)),
        _ => Err(Refusal::invalid(
            format!("{kind}.folds"),
            "valid_percent and folds exclude each other: give one of them",
        )),
    }
}

/// The way back of [`split`].
pub(super) fn split_to_wire(split: Split) -> (u32, u32) {
    match split {
        Split::ValidPercent(percent) => (percent, 0),
        Split::Folds(folds) => (0, folds),
    }
}

fn layout(number: i32) -> Result<LayoutChoice, Refusal> {
    match v1::FolderLayout::try_from(number) {
        Ok(v1::FolderLayout::Unspecified) => Ok(LayoutChoice::Auto),
        Ok(v1::FolderLayout::Classes) => Ok(LayoutChoice::Classes),
        Ok(v1::FolderLayout::Splits) => Ok(LayoutChoice::Splits),
        Err(_) => Err(Refusal::invalid("ingest.layout", "use classes, splits or nothing")),
    }
}

impl From<IngestSpec> for v1::IngestSpec {
    fn from(spec: IngestSpec) -> Self {
        let (valid_percent, folds) = split_to_wire(spec.split);
        let layout = match spec.layout {
            LayoutChoice::Auto => v1::FolderLayout::Unspecified,
            LayoutChoice::Classes => v1::FolderLayout::Classes,
            LayoutChoice::Splits => v1::FolderLayout::Splits,
        };
        Self {
            dataset_name: spec.dataset_name.into(),
            source: Some(spec.source.into()),
            valid_percent,
            folds,
            seed: spec.seed,
            allow_failures: spec.allow_failures,
            derivative_short_side_px: spec.derivative_short_side_px,
            layout: layout.into(),
        }
    }
}

impl Spec for IngestSpec {
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        None
    }

    fn model_mut(&mut self) -> Option<&mut ModelRef> {
        None
    }

    fn uploaded_weights(&self) -> Option<&Digest> {
        None
    }

    fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        self.upload_manifest().into_iter().collect()
    }

    fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)> {
        Some(("ingest.source", &self.source))
    }

    fn missing_output_name(&mut self) -> Option<&mut Option<Name>> {
        None
    }
}

impl WireSpec for v1::IngestSpec {
    fn subject(&self) -> &str {
        &self.dataset_name
    }

    fn output_name(&self) -> &str {
        &self.dataset_name
    }

    fn source(&self) -> Option<&v1::ObjectRef> {
        self.source.as_ref()
    }
}
