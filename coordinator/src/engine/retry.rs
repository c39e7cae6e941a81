//! A failed or cancelled job again, as a new job that cites it.

use prost::Message as _;
use rand::RngExt as _;
use sortinghat_proto::{
    DatasetRef, Digest, JobId, JobSpec, ModelRef, Refusal, Tenant,
    time::UnixMs,
    v1::{self, ErrorCode, JobState},
};

use super::{
    Engine, MAX_TRIES, Shared, contended, keys,
    load::Versioned,
    records::{self, Input, JobRecord},
    submission::{Acceptance, check_key},
    submit::NewJob,
};
use crate::store::{Batch, Expectation};

/// Retries of a parent that are followed to the newest.
const MAX_RETRIES_FOLLOWED: usize = 100;

impl Engine {
    /// Accepts a job like one that failed or was cancelled: the same spec and inputs, and its checkpoint where it has one. A parent that
    /// did not succeed is replaced by its newest retry.
    ///
    /// Refuses jobs that have not ended or have succeeded, and those with a parent whose newest retry did not succeed either.
    pub async fn retry(&self, tenant: &Tenant, request: v1::RetryJobRequest) -> Result<v1::RetryJobResponse, Refusal> {
        let shared = &self.shared;
        check_key(&request.idempotency_key)?;
        let old: JobId = request.job_id.parse()?;
        let without_key = v1::RetryJobRequest { idempotency_key: String::new(), ..request.clone() };
        let digest = Digest::of(&without_key.encode_to_vec());
        let acceptance = Acceptance { key: request.idempotency_key, digest };
        let now = shared.store.now().await?;
        let id = JobId::new(now.0, shared.dice().random());
        for tried in 0..MAX_TRIES {
            let tried = (tried > 0).then_some(&id);
            if let Some(known) = shared.accepted_before(tenant, tried, &acceptance).await? {
                return Ok(v1::RetryJobResponse { job: known.job, existed: known.existed });
            }
            shared.admit(tenant).await?;
            let (job, batch) = shared.again(tenant, &old, &id, &acceptance, now).await?;
            if shared.apply_one(batch).await? {
                return Ok(v1::RetryJobResponse { job: shared.accepted(&job).job, existed: false });
            }
            shared.collections.doubt(tenant);
        }
        Err(contended(format!("job {old}")))
    }
}

impl Shared {
    /// The new job, and the batch that makes it durable.
    async fn again(
        &self,
        tenant: &Tenant,
        old: &JobId,
        id: &JobId,
        acceptance: &Acceptance,
        now: UnixMs,
    ) -> Result<(JobRecord, Batch), Refusal> {
        let old = self.job(tenant, old).await?;
        require_retryable(&old.value)?;
        let mut job = like(&old.value)?;
        for parent in &old.value.parents {
            if let Some(newest) = self.newest_retry(tenant, parent, &old.value).await? {
                wait_for(&mut job, parent, newest);
            }
        }
        let fence = self.require_uploads(tenant, &job.spec).await?;
        self.require_queue(&old.value.rank().queue).await?;
        // A divided job has none, and one of other inputs is not this job's.
        if old.value.shards.is_none() && (&job.dataset, &job.model) == (&old.value.dataset, &old.value.model) {
            job.checkpoint.clone_from(&old.value.task.task.checkpoint);
        }
        let mut batch = Batch { checks: fence.into_iter().collect(), ..Batch::default() };
        let job = job.enter(&mut batch, id, acceptance, now);
        let key = keys::job(&old.value.id);
        batch.checks.push((key.clone(), Expectation::Version(old.version)));
        batch.writes.push((key, records::encode(&JobRecord { retried_as: Some(id.clone()), ..*old.value })));
        Ok((job, batch))
    }

    /// A parent of a job, or the newest retry of one that did not succeed; `None` for one that has succeeded and was forgotten since.
    async fn newest_retry(
        &self,
        tenant: &Tenant,
        parent: &JobId,
        child: &JobRecord,
    ) -> Result<Option<Versioned<JobRecord>>, Refusal> {
        let refused =
            |message: String| Refusal { field: "parents".to_owned(), ..Refusal::new(ErrorCode::WrongState, message) };
        let Some(mut found) = self.read::<JobRecord>(keys::job(parent)).await? else {
            // What has started had parents that had all succeeded, and has taken over what they made.
            if child.started.is_some() {
                return Ok(None);
            }
            return Err(refused(format!("job {parent}, which this job needs, is not kept any more: submit both anew")));
        };
        for _ in 0..MAX_RETRIES_FOLLOWED {
            if !matches!(found.value.state(), JobState::Failed | JobState::Cancelled) {
                return Ok(Some(found));
            }
            let Some(retry) = &found.value.retried_as else { break };
            found = self.job(tenant, retry).await?;
        }
        let failed = &found.value.id;
        let message = format!("job {failed}, which this job needs, did not succeed: `hat jobs retry {failed}` first");
        Err(refused(message))
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

/// A job like an old one, without its times and its parents.
fn like(old: &JobRecord) -> Result<NewJob, Refusal> {
    Ok(NewJob {
        tenant: old.tenant.clone(),
        spec: JobSpec::try_from(old.spec.clone())?,
        dataset: old.dataset.clone(),
        model: old.model.clone(),
        parents: Vec::new(),
        priority: old.priority,
        lane: old.lane,
        requirements: old.requirements.clone(),
        not_before: None,
        deadline: None,
        retry_of: Some(old.id.clone()),
        checkpoint: None,
    })
}

/// Lets a job wait for `new` where the old one waited for `old`, and read what that makes.
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
