//! Resubmitting a failed or cancelled job, as a new job that refers to the old one.

use prost::Message as _;
use sortinghat_proto::{
    DatasetRef, Digest, JobId, JobSpec, ModelRef, Refusal, Tenant,
    time::UnixMs,
    v1::{self, ErrorCode, JobState},
};

use super::{
    Intake,
    submission::{Acceptance, check_key},
    submit::NewJob,
};
use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, Input, JobRecord, Versioned, keys},
    },
    store::{Batch, Expectation},
};

/// How many retries of a parent are followed to find the newest one.
const MAX_RETRIES_FOLLOWED: usize = 100;

impl Intake {
    /// Resubmits a job that failed or was cancelled, as a new job with the same spec and inputs. The new job starts from the old job's
    /// checkpoint if there is one. A parent that did not succeed is replaced by its newest retry.
    ///
    /// Refuses a job that has not ended or that succeeded, and a job with a parent whose newest retry did not succeed either.
    pub(crate) async fn retry(
        &self,
        tenant: &Tenant,
        request: v1::RetryJobRequest,
    ) -> Result<v1::RetryJobResponse, EngineError> {
        check_key(&request.idempotency_key)?;
        let old: JobId = request.job_id.parse()?;
        let without_key = v1::RetryJobRequest { idempotency_key: String::new(), ..request.clone() };
        let digest = Digest::of(&without_key.encode_to_vec());
        let acceptance = Acceptance { key: request.idempotency_key, digest };
        let now = self.records.store.now().await?;
        let id = self.context.job_id(now);
        for tried in 0..MAX_TRIES {
            let tried = (tried > 0).then_some(&id);
            if let Some(known) = self.accepted_before(tenant, tried, &acceptance).await? {
                return Ok(v1::RetryJobResponse { job: known.job, existed: known.existed });
            }
            self.doors.pass()?;
            self.queues.admit(tenant).await?;
            let (job, batch) = self.again(tenant, &old, &id, &acceptance, now).await?;
            if self.records.apply_one(batch).await? {
                return Ok(v1::RetryJobResponse { job: self.accepted(&job).job, existed: false });
            }
            self.collection.invalidate(tenant);
        }
        Err(EngineError::contended(format!("job {old}")))
    }
}

impl Intake {
    /// The new job, and the batch that makes it durable.
    async fn again(
        &self,
        tenant: &Tenant,
        old: &JobId,
        id: &JobId,
        acceptance: &Acceptance,
        now: UnixMs,
    ) -> Result<(JobRecord, Batch), EngineError> {
        let old = self.records.job(tenant, old).await?;
        require_retryable(&old.value)?;
        let mut job = like(&old.value)?;
        for parent in &old.value.links.parents {
            if let Some(newest) = self.newest_retry(tenant, parent, &old.value).await? {
                wait_for(&mut job, parent, newest);
            }
        }
        let fence = self.collection.fence_uploads(tenant, &job.spec).await?;
        self.queues.require_queue(&old.value.rank().queue).await?;
        // A divided job has no checkpoint, and a checkpoint that was made from other inputs is of no use.
        if old.value.progress.shards.is_none()
            && (&job.dataset, &job.model) == (&old.value.request.dataset, &old.value.request.model)
        {
            job.checkpoint.clone_from(&old.value.progress.task.task.checkpoint);
        }
        let mut batch = Batch { checks: fence.into_iter().collect(), ..Batch::default() };
        let job = job.enter(&mut batch, id, acceptance, now);
        let key = keys::job(&old.value.id);
        batch.checks.push((key.clone(), Expectation::Version(old.version)));
        let mut old = old.value;
        old.links.retried_as = Some(id.clone());
        batch.writes.push((key, records::encode(&old)));
        Ok((job, batch))
    }

    /// The parent of a job, or the parent's newest retry if the parent did not succeed. `None` if the parent succeeded and was forgotten
    /// since.
    async fn newest_retry(
        &self,
        tenant: &Tenant,
        parent: &JobId,
        child: &JobRecord,
    ) -> Result<Option<Versioned<JobRecord>>, EngineError> {
        let refused = |message: String| EngineError::refused(ErrorCode::WrongState, message).in_field("parents");
        let Some(mut found) = self.records.read::<JobRecord>(keys::job(parent)).await? else {
            // If the child has started, all of its parents had succeeded, and the child has taken over their outputs.
            if child.progress.started.is_some() {
                return Ok(None);
            }
            return Err(refused(format!(
                "job {parent}, which this job needs, does not exist any more: submit both jobs anew"
            )));
        };
        for _ in 0..MAX_RETRIES_FOLLOWED {
            if !matches!(found.value.state(), JobState::Failed | JobState::Cancelled) {
                return Ok(Some(found));
            }
            let Some(retry) = &found.value.links.retried_as else { break };
            found = self.records.job(tenant, retry).await?;
        }
        let failed = &found.value.id;
        Err(refused(format!("job {failed}, which this job needs, did not succeed: retry that job first")))
    }
}

fn require_retryable(job: &JobRecord) -> Result<(), Refusal> {
    let why_not = match job.state() {
        JobState::Failed | JobState::Cancelled => return Ok(()),
        JobState::Succeeded => "has succeeded: submit it anew to run it again",
        JobState::Unspecified | JobState::Blocked | JobState::Queued | JobState::Running => {
            "has not ended: retry it when it has failed or was cancelled"
        }
    };
    Err(Refusal::new(ErrorCode::WrongState, format!("job {} {why_not}", job.id)))
}

/// A copy of an old job, without its times and its parents.
fn like(old: &JobRecord) -> Result<NewJob, Refusal> {
    Ok(NewJob {
        tenant: old.tenant.clone(),
        spec: JobSpec::try_from(old.request.spec.clone())?,
        dataset: old.request.dataset.clone(),
        model: old.request.model.clone(),
        parents: Vec::new(),
        priority: old.request.priority,
        lane: old.request.lane,
        requirements: old.request.requirements.clone(),
        not_before: None,
        deadline: None,
        labels: old.request.labels.clone(),
        retention: old.request.retention,
        retry_of: Some(old.id.clone()),
        checkpoint: None,
    })
}

/// Replaces the parent `old` by `new`: the job waits for `new`, and reads the output of `new`.
fn wait_for(job: &mut NewJob, old: &JobId, new: Versioned<JobRecord>) {
    let new_id = &new.value.id;
    for input in [&mut job.dataset, &mut job.model] {
        if *input == Some(Input::Parent(old.clone())) {
            *input = Some(Input::Parent(new_id.clone()));
        }
    }
    if let Some(dataset) = job.spec.dataset_mut().filter(|dataset| **dataset == DatasetRef::Job(old.clone())) {
        *dataset = DatasetRef::Job(new_id.clone());
    }
    if let Some(model) = job.spec.model_mut().filter(|model| **model == ModelRef::Job(old.clone())) {
        *model = ModelRef::Job(new_id.clone());
    }
    if job.parents.iter().all(|parent| parent.value.id != new.value.id) {
        job.parents.push(new);
    }
}
