//! An assignment, parsed once into types that cannot be wrong.

use std::ops::Range;

use sortinghat_proto::{JobSpec, ObjectRef, Refusal, TaskId, Tenant, time::UnixMs, v1};

/// What an executor was told to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The task.
    pub id: TaskId,
    /// The lease's epoch.
    pub epoch: u64,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// The tenant whose objects the task reads and writes.
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
    /// Which part of the job it is.
    pub part: Part,
    /// When the job was submitted: the same in every attempt. `None` if the coordinator does not say.
    pub submitted: Option<UnixMs>,
}

/// Which part of its job a task is. Each job kind defines what an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The whole job.
    Whole {
        /// With more items than this the task only counts them; `None` for no bound.
        max_items: Option<u64>,
    },
    /// A range of the job's items, counted from 0.
    Shard(Range<u64>),
    /// What is left to do once every shard has succeeded. The objects are what the shards made, in the order of their items.
    Finish(Vec<ObjectRef>),
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
            part: wire.part.unwrap_or_default().try_into()?,
            submitted: UnixMs::from_wire(wire.submitted_unix_ms, "assignment.submitted_unix_ms")?,
        })
    }
}

impl TryFrom<v1::Part> for Part {
    type Error = Refusal;

    fn try_from(wire: v1::Part) -> Result<Self, Refusal> {
        use v1::part::Part as Wire;
        Ok(match wire.part {
            None => Self::Whole { max_items: None },
            Some(Wire::Whole(whole)) => Self::Whole { max_items: (whole.max_items > 0).then_some(whole.max_items) },
            Some(Wire::Shard(shard)) => Self::Shard(shard.first_item..shard.end_item),
            Some(Wire::Finish(finish)) => {
                Self::Finish(finish.shards.into_iter().map(ObjectRef::try_from).collect::<Result<_, _>>()?)
            }
        })
    }
}
