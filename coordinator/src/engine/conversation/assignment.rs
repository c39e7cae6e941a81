//! A lease on the wire, and the assignment: everything that a worker needs to run the task.

use sortinghat_proto::{ObjectRef, TaskId, time::UnixMs, v1};

use super::Conversation;
use crate::{
    engine::{
        changes::Holding,
        error::EngineError,
        records::{Input, JobRecord, TaskRecord, Versioned, keys},
    },
    queue::{Division, Lease, Output, Role, State},
};

/// A name, and the manifest that it stands for.
#[derive(Default)]
pub(super) struct Resolved {
    name: String,
    pub(super) manifest: Option<v1::ObjectRef>,
}

impl Conversation {
    /// The lease as the worker is told of it. The worker counts the remaining time from the moment at which it sent its message. So the
    /// time is counted here from `since`, the arrival of the message, which is later. Hence the worker never believes that it holds the
    /// lease for longer than it does.
    pub(super) async fn told_lease(
        &self,
        held: &Holding,
        lease: &Lease,
        since: UnixMs,
        is_known: bool,
    ) -> Result<v1::Lease, EngineError> {
        let assignment = if is_known { None } else { Some(self.assignment(held, lease).await?) };
        Ok(v1::Lease {
            key: Some(v1::LeaseKey { task_id: held.task().task.id.to_string(), epoch: lease.token.epoch }),
            ttl_ms: u32::try_from(lease.deadline.ms_since(since)).unwrap_or(u32::MAX),
            acknowledged_events: held.task().events.acknowledged,
            cancel: held.task().task.cancel_requested,
            preempt: lease.preempted.is_some(),
            assignment,
        })
    }

    async fn assignment(&self, held: &Holding, lease: &Lease) -> Result<v1::Assignment, EngineError> {
        let job = &held.job;
        let task = &held.task().task;
        let dataset = self.resolve(job.request.dataset.as_ref()).await?;
        let model = self.resolve(job.request.model.as_ref()).await?;
        Ok(v1::Assignment {
            job_id: job.id.to_string(),
            task_id: task.id.to_string(),
            epoch: lease.token.epoch,
            attempt: lease.attempt,
            tenant: job.tenant.to_string(),
            spec: Some(job.request.spec.clone()),
            dataset: dataset.manifest,
            model: model.manifest,
            checkpoint: task.checkpoint.clone().map(Into::into),
            dataset_name: dataset.name,
            model_name: model.name,
            memory_failures: task.memory_failures,
            submitted_unix_ms: job.created.to_wire(),
            part: Some(v1::Part { part: Some(self.part(job, &task.id).await?) }),
        })
    }

    /// The part of its job that a task processes.
    async fn part(&self, job: &JobRecord, task: &TaskId) -> Result<v1::part::Part, EngineError> {
        use v1::part::Part;
        Ok(match (job.role(task), job.division()) {
            (Role::Shard(index), Some(division)) => {
                let items = division.range(index);
                let count = division.shards();
                Part::Shard(v1::ShardPart { index, count, first_item: items.start, end_item: items.end })
            }
            (Role::Finish, Some(division)) => Part::Finish(v1::FinishPart { shards: self.made(job, division).await? }),
            (Role::Whole | Role::Shard(_) | Role::Finish, _) => {
                Part::Whole(v1::WholePart { max_items: self.context.settings.shard_items.get() })
            }
        })
    }

    /// The outputs of a job's shards, in the order of the shards.
    async fn made(&self, job: &JobRecord, division: Division) -> Result<Vec<v1::ObjectRef>, EngineError> {
        let indexes = (0..division.shards()).map(|shard| division.shard_index(shard));
        let tasks: Vec<TaskId> = indexes.map(|index| TaskId::new(job.id.clone(), index)).collect();
        let keys: Vec<String> = tasks.iter().map(keys::shard).collect();
        let made = |(task, record): (TaskId, Option<Versioned<TaskRecord>>)| match record
            .map(|record| record.value.task.state)
        {
            Some(State::Succeeded { output: Output::Made { manifest, .. }, .. }) => Ok(manifest.into()),
            _ => Err(EngineError::Defect(format!("shard {task} has no output, although its job has gone on"))),
        };
        tasks.into_iter().zip(self.records.read_all::<TaskRecord>(&keys).await?).map(made).collect()
    }

    /// The name and the manifest of an input; nothing if there is none.
    pub(super) async fn resolve(&self, input: Option<&Input>) -> Result<Resolved, EngineError> {
        let of_artifact = |name: &String, manifest: &ObjectRef| Resolved {
            name: name.clone(),
            manifest: Some(manifest.clone().into()),
        };
        let parent = match input {
            None => return Ok(Resolved::default()),
            Some(Input::Artifact { name, manifest }) => return Ok(of_artifact(name, manifest)),
            Some(Input::Parent(parent)) => parent,
        };
        let output = self.records.read::<JobRecord>(keys::job(parent)).await?.and_then(|job| job.value.progress.output);
        let output = output.ok_or_else(|| {
            EngineError::Defect(format!("job {parent} has no output, although a job that needs it runs"))
        })?;
        Ok(Resolved { name: output.name, manifest: output.manifest })
    }
}
