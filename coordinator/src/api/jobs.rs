//! `JobService`.

use futures::{StreamExt as _, stream::BoxStream};
use sortinghat_proto::{
    JobId,
    v1::{
        CancelJobRequest, CancelJobResponse, CancelJobsRequest, CancelJobsResponse, DeleteJobRequest,
        DeleteJobResponse, ExplainJobRequest, ExplainJobResponse, GetJobRequest, GetJobResponse, GetQueueRequest,
        GetQueueResponse, ListJobsRequest, ListJobsResponse, PauseQueueRequest, PauseQueueResponse, ResumeQueueRequest,
        ResumeQueueResponse, RetryJobRequest, RetryJobResponse, SubmitJobRequest, SubmitJobResponse, SubmitJobsRequest,
        SubmitJobsResponse, WatchJobRequest, WatchJobResponse, WatchPredictionsRequest, WatchPredictionsResponse,
        job_service_server::JobService,
    },
};
use tonic::{Request, Response, Status};
use tracing::Span;

use super::{admission::JobAdmission, caller, tenant, tenant_named};
use crate::engine::{Engine, Submission};

/// The service.
#[derive(Clone)]
pub(super) struct Jobs {
    pub(super) engine: Engine,
    pub(super) admission: JobAdmission,
}

/// Parses a job's id and adds it to the log lines of the call.
fn job_id(text: &str) -> Result<JobId, Status> {
    let job: JobId = text.parse()?;
    Span::current().record("job", job.as_str());
    Ok(job)
}

#[tonic::async_trait]
impl JobService for Jobs {
    type WatchJobStream = BoxStream<'static, Result<WatchJobResponse, Status>>;
    type WatchPredictionsStream = BoxStream<'static, Result<WatchPredictionsResponse, Status>>;

    async fn submit_job(&self, request: Request<SubmitJobRequest>) -> Result<Response<SubmitJobResponse>, Status> {
        let tenant = tenant(&request);
        let submission = Submission::try_from(request.into_inner())?;
        let accepted = self.engine.submit(&tenant, submission).await?;
        if let Some(job) = &accepted.job {
            Span::current().record("job", job.id.as_str());
            tracing::info!(existed = accepted.existed, "job accepted");
        }
        Ok(Response::new(accepted))
    }

    async fn submit_jobs(&self, request: Request<SubmitJobsRequest>) -> Result<Response<SubmitJobsResponse>, Status> {
        let tenant = tenant(&request);
        let jobs = request.into_inner().jobs;
        let _places = self.admission.take(jobs.len()).await?;
        Ok(Response::new(self.engine.submit_many(&tenant, jobs).await?))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        let tenant = tenant(&request);
        let job = self.engine.get(&tenant, &job_id(&request.get_ref().job_id)?).await?;
        Ok(Response::new(GetJobResponse { job: Some(job) }))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let tenant = tenant(&request);
        Ok(Response::new(self.engine.list(&tenant, request.into_inner()).await?))
    }

    async fn watch_job(&self, request: Request<WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let tenant = tenant(&request);
        let WatchJobRequest { job_id: job, after_sequence } = request.into_inner();
        let updates = self.engine.watch(&tenant, &job_id(&job)?, after_sequence).await?;
        Ok(Response::new(updates.map(|update| update.map_err(Status::from)).boxed()))
    }

    async fn watch_predictions(
        &self,
        request: Request<WatchPredictionsRequest>,
    ) -> Result<Response<Self::WatchPredictionsStream>, Status> {
        let tenant = tenant(&request);
        job_id(&request.get_ref().job_id)?;
        let updates = self.engine.watch_predictions(&tenant, request.into_inner()).await?;
        Ok(Response::new(updates.map(|update| update.map_err(Status::from)).boxed()))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        let tenant = tenant(&request);
        let job = self.engine.cancel(&tenant, &job_id(&request.get_ref().job_id)?).await?;
        tracing::info!("cancellation requested");
        Ok(Response::new(CancelJobResponse { job: Some(job) }))
    }

    async fn explain_job(&self, request: Request<ExplainJobRequest>) -> Result<Response<ExplainJobResponse>, Status> {
        let (tenant, sight) = (tenant(&request), caller(&request).sight());
        Ok(Response::new(self.engine.explain(&tenant, &job_id(&request.get_ref().job_id)?, sight).await?))
    }

    async fn cancel_jobs(&self, request: Request<CancelJobsRequest>) -> Result<Response<CancelJobsResponse>, Status> {
        let tenant = tenant(&request);
        Ok(Response::new(self.engine.cancel_many(&tenant, request.into_inner()).await?))
    }

    async fn delete_job(&self, request: Request<DeleteJobRequest>) -> Result<Response<DeleteJobResponse>, Status> {
        let tenant = tenant(&request);
        let id = job_id(&request.get_ref().job_id)?;
        let deleted = match request.get_ref().erase {
            true => self.engine.erase_job(&tenant, &id).await?,
            false => self.engine.delete_job(&tenant, &id).await?,
        };
        tracing::info!("job deleted");
        Ok(Response::new(deleted))
    }

    async fn retry_job(&self, request: Request<RetryJobRequest>) -> Result<Response<RetryJobResponse>, Status> {
        let tenant = tenant(&request);
        let accepted = self.engine.retry(&tenant, request.into_inner()).await?;
        if let Some(job) = &accepted.job {
            Span::current().record("job", job.id.as_str());
            tracing::info!(existed = accepted.existed, retry_of = job.retry_of, "job accepted");
        }
        Ok(Response::new(accepted))
    }

    async fn get_queue(&self, request: Request<GetQueueRequest>) -> Result<Response<GetQueueResponse>, Status> {
        let queue = self.engine.queue(&tenant_named(&request, &request.get_ref().tenant)?).await?;
        Ok(Response::new(GetQueueResponse { queue: Some(queue) }))
    }

    async fn pause_queue(&self, request: Request<PauseQueueRequest>) -> Result<Response<PauseQueueResponse>, Status> {
        let queue = self.engine.pause_queue(&tenant_named(&request, &request.get_ref().tenant)?).await?;
        tracing::info!("queue paused");
        Ok(Response::new(PauseQueueResponse { queue: Some(queue) }))
    }

    async fn resume_queue(
        &self,
        request: Request<ResumeQueueRequest>,
    ) -> Result<Response<ResumeQueueResponse>, Status> {
        let queue = self.engine.resume_queue(&tenant_named(&request, &request.get_ref().tenant)?).await?;
        tracing::info!("queue resumed");
        Ok(Response::new(ResumeQueueResponse { queue: Some(queue) }))
    }
}
