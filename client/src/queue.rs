//! A tenant's queue as a whole: cancels many jobs at once, pauses the queue and resumes it.

use sortinghat_proto::{
    time::UnixMs,
    v1::{CancelJobsRequest, CancelJobsResponse, GetQueueRequest, PauseQueueRequest, Queue, ResumeQueueRequest},
};

use crate::{Client, ClientError, JobFilter, client::Jobs, jobs::present};

impl Client {
    /// Asks for every job to be cancelled that matches the filter, was accepted before `before` and has not ended. Returns how many jobs
    /// these are. The request is durable when this returns; running jobs end a little later.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the filter names a state in which jobs have ended.
    pub async fn cancel_jobs(
        &self,
        filter: &JobFilter,
        before: Option<UnixMs>,
    ) -> Result<CancelJobsResponse, ClientError> {
        self.cancel_matching(filter, before, false).await
    }

    /// How many jobs [`cancel_jobs`](Self::cancel_jobs) would cancel.
    ///
    /// # Errors
    /// As [`cancel_jobs`](Self::cancel_jobs).
    pub async fn count_cancellable_jobs(
        &self,
        filter: &JobFilter,
        before: Option<UnixMs>,
    ) -> Result<CancelJobsResponse, ClientError> {
        self.cancel_matching(filter, before, true).await
    }

    async fn cancel_matching(
        &self,
        filter: &JobFilter,
        before: Option<UnixMs>,
        count_only: bool,
    ) -> Result<CancelJobsResponse, ClientError> {
        let request = CancelJobsRequest {
            states: filter.states.iter().map(|state| i32::from(*state)).collect(),
            kind: filter.kind.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
            created_before_unix_ms: before.map_or(0, UnixMs::to_wire),
            count_only,
            ..CancelJobsRequest::default()
        };
        let call = |mut jobs: Jobs, request| async move { jobs.cancel_jobs(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        Ok(answer)
    }

    /// The state of the queue.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn get_queue(&self) -> Result<Queue, ClientError> {
        let request = GetQueueRequest { tenant: self.tenant.clone() };
        let call = |mut jobs: Jobs, request| async move { jobs.get_queue(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        present(answer.queue, "queue")
    }

    /// Pauses the queue: no job starts any more, while those that run go on.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn pause_queue(&self) -> Result<Queue, ClientError> {
        let request = PauseQueueRequest { tenant: self.tenant.clone() };
        let call = |mut jobs: Jobs, request| async move { jobs.pause_queue(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        present(answer.queue, "queue")
    }

    /// Resumes the queue: jobs start again.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn resume_queue(&self) -> Result<Queue, ClientError> {
        let request = ResumeQueueRequest { tenant: self.tenant.clone() };
        let call = |mut jobs: Jobs, request| async move { jobs.resume_queue(request).await };
        let answer = self.call(self.jobs(), request, call).await?;
        present(answer.queue, "queue")
    }
}
