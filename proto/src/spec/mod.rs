//! What each kind of job can be told: a file per kind, parsed once at the edge into types that cannot be wrong.
//!
//! A file holds the spec, its validation (`TryFrom` of the wire's message, with every range and every default), its way back to the
//! wire, and what the coordinator asks of it. [`crate::kinds`] lists the kinds.

mod audit;
mod check;
mod classify;
mod evaluate;
mod finetune;
mod gather;
mod ingest;
mod object;
mod passes;

pub use audit::AuditSpec;
pub use classify::ClassifySpec;
pub use evaluate::{EvaluateOn, EvaluateSpec};
pub use finetune::{Backbone, BaseRate, FineTune, FinetuneSpec, Mixing, Recipe, TrainingCrop, WeightsSource};
pub(crate) use gather::class_name_fault;
pub use gather::{GatherClass, GatherFrom, GatherSpec, Licence, Search};
pub use ingest::{IngestSpec, Split};
pub use object::ObjectRef;
pub use passes::{Precision, Tta, TtaRecipe};
