//! `WorkerService`.

use sortinghat_proto::{
    TaskId, Tenant,
    v1::{
        ListWorkersRequest, ListWorkersResponse, SynchronizeRequest, SynchronizeResponse, Worker,
        worker_service_server::WorkerService,
    },
};
use tonic::{Request, Response, Status};

use super::caller;
use crate::{
    auth::{Caller, Role, Served, Sight},
    engine::Engine,
};

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

    /// The worker as a user of this tenant may see it: of a worker that serves others as well, neither its name nor what it does for them.
    /// `None` if it does not serve the tenant.
    async fn seen_by(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        (mut worker, serves): (Worker, Served),
    ) -> Option<Worker> {
        if !serves.has(tenant) {
            return None;
        }
        if let Some(health) = worker.health.as_mut().filter(|_| caller.role == Role::User) {
            health.detail.clear();
        }
        if caller.sight() == Sight::OwnTenant && serves.has_others_than(tenant) {
            worker.id.clear();
            if let Some(health) = &mut worker.health {
                health.detail.clear();
            }
            if let Some(description) = &mut worker.description {
                description.host.clear();
            }
        }
        worker.serves = vec![tenant.to_string()];
        let mut own = Vec::new();
        for task in std::mem::take(&mut worker.running_tasks) {
            if self.is_of(tenant, &task).await {
                own.push(task);
            }
        }
        worker.running_tasks = own;
        Some(worker)
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    async fn synchronize(&self, request: Request<SynchronizeRequest>) -> Result<Response<SynchronizeResponse>, Status> {
        let caller = caller(&request);
        Ok(Response::new(self.engine.synchronize(&caller, request.into_inner()).await?))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let caller = caller(&request);
        let all = self.engine.list_workers().await?;
        let workers = match (caller.role, &caller.tenant) {
            (Role::User | Role::Admin | Role::Worker, Some(tenant)) => {
                let mut seen = Vec::with_capacity(all.len());
                for worker in all {
                    seen.extend(self.seen_by(&caller, tenant, worker).await);
                }
                seen
            }
            // The guard lets only users and operators call this.
            (Role::User | Role::Admin | Role::Worker, None) => Vec::new(),
            (Role::Operator | Role::Everyone, _) => all.into_iter().map(|(worker, _)| worker).collect(),
        };
        Ok(Response::new(ListWorkersResponse { workers }))
    }
}
