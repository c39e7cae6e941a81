//! Submits, finds and cancels jobs.

use sortinghat_proto::{
    JobKind, JobSpec, Labels, Lane, Refusal, Requirements, Retention,
    time::UnixMs,
    v1::{
        self, CancelJobRequest, DeleteJobRequest, DeleteJobResponse, ExplainJobRequest, ExplainJobResponse,
        GetJobRequest, Job, JobState, ListJobsRequest, ListJobsResponse, RetryJobRequest, SubmitJobRequest,
    },
};

use crate::{Client, ClientError, client::Jobs};

/// A job to submit.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What to do.
    pub spec: JobSpec,
    /// A submission with the same key and spec returns the same job, however often it is made.
    pub idempotency_key: String,
    /// Jobs that must succeed first.
    pub parents: Vec<String>,
    /// -10 to 10; a higher one goes first.
    pub priority: i32,
    /// The lane to wait in.
    pub lane: Lane,
    /// What a worker must have.
    pub requirements: Requirements,
    /// The job does not start before this time.
    pub not_before: Option<UnixMs>,
    /// The job fails if it has not ended by this time.
    pub deadline: Option<UnixMs>,
    /// For the submitter's own use.
    pub labels: Labels,
    /// How long the job is kept after its end.
    pub retention: Retention,
}

impl Submission {
    /// A job in the bulk lane, with a new idempotency key, that any worker may run.
    pub fn new(spec: JobSpec) -> Self {
        Self {
            spec,
            idempotency_key: idempotency_key(),
            parents: Vec::new(),
            priority: 0,
            lane: Lane::Bulk,
            requirements: Requirements::default(),
            not_before: None,
            deadline: None,
            labels: Labels::default(),
            retention: Retention::Usual,
        }
    }
}

/// A random key, which nobody has used before.
pub fn idempotency_key() -> String {
    format!("hat-{:032x}", rand::random::<u128>())
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only these states; empty for all.
    pub states: Vec<JobState>,
    /// Only this kind.
    pub kind: Option<JobKind>,
    /// Only jobs whose id begins or ends with this text; empty for all.
    pub id_part: String,
    /// Only jobs that have all of these labels.
    pub labels: Labels,
    /// Only jobs that were accepted at this time or later.
    pub from: Option<UnixMs>,
    /// Only jobs that were accepted before this time.
    pub before: Option<UnixMs>,
    /// Only the job that was submitted with this key; empty for all.
    pub idempotency_key: String,
}

impl Client {
    /// Submits a job. The call is repeated if its answer is lost; because of the idempotency key this still makes one job.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the field at fault; [`ClientError::Lost`] if no answer came, and then the job may exist.
    pub async fn submit(&self, submission: &Submission) -> Result<Job, ClientError> {
        let (keep_for_ms, keep) = submission.retention.to_wire();
        let request = SubmitJobRequest {
            idempotency_key: submission.idempotency_key.clone(),
            spec: Some(submission.spec.clone().into()),
            parents: submission.parents.clone(),
            priority: submission.priority,
            lane: v1::Lane::from(submission.lane).into(),
            requirements: submission.requirements.clone().into_wire(),
            not_before_unix_ms: submission.not_before.map_or(0, UnixMs::to_wire),
            deadline_unix_ms: submission.deadline.map_or(0, UnixMs::to_wire),
            labels: submission.labels.clone().into(),
            keep_for_ms,
            keep,
        };
        let call = |mut jobs: Jobs, request| async move { jobs.submit_job(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        present(answer.job, "job")
    }

    /// Submits a failed or cancelled job again, as a new job that refers to it. It is safe to repeat this with the same key.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job, or if it has not ended or has succeeded.
    pub async fn retry_job(&self, id: &str, idempotency_key: &str) -> Result<Job, ClientError> {
        let request = RetryJobRequest { job_id: id.to_owned(), idempotency_key: idempotency_key.to_owned() };
        let call = |mut jobs: Jobs, request| async move { jobs.retry_job(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        present(answer.job, "job")
    }

    /// The job with this id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none.
    pub async fn get_job(&self, id: &str) -> Result<Job, ClientError> {
        let request = GetJobRequest { job_id: id.to_owned() };
        let call = |mut jobs: Jobs, request| async move { jobs.get_job(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        present(answer.job, "job")
    }

    /// One page of jobs, newest first.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_jobs(
        &self,
        filter: &JobFilter,
        page_size: u32,
        page_token: &str,
    ) -> Result<ListJobsResponse, ClientError> {
        let request = ListJobsRequest {
            page_size,
            page_token: page_token.to_owned(),
            states: filter.states.iter().map(|state| i32::from(*state)).collect(),
            kind: filter.kind.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
            id_part: filter.id_part.clone(),
            labels: filter.labels.clone().into(),
            created_from_unix_ms: filter.from.map_or(0, UnixMs::to_wire),
            created_before_unix_ms: filter.before.map_or(0, UnixMs::to_wire),
            idempotency_key: filter.idempotency_key.clone(),
        };
        let call = |mut jobs: Jobs, request| async move { jobs.list_jobs(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        Ok(answer)
    }

    /// Why a job waits, where it runs, or how it ended.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job.
    pub async fn explain_job(&self, id: &str) -> Result<ExplainJobResponse, ClientError> {
        let request = ExplainJobRequest { job_id: id.to_owned() };
        let call = |mut jobs: Jobs, request| async move { jobs.explain_job(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        Ok(answer)
    }

    /// Asks for a job to be cancelled, and returns the job as it is then. A running job ends a little later.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job.
    pub async fn cancel_job(&self, id: &str) -> Result<Job, ClientError> {
        let request = CancelJobRequest { job_id: id.to_owned() };
        let call = |mut jobs: Jobs, request| async move { jobs.cancel_job(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        present(answer.job, "job")
    }

    /// Removes a job that has ended, with its history and its results. What has a name stays: datasets and models.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job, or if it has not ended.
    pub async fn delete_job(&self, id: &str) -> Result<DeleteJobResponse, ClientError> {
        self.remove_job(id, false).await
    }

    /// Removes a job that has ended, and asks for everything to be removed within minutes that it has read as an upload or has made, unless
    /// something else refers to it. The answer says after which time that is gone.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job, or if it has not ended.
    pub async fn erase_job(&self, id: &str) -> Result<DeleteJobResponse, ClientError> {
        self.remove_job(id, true).await
    }

    async fn remove_job(&self, id: &str, erase: bool) -> Result<DeleteJobResponse, ClientError> {
        let request = DeleteJobRequest { job_id: id.to_owned(), erase };
        let call = |mut jobs: Jobs, request| async move { jobs.delete_job(request).await };
        self.call(self.jobs(), request, call).await
    }
}

/// The value of a field that every answer must have.
pub(crate) fn present<T>(field: Option<T>, name: &str) -> Result<T, ClientError> {
    field.ok_or_else(|| ClientError::Protocol(format!("it has no {name}")))
}

/// Validates the reference in an answer.
pub(crate) fn object(wire: Option<v1::ObjectRef>) -> Result<sortinghat_proto::ObjectRef, ClientError> {
    present(wire, "object")?.try_into().map_err(|refusal: Refusal| ClientError::Protocol(refusal.message))
}
