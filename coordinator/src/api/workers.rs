//! `WorkerService`.

use sortinghat_proto::{
    TaskId, Tenant,
    v1::{
        ListWorkersRequest, ListWorkersResponse, SynchronizeRequest, SynchronizeResponse,
        worker_service_server::WorkerService,
    },
};
use tonic::{Request, Response, Status};

use super::caller;
use crate::{auth::Role, engine::Engine};

/// The service.
#[derive(Clone)]
pub(super) struct Workers {
    pub(super) engine: Engine,
}

impl Workers {
    /// Whether the task belongs to the tenant. A task that cannot be looked up now is taken for another tenant's and not shown.
    async fn is_of(&self, tenant: &Tenant, task: &str) -> bool {
        let Ok(task) = task.parse::<TaskId>() else { return false };
        self.engine.get(tenant, task.job()).await.is_ok()
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    async fn synchronize(&self, request: Request<SynchronizeRequest>) -> Result<Response<SynchronizeResponse>, Status> {
        Ok(Response::new(self.engine.synchronize(request.into_inner()).await?))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let caller = caller(&request);
        let mut response = self.engine.list_workers().await?;
        if caller.role != Role::Admin {
            // Workers serve every tenant, and no tenant may see what they do for the others.
            for worker in &mut response.workers {
                if let Some(health) = &mut worker.health {
                    health.detail.clear();
                }
                let mut own = Vec::new();
                for task in std::mem::take(&mut worker.running_tasks) {
                    if self.is_of(&caller.tenant, &task).await {
                        own.push(task);
                    }
                }
                worker.running_tasks = own;
            }
        }
        Ok(Response::new(response))
    }
}
