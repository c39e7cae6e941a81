//! The address of a coordinator, with what is shown to it and what is trusted.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sortinghat_proto::secrets;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Certificate as TrustedPem, Channel, ClientTlsConfig, Endpoint as Transport, Identity},
};
use url::{Host, Url};

use crate::{Bearer, Connection, Link, LinkError, first_expiry, fresh::Expiring, root_cause};

/// The address of a coordinator, with what is shown to it and what is trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// The token, which is never sent in plain text to another machine.
    pub token: Option<Source>,
    /// The certificates (PEM) to trust for https; `None` for those that the system trusts.
    pub ca: Option<Source>,
    /// The certificate to show. A coordinator that trusts who has made it knows a worker by it.
    pub certificate: Option<CertificateFiles>,
}

/// Where a token or certificates are. A file is looked at again while there is a connection.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Here.
    Text(String),
    /// In this file.
    File(PathBuf),
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and one that the coordinator trusts.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How long to wait for a connection.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Until it is there.
    pub connect_timeout: Duration,
    /// Between two questions whether it is still alive.
    pub keepalive_interval: Duration,
    /// For the answer to such a question.
    pub keepalive_timeout: Duration,
}

/// What was read of an endpoint's files.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content {
    token: Option<String>,
    ca: Option<String>,
    identity: Option<(String, String)>,
}

/// An endpoint whose files were read and can be used.
pub struct Prepared {
    pub(crate) endpoint: Endpoint,
    pub(crate) pace: Pace,
    pub(crate) content: Content,
    pub(crate) expiring: Vec<Expiring>,
    bearer: Bearer,
    transport: Transport,
}

impl Endpoint {
    /// A coordinator to which nothing is shown, and which is trusted if the system trusts it.
    pub fn local(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, ca: None, certificate: None }
    }

    /// Reads the files, and finds out whether all of it can be used together.
    ///
    /// # Errors
    /// [`LinkError`], which says what to change.
    pub fn prepare(&self, pace: Pace) -> Result<Prepared, LinkError> {
        let content = self.read()?;
        self.prepare_with(content, pace)
    }

    pub(crate) fn prepare_with(&self, content: Content, pace: Pace) -> Result<Prepared, LinkError> {
        let url = self.parse_url()?;
        let bearer = self.bearer(&url, content.token.as_deref())?;
        let expiring = self.expiring(&content)?;
        let address = |error: tonic::transport::Error| LinkError::Address { reason: root_cause(&error) };
        let mut transport = Transport::from_shared(self.url.clone())
            .map_err(address)?
            .connect_timeout(pace.connect_timeout)
            .http2_keep_alive_interval(pace.keepalive_interval)
            .keep_alive_timeout(pace.keepalive_timeout)
            .tcp_nodelay(true);
        if url.scheme() == "https" {
            let unusable = |error: tonic::transport::Error| LinkError::Tls { reason: root_cause(&error) };
            transport = transport.tls_config(content.tls()).map_err(unusable)?;
        }
        Ok(Prepared { endpoint: self.clone(), pace, content, expiring, bearer, transport })
    }

    /// Reads all that lies in files.
    pub(crate) fn read(&self) -> Result<Content, LinkError> {
        let text = |source: &Option<Source>| source.as_ref().map(Source::read).transpose();
        let pair = |files: &CertificateFiles| Ok((read(&files.cert)?, read(&files.key)?));
        let identity = self.certificate.as_ref().map(pair).transpose()?;
        Ok(Content { token: text(&self.token)?, ca: text(&self.ca)?, identity })
    }

    /// Whether anything lies in files, so that it may change.
    pub(crate) fn has_files(&self) -> bool {
        let sources = [&self.token, &self.ca];
        self.certificate.is_some() || sources.into_iter().flatten().any(|source| matches!(source, Source::File(_)))
    }

    fn parse_url(&self) -> Result<Url, LinkError> {
        secrets::refuse_secrets(&self.url).map_err(refuse)?;
        match Url::parse(&self.url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Ok(url),
            _ => Err(refuse("write http://HOST:PORT or https://HOST:PORT")),
        }
    }

    fn bearer(&self, url: &Url, token: Option<&str>) -> Result<Bearer, LinkError> {
        let is_open = url.scheme() == "http" && !is_loopback(url);
        if is_open && self.certificate.is_some() {
            return Err(refuse("a certificate is shown over https only: use https"));
        }
        let Some(token) = token else { return Ok(Bearer(None)) };
        if is_open {
            return Err(refuse("a token is not sent in plain text to another machine: use https"));
        }
        let file = match &self.token {
            Some(Source::File(path)) => Some(path.clone()),
            Some(Source::Text(_)) | None => None,
        };
        let token = token.trim();
        let bad = |reason| LinkError::Token { file: file.clone(), reason };
        if token.is_empty() {
            return Err(bad("is empty"));
        }
        let value = format!("Bearer {token}").parse();
        let mut value: MetadataValue<Ascii> =
            value.map_err(|_| bad("contains characters that are not allowed in a header"))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    /// The certificates that lie in files, and when they expire.
    fn expiring(&self, content: &Content) -> Result<Vec<Expiring>, LinkError> {
        let own = self.certificate.as_ref().map(|files| files.cert.as_path()).zip(content.identity.as_ref());
        let own = own.map(|(path, (pem, _))| ("the certificate to show, in", path, pem));
        let ca = match &self.ca {
            Some(Source::File(path)) => {
                content.ca.as_ref().map(|pem| ("a certificate to trust, in", path.as_path(), pem))
            }
            Some(Source::Text(_)) | None => None,
        };
        let expiring = own.into_iter().chain(ca).map(|(what, path, pem)| {
            let unusable = |source| LinkError::Certificates { path: path.to_owned(), source };
            let expires = first_expiry(pem.as_bytes()).map_err(unusable)?;
            Ok(Expiring { what: format!("{what} {},", path.display()), expires })
        });
        expiring.collect()
    }
}

impl Prepared {
    /// Connects.
    ///
    /// # Errors
    /// If nobody answers, or the two ends do not trust each other.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        self.transport.connect().await
    }

    /// A link that connects at the first call.
    pub fn link_lazily(self) -> Link {
        let channel = self.transport.connect_lazy();
        self.link(channel)
    }

    /// A link over this connection, which is replaced when the files change.
    pub fn link(self, channel: Channel) -> Link {
        Link::new(channel, self)
    }

    /// What calls are made with, over this connection.
    pub(crate) fn over(&self, channel: Channel) -> Connection {
        Connection { channel, bearer: self.bearer.clone() }
    }

    /// A connection that is made at the first call.
    pub(crate) fn lazily(&self) -> Channel {
        self.transport.connect_lazy()
    }
}

impl Content {
    /// Whether the connection itself is the same, so that only the token differs.
    pub(crate) fn has_the_same_certificates(&self, other: &Self) -> bool {
        (&self.ca, &self.identity) == (&other.ca, &other.identity)
    }

    fn tls(&self) -> ClientTlsConfig {
        let tls = match &self.ca {
            Some(pem) => ClientTlsConfig::new().ca_certificate(TrustedPem::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match &self.identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        }
    }
}

impl Source {
    fn read(&self) -> Result<String, LinkError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => read(path),
        }
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn read(path: &Path) -> Result<String, LinkError> {
    fs::read_to_string(path).map_err(|source| LinkError::File { path: path.to_owned(), source })
}

fn refuse(reason: &str) -> LinkError {
    LinkError::Address { reason: reason.to_owned() }
}

/// Whether a URL names this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("hidden"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = secrets::without_secrets(&self.url);
        f.debug_struct("Endpoint").field("url", &url).field("token", &self.token).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        connect_timeout: Duration::from_secs(1),
        keepalive_interval: Duration::from_secs(20),
        keepalive_timeout: Duration::from_secs(10),
    };

    fn refused(endpoint: &Endpoint) -> String {
        match endpoint.prepare(PACE) {
            Ok(_) => panic!("{endpoint:?} is taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_token_is_not_sent_in_plain_text_to_another_machine() {
        let with_token = |url: &str| Endpoint { token: Some("secret".into()), ..Endpoint::local(url) };
        let endpoint = with_token("http://192.0.2.1:7878");
        assert!(refused(&endpoint).contains("use https"));
        assert!(!format!("{endpoint:?}").contains("secret"));
        with_token("http://127.0.0.1:7878").prepare(PACE).expect("loopback stays on this machine");
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_shown() {
        for url in ["https://anna:hunter2@host", "https://host?token=hunter2", "anna:hunter2@host", "http:/a:hunter2@b"]
        {
            let endpoint = Endpoint::local(url);
            let told = refused(&endpoint);
            assert!(told.contains("set apart") && !told.contains("hunter2"), "{told}");
            assert!(!format!("{endpoint:?}").contains("hunter2"), "{endpoint:?}");
        }
    }

    #[test]
    fn text_that_is_no_address_is_refused_with_what_to_write() {
        for url in ["", "nonsense", "ftp://a", "127.0.0.1:7878"] {
            assert!(refused(&Endpoint::local(url)).contains("http://HOST:PORT"), "{url}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("writable");
            path
        };
        let local = Endpoint::local("https://127.0.0.1:7878");
        let absent = Some(Source::File("/nonexistent/token".into()));
        assert!(refused(&Endpoint { token: absent, ..local.clone() }).contains("/nonexistent/token"));
        let empty = Some(Source::File(file("empty.token", "\n")));
        assert!(refused(&Endpoint { token: empty, ..local.clone() }).contains("empty.token is empty"));
        let ca = Some(Source::File(file("ca.pem", "nonsense")));
        assert!(refused(&Endpoint { ca, ..local.clone() }).contains("ca.pem cannot be used"));
        let files = CertificateFiles { cert: file("cert.pem", "nonsense"), key: file("key.pem", "nonsense") };
        assert!(refused(&Endpoint { certificate: Some(files.clone()), ..local }).contains("cert.pem cannot be used"));
        let plain = Endpoint { certificate: Some(files), ..Endpoint::local("http://192.0.2.1:7878") };
        assert!(refused(&plain).contains("use https"));
    }
}
