//! A coordinator with TLS, whose workers may show certificates of an authority.

use std::{path::PathBuf, time::SystemTime};

use sortinghat_coordinator::config::Settings;
use sortinghat_proto::v1::{WhoAmIRequest, WhoAmIResponse, identity_service_client::IdentityServiceClient};
use sortinghat_tests::certificates::{Authority, Certified, replace};
use tempfile::TempDir;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::harness::{Client, Coordinator, client_over};

/// The coordinator, its files, and who makes certificates for it and its workers.
pub(crate) struct Secured {
    pub(crate) coordinator: Coordinator,
    pub(crate) authority: Authority,
    folder: TempDir,
}

impl Secured {
    /// Starts a coordinator with these tokens and certificates.
    pub(crate) async fn start(tokens: &str) -> Self {
        let authority = Authority::new();
        let server = authority.server();
        Self::start_with(authority, &server, tokens).await
    }

    /// Starts a coordinator that shows this certificate.
    pub(crate) async fn start_with(authority: Authority, server: &Certified, tokens: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cert, key) = server.write(folder.path(), "server");
        let file = |name: &str, text: &str| Some(replace(&folder.path().join(name), text));
        let settings = Settings {
            tls_cert: Some(cert),
            tls_key: Some(key),
            client_ca: file("ca.pem", &authority.pem()),
            credentials: file("tokens.toml", tokens),
            metrics_listen: "127.0.0.1:0".parse().ok(),
            ..Settings::default()
        };
        Self { coordinator: Coordinator::start_with(settings).await, authority, folder }
    }

    /// Replaces the tokens file.
    pub(crate) fn list(&self, tokens: &str) {
        replace(&self.path("tokens.toml"), tokens);
    }

    /// Replaces the authorities whose certificates are accepted.
    pub(crate) fn trust(&self, authorities: &[&Authority]) {
        let pem: String = authorities.iter().map(|authority| authority.pem()).collect();
        replace(&self.path("ca.pem"), &pem);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How to connect, with this certificate or without one.
    pub(crate) fn endpoint(&self, certificate: Option<&Certified>) -> Endpoint {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority.pem()));
        let tls = match certificate {
            Some(Certified { cert, key }) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        };
        let endpoint = Channel::from_shared(format!("https://{}", self.coordinator.address)).expect("a URL");
        endpoint.tls_config(tls).expect("good certificates")
    }

    /// Clients of somebody who shows this certificate, and perhaps a token.
    pub(crate) fn client(&self, certificate: Option<&Certified>, token: Option<&str>) -> Client {
        client_over(self.endpoint(certificate).connect_lazy(), token.map(str::to_owned))
    }

    /// Who the coordinator takes somebody with this certificate for.
    pub(crate) async fn who_am_i(&self, certificate: &Certified) -> Result<WhoAmIResponse, Status> {
        let mut client = IdentityServiceClient::new(self.endpoint(Some(certificate)).connect_lazy());
        client.who_am_i(WhoAmIRequest {}).await.map(tonic::Response::into_inner)
    }
}

/// The lines of a tokens file for the certificate of a worker of the tenant `a`, whose id is given.
pub(crate) fn certificate(id: &str, san: &str) -> String {
    format!("[[certificates]]\nid = '{id}'\nsan = '{san}'\nrole = 'worker'\ntenants = ['a']\n")
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}
