//! The connection to the coordinator: address, certificates, token.

use std::time::Duration;

use sortinghat_link::{CertificateFiles, Connection, Endpoint, LinkError, Pace, Source};
use sortinghat_proto::{
    limits,
    v1::{SynchronizeRequest, SynchronizeResponse, worker_service_client::WorkerServiceClient},
};
use tonic::Status;

use crate::config::RunArgs;

/// The variable that holds the token where there is no file of it. There is no option for it, since everybody on the machine can read the
/// arguments of a process.
pub(super) const TOKEN_VARIABLE: &str = "SORTINGHAT_TOKEN";
/// A lost connection must be noticed while there is time to renew leases over a new one.
const PACE: Pace = Pace {
    connect_timeout: Duration::from_secs(3),
    keepalive_interval: Duration::from_secs(10),
    keepalive_timeout: Duration::from_secs(5),
};

/// Calls the coordinator; connects at the first call.
#[derive(Debug, Clone)]
pub(super) struct Link(sortinghat_link::Link);

impl Link {
    /// A link to the coordinator that `args` name. `token` is shown where there is no file of one.
    pub(super) fn new(args: &RunArgs, token: Option<String>) -> Result<Self, LinkError> {
        let RunArgs { coordinator, token_file, ca_file, client_cert, client_key, .. } = args;
        let certificate = client_cert.clone().zip(client_key.clone());
        let endpoint = Endpoint {
            url: coordinator.to_string(),
            token: token_file.clone().map(Source::File).or(token.map(Source::Text)),
            ca: ca_file.clone().map(Source::File),
            certificate: certificate.map(|(cert, key)| CertificateFiles { cert, key }),
        };
        Ok(Self(endpoint.prepare(PACE)?.link_lazily()))
    }

    /// Sends one message and returns its answer, which must come within `bound`.
    pub(super) async fn synchronize(
        &self,
        message: SynchronizeRequest,
        bound: Duration,
    ) -> Result<SynchronizeResponse, Status> {
        let Connection { channel, bearer } = self.0.newest();
        let mut client = WorkerServiceClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(limits::MAX_MESSAGE_BYTES);
        let answer = tokio::time::timeout(bound, client.synchronize(message)).await;
        let late = |_| Status::deadline_exceeded(format!("no answer within {} ms", bound.as_millis()));
        answer.map_err(late)?.map(tonic::Response::into_inner)
    }

    /// Waits until calls show a newer token or certificate, or trust newer ones.
    pub(super) async fn changed(&mut self) {
        self.0.changed().await;
    }
}
