//! The connection that everything else is a method of.

use std::{future::Future, time::Duration};

use sortinghat_proto::v1::{
    ListWorkersRequest, Worker, artifact_service_client::ArtifactServiceClient, job_service_client::JobServiceClient,
    worker_service_client::WorkerServiceClient,
};
use tonic::{Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    ClientError, Endpoint,
    endpoint::Bearer,
    retry::{Backoff, with_retries},
};

type Authenticated = InterceptedService<Channel, Bearer>;

/// How long a call is repeated while the server cannot be reached, unless [`Client::with_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a server that refuses connections is given to come back: a restart takes a moment, a supervisor's pause a second.
pub const RESTART_PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a coordinator. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
    patience: Duration,
}

impl Client {
    /// Connects. A server that refuses connections may just be restarting: it is tried again for [`RESTART_PATIENCE`].
    ///
    /// # Errors
    /// [`ClientError::BadEndpoint`] if the address cannot be used, [`ClientError::Unreachable`] if nobody answers.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, ClientError> {
        Self::connect_within(endpoint, RESTART_PATIENCE).await
    }

    /// The same, with another time for which it is tried again; zero for one try.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_within(endpoint: Endpoint, patience: Duration) -> Result<Self, ClientError> {
        let (channel, bearer) = endpoint.open(patience).await?;
        Ok(Self { channel, bearer, patience: PATIENCE })
    }

    /// The same connection, with another time for which calls are repeated while the server cannot be reached.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The workers that were heard of within the last lease, by host.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_workers(&self) -> Result<Vec<Worker>, ClientError> {
        let call = || {
            let mut service = WorkerServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone());
            async move { service.list_workers(ListWorkersRequest {}).await }
        };
        Ok(self.retry(call).await?.into_inner().workers)
    }

    pub(crate) fn jobs(&self) -> JobServiceClient<Authenticated> {
        JobServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn artifacts(&self) -> ArtifactServiceClient<Authenticated> {
        ArtifactServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// Pauses between tries of what is more than one call.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::within(self.patience)
    }

    pub(crate) async fn retry<T, F>(&self, call: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        with_retries(self.patience, call).await
    }
}
