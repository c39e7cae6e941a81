//! The address of a coordinator, with the token and the certificates for it.

use std::{error::Error, fmt, io, iter, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Transport},
};
use url::{Host, Url};

use crate::{ClientError, retry::Backoff};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of a coordinator, with the token and the certificates for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// The token, which is never sent in plain text to another machine.
    pub token: Option<String>,
    /// The certificates (PEM) to trust for https; `None` for those that the system trusts.
    pub ca: Option<Vec<u8>>,
}

impl Endpoint {
    /// A coordinator that requires no token and uses no private certificates.
    pub fn local(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, ca: None }
    }

    /// Connects, and tries again for `patience` while connections are refused. Also returns the interceptor that adds the token.
    pub(crate) async fn open(&self, patience: Duration) -> Result<(Channel, Bearer), ClientError> {
        let url = self.parse_url()?;
        let bearer = self.bearer(&url)?;
        let mut transport = Transport::from_shared(self.url.clone())
            .map_err(|error| self.refuse(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .tcp_nodelay(true);
        if url.scheme() == "https" {
            let refuse = |reason| self.refuse(format!("the certificates to trust cannot be used: {reason}"));
            transport = transport.tls_config(self.tls()).map_err(|error| refuse(describe(&error)))?;
        }
        let mut backoff = Backoff::within(patience);
        loop {
            match transport.connect().await {
                Ok(channel) => return Ok((channel, bearer)),
                Err(error) if may_be_restarting(&error) && backoff.pause().await => {}
                Err(error) => {
                    return Err(ClientError::Unreachable { url: self.url.clone(), reason: describe(&error) });
                }
            }
        }
    }

    fn parse_url(&self) -> Result<Url, ClientError> {
        match Url::parse(&self.url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Ok(url),
            _ => Err(self.refuse("write http://HOST:PORT or https://HOST:PORT".to_owned())),
        }
    }

    fn bearer(&self, url: &Url) -> Result<Bearer, ClientError> {
        let Some(token) = &self.token else { return Ok(Bearer(None)) };
        if url.scheme() == "http" && !is_loopback(url) {
            return Err(self.refuse("a token is not sent in plain text to another machine: use https".to_owned()));
        }
        let value = format!("Bearer {}", token.trim()).parse();
        let mut value: MetadataValue<Ascii> = value
            .map_err(|_| self.refuse("the token contains characters that are not allowed in a header".to_owned()))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    fn tls(&self) -> ClientTlsConfig {
        match &self.ca {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        }
    }

    fn refuse(&self, reason: String) -> ClientError {
        ClientError::BadEndpoint { url: self.url.clone(), reason }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "hidden");
        f.debug_struct("Endpoint").field("url", &self.url).field("token", &token).finish_non_exhaustive()
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The root cause of an error. The text of tonic's own error is only "transport error".
fn describe(error: &dyn Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether nobody listens on the machine, or the listener has just gone. An unknown name or an untrusted certificate, in contrast, does
/// not change by waiting.
fn may_be_restarting(error: &dyn Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    let gone = [ConnectionRefused, ConnectionReset, ConnectionAborted, BrokenPipe, UnexpectedEof];
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| gone.contains(&cause.kind()))
}

fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    iter::successors(error.source(), |cause| (**cause).source())
}

/// Adds the token to every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_not_sent_in_plain_text_to_another_machine() {
        let endpoint = Endpoint { token: Some("secret".into()), ..Endpoint::local("http://192.0.2.1:7878") };
        let error = endpoint.open(Duration::ZERO).await.err().expect("refused before anything is sent");
        assert!(matches!(error, ClientError::BadEndpoint { .. }), "{error}");
        assert!(!format!("{endpoint:?}").contains("secret"));
    }

    #[tokio::test]
    async fn text_that_is_no_address_is_refused_as_such_and_not_as_unreachable() {
        for url in ["", "nonsense", "ftp://a", "127.0.0.1:7878"] {
            let error = Endpoint::local(url).open(Duration::ZERO).await.err().expect(url);
            assert!(matches!(error, ClientError::BadEndpoint { .. }), "{url}: {error}");
        }
    }
}
