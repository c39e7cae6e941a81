//! The connection. Everything that the SDK does is a method of it.

use std::{error::Error, future::Future, io, iter, path::PathBuf, time::Duration};

use sortinghat_link::{Bearer, Connection, Endpoint, Link, LinkError, Pace, root_cause};
use sortinghat_proto::{
    secrets::without_secrets,
    v1::{
        ListWorkersRequest, WhoAmIRequest, WhoAmIResponse, Worker, artifact_service_client::ArtifactServiceClient,
        identity_service_client::IdentityServiceClient, job_service_client::JobServiceClient,
        worker_service_client::WorkerServiceClient,
    },
};
use tonic::{Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    ClientError,
    retry::{Backoff, with_retries},
    uploads::HashCache,
};

/// The connection, with the token in every call.
type Authenticated = InterceptedService<Channel, Bearer>;
/// Calls about jobs and queues.
pub(crate) type Jobs = JobServiceClient<Authenticated>;
/// Calls about objects, datasets and models.
pub(crate) type Artifacts = ArtifactServiceClient<Authenticated>;

/// How long to wait for a connection, and how soon to notice that it is lost.
const PACE: Pace = Pace {
    connect_timeout: Duration::from_secs(5),
    keepalive_interval: Duration::from_secs(20),
    keepalive_timeout: Duration::from_secs(10),
};
/// How long a call is repeated while the server cannot be reached, unless [`Client::with_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for a server that refuses connections. A restart takes a moment, and the pause of its supervisor a second.
pub const RESTART_PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a coordinator. It is cheap to clone, and reconnects by itself.
#[derive(Clone)]
pub struct Client {
    link: Link,
    patience: Duration,
    hash_cache: Option<HashCache>,
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
        let prepared = endpoint.prepare(PACE).map_err(|error| unusable(&endpoint, error))?;
        let mut backoff = Backoff::within(patience);
        let channel = loop {
            match prepared.connect().await {
                Ok(channel) => break channel,
                Err(error) if may_be_restarting(&error) && backoff.pause().await => {}
                Err(error) => {
                    return Err(ClientError::Unreachable { url: endpoint.url, reason: root_cause(&error) });
                }
            }
        };
        Ok(Self { link: prepared.link(channel), patience: PATIENCE, hash_cache: None, tenant: String::new() })
    }

    /// The same connection, on which calls are repeated for `patience` while the server cannot be reached.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same connection, on which the digests of uploaded files are remembered in this file, so that the next upload of the same files does
    /// not read them again. Several programs may use the file.
    #[must_use]
    pub fn with_hash_cache(self, file: impl Into<PathBuf>) -> Self {
        Self { hash_cache: Some(HashCache::at(file.into())), ..self }
    }

    pub(crate) fn hash_cache(&self) -> Option<&HashCache> {
        self.hash_cache.as_ref()
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
        let Connection { channel, bearer } = self.link.newest();
        let identities = IdentityServiceClient::with_interceptor(channel, bearer);
        let call =
            |mut identities: IdentityServiceClient<_>, request| async move { identities.who_am_i(request).await };
        self.call(identities, WhoAmIRequest {}, call).await
    }

    /// The workers that have called within the time of a lease, sorted by host.
    ///
    /// # Errors
    /// [`ClientError`] if the server refuses or is lost.
    pub async fn list_workers(&self) -> Result<Vec<Worker>, ClientError> {
        let Connection { channel, bearer } = self.link.newest();
        let workers = WorkerServiceClient::with_interceptor(channel, bearer);
        let call = |mut workers: WorkerServiceClient<_>, request| async move { workers.list_workers(request).await };
        Ok(self.call(workers, ListWorkersRequest {}, call).await?.workers)
    }

    pub(crate) fn jobs(&self) -> Jobs {
        let Connection { channel, bearer } = self.link.newest();
        JobServiceClient::with_interceptor(channel, bearer)
    }

    pub(crate) fn artifacts(&self) -> Artifacts {
        let Connection { channel, bearer } = self.link.newest();
        ArtifactServiceClient::with_interceptor(channel, bearer)
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

fn unusable(endpoint: &Endpoint, error: LinkError) -> ClientError {
    match error {
        LinkError::File { path, source } => ClientError::File { action: "read", path, source },
        error => {
            let url = without_secrets(&endpoint.url).into_owned();
            ClientError::BadEndpoint { url, reason: error.to_string() }
        }
    }
}

/// Whether nobody listens on the machine, or the listener has just gone. An unknown name or an untrusted certificate, in contrast, does
/// not change by waiting.
fn may_be_restarting(error: &dyn Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    let gone = [ConnectionRefused, ConnectionReset, ConnectionAborted, BrokenPipe, UnexpectedEof];
    let causes = iter::successors(error.source(), |cause| (**cause).source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| gone.contains(&cause.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn text_that_is_no_address_is_refused_as_such_and_not_as_unreachable() {
        for url in ["", "nonsense", "ftp://a", "127.0.0.1:7878"] {
            let error = Client::connect_within(Endpoint::local(url), Duration::ZERO).await.err().expect(url);
            assert!(matches!(error, ClientError::BadEndpoint { .. }), "{url}: {error}");
        }
    }
}
