//! The connection. Everything that the SDK does is a method of it.

use std::{future::Future, time::Duration};

use sortinghat_proto::v1::{
    ListWorkersRequest, WhoAmIRequest, WhoAmIResponse, Worker, artifact_service_client::ArtifactServiceClient,
    identity_service_client::IdentityServiceClient, job_service_client::JobServiceClient,
    worker_service_client::WorkerServiceClient,
};
use tonic::{Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    ClientError, Endpoint,
    endpoint::Bearer,
    retry::{Backoff, with_retries},
};

/// The connection, with the token in every call.
type Authenticated = InterceptedService<Channel, Bearer>;
/// Calls about jobs and queues.
pub(crate) type Jobs = JobServiceClient<Authenticated>;
/// Calls about objects, datasets and models.
pub(crate) type Artifacts = ArtifactServiceClient<Authenticated>;

/// How long a call is repeated while the server cannot be reached, unless [`Client::with_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for a server that refuses connections. A restart takes a moment, and the pause of its supervisor a second.
pub const RESTART_PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a coordinator. It is cheap to clone, and reconnects by itself.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
    patience: Duration,
    /// The tenant that calls about a queue name; empty for the caller's own.
    pub(crate) tenant: String,
}

impl Client {
    /// Connects. A server that refuses connections may be restarting, so this tries again for [`RESTART_PATIENCE`].
    ///
    /// # Errors
    /// [`ClientError::BadEndpoint`] if the address cannot be used, [`ClientError::Unreachable`] if nobody answers.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, ClientError> {
        Self::connect_within(endpoint, RESTART_PATIENCE).await
    }

    /// Connects like [`connect`](Self::connect), but tries again for `patience`; zero makes it a single try.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_within(endpoint: Endpoint, patience: Duration) -> Result<Self, ClientError> {
        let (channel, bearer) = endpoint.open(patience).await?;
        Ok(Self { channel, bearer, patience: PATIENCE, tenant: String::new() })
    }

    /// The same connection, on which calls are repeated for `patience` while the server cannot be reached.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same connection, on which calls about a queue are about the queue of this tenant. Only an operator may name another tenant than
    /// its own.
    #[must_use]
    pub fn with_tenant(self, tenant: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), ..self }
    }

    /// Who the server takes the caller for, and what that lets the caller do.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn who_am_i(&self) -> Result<WhoAmIResponse, ClientError> {
        let identities = IdentityServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone());
        let call =
            |mut identities: IdentityServiceClient<_>, request| async move { identities.who_am_i(request).await };
        self.call(identities, WhoAmIRequest {}, call).await
    }

    /// The workers that have called within the time of a lease, sorted by host.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_workers(&self) -> Result<Vec<Worker>, ClientError> {
        let workers = WorkerServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone());
        let call = |mut workers: WorkerServiceClient<_>, request| async move { workers.list_workers(request).await };
        Ok(self.call(workers, ListWorkersRequest {}, call).await?.workers)
    }

    pub(crate) fn jobs(&self) -> Jobs {
        JobServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn artifacts(&self) -> Artifacts {
        ArtifactServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The pauses between tries, for an operation that consists of several calls.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::within(self.patience)
    }

    /// Makes a call, and repeats it while the server cannot be reached.
    pub(crate) async fn call<S, Q, A, F>(
        &self,
        service: S,
        request: Q,
        mut method: impl FnMut(S, Q) -> F,
    ) -> Result<A, ClientError>
    where
        S: Clone,
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.retry(|| method(service.clone(), request.clone())).await.map(Response::into_inner)
    }

    /// Repeats a call, which may stream, while the server cannot be reached.
    pub(crate) async fn retry<T, F>(&self, call: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        with_retries(self.patience, call).await
    }
}
