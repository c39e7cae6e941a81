//! Submitting, finding and cancelling jobs.

use sortinghat_proto::{
    JobKind, JobSpec, Lane, Refusal, Requirements, limits,
    time::UnixMs,
    v1::{
        self, CancelJobRequest, ExplainJobRequest, ExplainJobResponse, GetJobRequest, Job, JobState, ListJobsRequest,
        ListJobsResponse, RetryJobRequest, SubmitJobRequest,
    },
};

use crate::{Client, ClientError};

/// Length of a whole job id in characters.
const JOB_ID_CHARACTERS: usize = 26;

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What to do.
    pub spec: JobSpec,
    /// With the same key and spec the same job is returned, however often it is submitted.
    pub idempotency_key: String,
    /// Jobs that must succeed first.
    pub parents: Vec<String>,
    /// -10 to 10; a higher one goes first.
    pub priority: i32,
    /// The lane to wait in.
    pub lane: Lane,
    /// What a worker must have.
    pub requirements: Requirements,
    /// It shall not start before.
    pub not_before: Option<UnixMs>,
    /// It fails if it has not ended by then.
    pub deadline: Option<UnixMs>,
}

impl Submission {
    /// A job of the bulk lane under a fresh idempotency key, which any worker may run.
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
        }
    }
}

/// A key that nobody has used before.
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
}

impl Client {
    /// Submits a job. Safe to repeat, and repeated by itself when the answer is lost: the idempotency key makes it one job.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the field at fault; [`ClientError::Lost`] without an answer, when the job may exist.
    pub async fn submit(&self, submission: &Submission) -> Result<Job, ClientError> {
        let request = SubmitJobRequest {
            idempotency_key: submission.idempotency_key.clone(),
            spec: Some(submission.spec.clone().into()),
            parents: submission.parents.clone(),
            priority: submission.priority,
            lane: v1::Lane::from(submission.lane).into(),
            requirements: submission.requirements.clone().into_wire(),
            not_before_unix_ms: submission.not_before.map_or(0, UnixMs::to_wire),
            deadline_unix_ms: submission.deadline.map_or(0, UnixMs::to_wire),
        };
        let call = || {
            let (mut service, request) = (self.jobs(), request.clone());
            async move { service.submit_job(request).await }
        };
        present(self.retry(call).await?.into_inner().job, "job")
    }

    /// Submits a failed or cancelled job again, as a new job that cites it. Safe to repeat with the same key.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job, or if it has not ended or has succeeded.
    pub async fn retry_job(&self, id: &str, idempotency_key: &str) -> Result<Job, ClientError> {
        let request = RetryJobRequest { job_id: id.to_owned(), idempotency_key: idempotency_key.to_owned() };
        let call = || {
            let (mut service, request) = (self.jobs(), request.clone());
            async move { service.retry_job(request).await }
        };
        present(self.retry(call).await?.into_inner().job, "job")
    }

    /// The job with this id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none.
    pub async fn get_job(&self, id: &str) -> Result<Job, ClientError> {
        let call = || {
            let (mut service, request) = (self.jobs(), GetJobRequest { job_id: id.to_owned() });
            async move { service.get_job(request).await }
        };
        present(self.retry(call).await?.into_inner().job, "job")
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
        };
        let call = || {
            let (mut service, request) = (self.jobs(), request.clone());
            async move { service.list_jobs(request).await }
        };
        Ok(self.retry(call).await?.into_inner())
    }

    /// The one job whose id starts with `prefix`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none, or if there are several: then with their ids.
    pub async fn find_job(&self, prefix: &str) -> Result<Job, ClientError> {
        let prefix = prefix.to_ascii_lowercase();
        if prefix.len() >= JOB_ID_CHARACTERS {
            return self.get_job(&prefix).await;
        }
        let mut matches = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.list_jobs(&JobFilter::default(), limits::MAX_PAGE_SIZE, &token).await?;
            let ids = page.jobs.into_iter().map(|job| job.id).chain(page.unreadable_job_ids);
            matches.extend(ids.filter(|id| id.starts_with(&prefix)));
            if page.next_page_token.is_empty() {
                break;
            }
            token = page.next_page_token;
        }
        match matches.as_slice() {
            [id] => self.get_job(id).await,
            [] => Err(ClientError::Refused(Refusal::not_found(format!("no job {prefix:?}: `hat jobs` lists them")))),
            several => Err(ClientError::Refused(Refusal::invalid("job_id", ambiguous(&prefix, several)))),
        }
    }

    /// Why a job waits, where it runs, or how it ended.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job.
    pub async fn explain_job(&self, id: &str) -> Result<ExplainJobResponse, ClientError> {
        let call = || {
            let (mut service, request) = (self.jobs(), ExplainJobRequest { job_id: id.to_owned() });
            async move { service.explain_job(request).await }
        };
        Ok(self.retry(call).await?.into_inner())
    }

    /// Asks for a job to be cancelled, and returns it as it is then; a running one ends a little later.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job.
    pub async fn cancel_job(&self, id: &str) -> Result<Job, ClientError> {
        let call = || {
            let (mut service, request) = (self.jobs(), CancelJobRequest { job_id: id.to_owned() });
            async move { service.cancel_job(request).await }
        };
        present(self.retry(call).await?.into_inner().job, "job")
    }
}

fn ambiguous(prefix: &str, ids: &[String]) -> String {
    let shown = ids.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = if ids.len() > 3 { ", ..." } else { "" };
    format!("{} jobs start with {prefix:?}: {shown}{more}; type more of the id", ids.len())
}

/// A field that every answer has.
pub(crate) fn present<T>(field: Option<T>, name: &str) -> Result<T, ClientError> {
    field.ok_or_else(|| ClientError::Protocol(format!("it lacks the {name}")))
}

/// The validated form of a reference in an answer.
pub(crate) fn object(wire: Option<v1::ObjectRef>) -> Result<sortinghat_proto::ObjectRef, ClientError> {
    present(wire, "object")?.try_into().map_err(|refusal: Refusal| ClientError::Protocol(refusal.message))
}
