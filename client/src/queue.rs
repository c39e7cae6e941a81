//! A tenant's queue as a whole: many jobs at once, pause and resume.

use sortinghat_proto::{
    time::UnixMs,
    v1::{CancelJobsRequest, CancelJobsResponse, GetQueueRequest, PauseQueueRequest, Queue, ResumeQueueRequest},
};

use crate::{Client, ClientError, JobFilter, jobs::present};

impl Client {
    /// Asks for every job to be cancelled that matches the filter, was accepted before `before` and has not ended, and returns how many
    /// these are. Durable when it returns; running ones end a little later.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the filter names states of ended jobs.
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
    /// As there.
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
        let call = || {
            let (mut service, request) = (self.jobs(), request.clone());
            async move { service.cancel_jobs(request).await }
        };
        Ok(self.retry(call).await?.into_inner())
    }

    /// How the queue stands.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn get_queue(&self) -> Result<Queue, ClientError> {
        let call = || {
            let mut service = self.jobs();
            async move { service.get_queue(GetQueueRequest {}).await }
        };
        present(self.retry(call).await?.into_inner().queue, "queue")
    }

    /// Lets no job start any more; those that run go on.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn pause_queue(&self) -> Result<Queue, ClientError> {
        let call = || {
            let mut service = self.jobs();
            async move { service.pause_queue(PauseQueueRequest {}).await }
        };
        present(self.retry(call).await?.into_inner().queue, "queue")
    }

    /// Lets jobs start again.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn resume_queue(&self) -> Result<Queue, ClientError> {
        let call = || {
            let mut service = self.jobs();
            async move { service.resume_queue(ResumeQueueRequest {}).await }
        };
        present(self.retry(call).await?.into_inner().queue, "queue")
    }
}
