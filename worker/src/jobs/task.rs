//! An assignment, parsed once into types that cannot be wrong.

use sortinghat_proto::{JobSpec, ObjectRef, Refusal, TaskId, Tenant, v1};

/// What an executor was told to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The task.
    pub id: TaskId,
    /// The lease's epoch.
    pub epoch: u64,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// Whose objects it reads and writes.
    pub tenant: Tenant,
    /// What to do.
    pub spec: JobSpec,
    /// The dataset that the spec names; `None` if it names none.
    pub dataset: Option<Artifact>,
    /// The model that the spec names; `None` if it names none.
    pub model: Option<Artifact>,
    /// The newest checkpoint of an earlier attempt; `None` if there is none.
    pub checkpoint: Option<ObjectRef>,
    /// Attempts that ran out of memory since the task last made progress.
    pub memory_failures: u32,
}

/// A dataset or model that a task reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The name that it was found under, "stamps@1" or "stamps/1", for provenance.
    pub name: String,
    /// Its manifest.
    pub manifest: ObjectRef,
}

impl TryFrom<v1::Assignment> for Task {
    type Error = Refusal;

    fn try_from(wire: v1::Assignment) -> Result<Self, Refusal> {
        let spec = wire.spec.ok_or_else(|| Refusal::invalid("assignment.spec", "an assignment needs a spec"))?;
        let artifact = |manifest: Option<v1::ObjectRef>, name: String| {
            manifest.map(|manifest| Ok(Artifact { name, manifest: manifest.try_into()? })).transpose()
        };
        Ok(Self {
            id: wire.task_id.parse()?,
            epoch: wire.epoch,
            attempt: wire.attempt,
            tenant: wire.tenant.parse()?,
            spec: spec.try_into()?,
            dataset: artifact(wire.dataset, wire.dataset_name)?,
            model: artifact(wire.model, wire.model_name)?,
            checkpoint: wire.checkpoint.map(ObjectRef::try_from).transpose()?,
            memory_failures: wire.memory_failures,
        })
    }
}
